//! Access to an API: a key, and the files of TLS.

use std::path::{Path, PathBuf};
use std::{fmt, fs};

use reqwest::header::{AUTHORIZATION, HeaderMap, HeaderValue};
use reqwest::{Certificate, ClientBuilder, Identity};

use crate::Error;

/// Access to an API, beside its address.
#[derive(Clone, Default)]
pub struct Access {
    /// An API key, or a token.
    pub key: Option<String>,
    /// The authorities that are trusted beside the system's own: a file, in PEM.
    pub authorities: Option<PathBuf>,
    /// The certificate that the API asks of its callers, and its key: two files, in PEM.
    pub certificate: Option<(PathBuf, PathBuf)>,
}

impl fmt::Debug for Access {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Access")
            .field("key", &self.key.is_some())
            .field("authorities", &self.authorities)
            .field("certificate", &self.certificate)
            .finish()
    }
}

impl Access {
    pub(crate) fn headers(&self) -> Result<HeaderMap, Error> {
        let Some(key) = &self.key else { return Ok(HeaderMap::new()) };
        let value = HeaderValue::try_from(format!("Bearer {key}"));
        let mut value = value.map_err(|error| Error::Unusable(error.into()))?;
        value.set_sensitive(true);
        Ok(HeaderMap::from_iter([(AUTHORIZATION, value)]))
    }

    pub(crate) fn files_for(&self, mut builder: ClientBuilder) -> Result<ClientBuilder, Error> {
        if let Some(file) = &self.authorities {
            let all = Certificate::from_pem_bundle(&read(file)?).ok().filter(|all| !all.is_empty());
            builder = builder.tls_certs_merge(all.ok_or_else(|| unusable(file, "no certificate in PEM is in it"))?);
        }
        if let Some((certificate, key)) = &self.certificate {
            let mut pem = read(certificate)?;
            pem.push(b'\n');
            pem.extend(read(key)?);
            let reason = format!("it and {} are no certificate and key in PEM", key.display());
            builder = builder.identity(Identity::from_pem(&pem).map_err(|_| unusable(certificate, &reason))?);
        }
        Ok(builder)
    }
}

fn read(file: &Path) -> Result<Vec<u8>, Error> {
    fs::read(file).map_err(|error| unusable(file, &error.to_string()))
}

fn unusable(file: &Path, reason: &str) -> Error {
    Error::Unusable(format!("{}: {reason}", file.display()).into())
}
