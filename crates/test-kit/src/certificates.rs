//! Certificates for tests: an authority of their own, and leaves of it, as PEM files that go with the process.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context, Result};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    date_time_ymd,
};

use crate::folder::DataFolder;

/// The names under which tests reach their servers.
const LOCAL_NAMES: [&str; 3] = ["localhost", "127.0.0.1", "::1"];

/// An authority that signs leaves.
pub struct Authority {
    folder: DataFolder,
    issuer: Issuer<'static, KeyPair>,
    leaves_made: AtomicU32,
}

/// A certificate and its key, as files. They are removed with their authority.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Leaf {
    /// The certificate, in PEM.
    pub certificate: PathBuf,
    /// Its key (PKCS #8, no passphrase), in PEM. Only the owner may read it.
    pub key: PathBuf,
}

impl std::fmt::Debug for Authority {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Authority").field("folder", &self.folder).finish_non_exhaustive()
    }
}

impl Authority {
    /// A fresh authority, known to nobody.
    ///
    /// # Errors
    /// A file cannot be written.
    pub fn new(name: &str) -> Result<Self> {
        let folder = DataFolder::new(&format!("certificates-{name}"))?;
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let key = KeyPair::generate()?;
        let certificate = params.self_signed(&key)?;
        fs::write(folder.path().join("authority.pem"), certificate.pem()).context("writing an authority")?;
        Ok(Self { folder, issuer: Issuer::new(params, key), leaves_made: AtomicU32::new(0) })
    }

    /// The authority's own certificate, in PEM.
    pub fn certificate(&self) -> PathBuf {
        self.folder.path().join("authority.pem")
    }

    /// The folder of all its files.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// A server at this machine: `localhost`, `127.0.0.1` and `::1`.
    ///
    /// # Errors
    /// A file cannot be written.
    pub fn server(&self) -> Result<Leaf> {
        self.server_named(&LOCAL_NAMES)
    }

    /// A server under names of the test's choice (DNS names or addresses): a wrong one, for example.
    ///
    /// # Errors
    /// A name is none; or a file cannot be written.
    pub fn server_named(&self, names: &[&str]) -> Result<Leaf> {
        self.sign(server_params(names)?)
    }

    /// A server at this machine whose certificate has expired.
    ///
    /// # Errors
    /// A file cannot be written.
    pub fn expired_server(&self) -> Result<Leaf> {
        let mut params = server_params(&LOCAL_NAMES)?;
        params.not_before = date_time_ymd(2019, 1, 1);
        params.not_after = date_time_ymd(2020, 1, 1);
        self.sign(params)
    }

    /// A client that is called so (its common name).
    ///
    /// # Errors
    /// A file cannot be written.
    pub fn client(&self, name: &str) -> Result<Leaf> {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        self.sign(params)
    }

    fn sign(&self, mut params: CertificateParams) -> Result<Leaf> {
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.use_authority_key_identifier_extension = true;
        let key = KeyPair::generate()?;
        let certificate = params.signed_by(&key, &self.issuer)?;
        let number = self.leaves_made.fetch_add(1, Ordering::Relaxed);
        let file = |kind: &str| self.folder.path().join(format!("leaf-{number}.{kind}.pem"));
        let leaf = Leaf { certificate: file("certificate"), key: file("key") };
        fs::write(&leaf.certificate, certificate.pem()).context("writing a certificate")?;
        fs::write(&leaf.key, key.serialize_pem()).context("writing a key")?;
        fs::set_permissions(&leaf.key, fs::Permissions::from_mode(0o600)).context("hiding a key")?;
        Ok(leaf)
    }
}

fn server_params(names: &[&str]) -> Result<CertificateParams> {
    let mut params = CertificateParams::new(names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>())?;
    params.distinguished_name.push(DnType::CommonName, names.first().copied().unwrap_or("nobody"));
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    Ok(params)
}
