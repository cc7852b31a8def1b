//! TLS in front of a connection: its settings follow their files, and a handshake has a limit.
//!
//! Promise: files that cannot be used change nothing: at the start they are an error, later the ones that worked stay
//! in use, a warning says so, and `meanwhile_tls_reloads_total` counts it.

use std::fmt;
use std::io::{self, Read};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use parking_lot::Mutex;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{Acceptor, WebPkiClientVerifier};
use rustls::version::{TLS12, TLS13};
use rustls::{RootCertStore, ServerConfig};
use service_kit::CancellationToken;
use service_kit::config::{TlsSettings, TlsVersion};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite};
use tokio_rustls::LazyConfigAcceptor;
use tokio_rustls::server::TlsStream;

/// The protocols that are spoken, best first (ALPN).
const PROTOCOLS: [&[u8]; 2] = [b"h2", b"http/1.1"];
/// The first byte of every handshake (RFC 8446 section 5.1).
const HANDSHAKE: u8 = 22;
/// The most bytes of one file.
const FILE_BYTES_MAX: u64 = 1024 * 1024;
/// Counts changes of the files, by `outcome`.
const RELOADS: &str = "meanwhile_tls_reloads_total";

/// The files' bytes.
#[derive(Clone, PartialEq, Eq)]
struct Files {
    certificate: Vec<u8>,
    key: Vec<u8>,
    client_authorities: Option<Vec<u8>>,
}

/// TLS of a door. Cheap to clone.
#[derive(Clone)]
pub struct Tls(Arc<Inner>);

struct Inner {
    settings: TlsSettings,
    /// In use, for connections from now on.
    config: Mutex<Arc<ServerConfig>>,
    /// As they were at the last look, whether they could be used or not.
    seen: Mutex<Files>,
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Tls").field(&self.0.settings).finish()
    }
}

/// A connection's beginning.
pub(super) enum Beginning<I> {
    /// Its handshake is done.
    Tls(Box<TlsStream<I>>),
    /// It does not speak TLS.
    Plain(I),
}

impl Tls {
    /// Reads the files. None where the settings name none.
    ///
    /// # Errors
    /// A file cannot be read, or is not what it should be.
    pub fn load(settings: &TlsSettings) -> anyhow::Result<Option<Self>> {
        if !settings.is_on() {
            return Ok(None);
        }
        let files = Files::read(settings)?;
        let config = Mutex::new(Arc::new(files.config(settings)?));
        metrics::counter!(RELOADS, "outcome" => "used").increment(0);
        metrics::counter!(RELOADS, "outcome" => "refused").increment(0);
        Ok(Some(Self(Arc::new(Inner { settings: settings.clone(), config, seen: Mutex::new(files) }))))
    }

    /// Looks at the files now and then, until shutdown.
    ///
    /// # Errors
    /// None: what cannot be used is told, and looked at again.
    pub async fn follow(self, shutdown: CancellationToken) -> anyhow::Result<()> {
        let mut unreadable = None;
        loop {
            let pause = tokio::time::sleep(Duration::from_secs(self.0.settings.look_every_s));
            if shutdown.run_until_cancelled(pause).await.is_none() {
                return Ok(());
            }
            self.look(&mut unreadable);
        }
    }

    /// Uses files that have changed. `unreadable` is the last error that was told, so that it is told once.
    fn look(&self, unreadable: &mut Option<String>) {
        let files = Files::read(&self.0.settings);
        if files.as_ref().is_ok_and(|files| *self.0.seen.lock() == *files) {
            *unreadable = None;
            return;
        }
        let made = files.and_then(|files| {
            let config = files.config(&self.0.settings);
            *self.0.seen.lock() = files;
            config
        });
        match made {
            Ok(config) => {
                *self.0.config.lock() = Arc::new(config);
                *unreadable = None;
                metrics::counter!(RELOADS, "outcome" => "used").increment(1);
                tracing::info!("the files of TLS have changed, and are in use for new connections");
            }
            Err(error) => {
                let error = format!("{error:#}");
                if unreadable.as_ref() == Some(&error) {
                    return;
                }
                metrics::counter!(RELOADS, "outcome" => "refused").increment(1);
                tracing::warn!(%error, "the files of TLS have changed and cannot be used; the earlier ones stay");
                *unreadable = Some(error);
            }
        }
    }

    /// The handshake of a connection. The caller limits its time.
    pub(super) async fn begin<I>(&self, mut io: I) -> io::Result<Beginning<I>>
    where
        I: AsyncRead + AsyncWrite + Unpin,
    {
        let first = io.read_u8().await?;
        if first != HANDSHAKE {
            return Ok(Beginning::Plain(io));
        }
        let mut acceptor = Acceptor::default();
        acceptor.read_tls(&mut [first].as_slice())?;
        let begun = LazyConfigAcceptor::new(acceptor, io).await?;
        let config = Arc::clone(&self.0.config.lock());
        Ok(Beginning::Tls(Box::new(begun.into_stream(config).await?)))
    }
}

impl Files {
    fn read(settings: &TlsSettings) -> anyhow::Result<Self> {
        let authorities = Some(&settings.client_authorities).filter(|path| !path.is_empty());
        Ok(Self {
            certificate: read("certificate", &settings.certificate)?,
            key: read("key", &settings.key)?,
            client_authorities: authorities.map(|path| read("client_authorities", path)).transpose()?,
        })
    }

    fn config(&self, settings: &TlsSettings) -> anyhow::Result<ServerConfig> {
        service_kit::tls::install_ring();
        let versions = match settings.min_version {
            TlsVersion::V13 => &[&TLS13][..],
            TlsVersion::V12 => &[&TLS13, &TLS12],
        };
        let builder = ServerConfig::builder_with_protocol_versions(versions);
        let builder = match &self.client_authorities {
            None => builder.with_no_client_auth(),
            Some(pem) => {
                let mut roots = RootCertStore::empty();
                for authority in certificates("client_authorities", &settings.client_authorities, pem)? {
                    roots.add(authority).with_context(|| of("client_authorities", &settings.client_authorities))?;
                }
                let verifier = WebPkiClientVerifier::builder(Arc::new(roots)).build();
                builder.with_client_cert_verifier(verifier.context("`tls.client_authorities`")?)
            }
        };
        let chain = certificates("certificate", &settings.certificate, &self.certificate)?;
        let key = PrivateKeyDer::from_pem_slice(&self.key)
            .map_err(|_| anyhow::anyhow!("{}: no private key in PEM is in it", of("key", &settings.key)))?;
        let mut config = builder.with_single_cert(chain, key).with_context(|| {
            format!("{} and {} do not fit", of("certificate", &settings.certificate), of("key", &settings.key))
        })?;
        config.alpn_protocols = PROTOCOLS.map(<[u8]>::to_vec).to_vec();
        Ok(config)
    }
}

/// A setting and its file, as errors name them.
fn of(setting: &str, path: &str) -> String {
    format!("`tls.{setting}` (MEANWHILE__TLS__{}): {path}", setting.to_uppercase())
}

fn read(setting: &str, path: &str) -> anyhow::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let file = std::fs::File::open(path).with_context(|| of(setting, path))?;
    file.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes).with_context(|| of(setting, path))?;
    if bytes.len() as u64 > FILE_BYTES_MAX {
        bail!("{}: it has more than {FILE_BYTES_MAX} bytes", of(setting, path));
    }
    Ok(bytes)
}

fn certificates(setting: &str, path: &str, pem: &[u8]) -> anyhow::Result<Vec<CertificateDer<'static>>> {
    let all: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    match all {
        Ok(all) if !all.is_empty() => Ok(all),
        _ => bail!("{}: no certificate in PEM is in it", of(setting, path)),
    }
}

#[cfg(test)]
mod tests;
