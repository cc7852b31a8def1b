//! The schema registry's client (Confluent's API).
//!
//! Failures are not remembered: an id that could not be resolved a moment ago is looked up again. `Unknown` is the
//! registry's own answer; any other failure means "not now".

use std::future::Future;
use std::path::Path;
use std::time::Duration;

use reqwest::Certificate;
use schema_registry_converter::async_impl::schema_registry::{SrSettings, get_schema_by_id, post_schema};
use schema_registry_converter::error::SRCError;
use schema_registry_converter::schema_registry_common::{RawError, SchemaType, SuppliedSchema};

use crate::error::{Cause, chain};
use crate::registry_access::{BasicAuth, without_login};
use crate::settings::Settings;

/// The time limit of one request.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);
/// The first and the longest pause between attempts.
const RETRY_FIRST: Duration = Duration::from_millis(100);
const RETRY_MAX: Duration = Duration::from_secs(2);

/// A failed request to the registry.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RegistryError {
    /// The registry says that there is no such schema.
    #[error("the registry has no schema {0}")]
    Unknown(u32),
    /// The registry refuses: an incompatible schema, say. Trying again does not help.
    #[error("the registry refuses")]
    Refused(#[source] Cause),
    /// It cannot be reached, or it has trouble of its own. Try again.
    #[error("the schema registry is not available")]
    Unavailable(#[source] Cause),
}

/// A schema registry. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Registry {
    url: String,
    auth: Option<BasicAuth>,
    settings: SrSettings,
    client: reqwest::Client,
}

impl Registry {
    /// The registry of these settings.
    ///
    /// # Errors
    /// As [`Registry::new`]; or the file of its authorities cannot be used.
    pub fn of(settings: &Settings) -> Result<Self, RegistryError> {
        let authorities = settings.registry.authorities.as_deref().map(certificates).transpose()?;
        Self::trusting(&settings.registry_url, settings.registry.auth.clone(), &authorities.unwrap_or_default())
    }

    /// Fails only where no HTTP client can be made (a malformed proxy setting, say).
    pub fn new(url: &str, auth: Option<BasicAuth>) -> Result<Self, RegistryError> {
        Self::trusting(url, auth, &[])
    }

    fn trusting(url: &str, auth: Option<BasicAuth>, roots: &[Certificate]) -> Result<Self, RegistryError> {
        // One provider per process; one that was installed before is as good.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let (url, in_url) = without_login(url);
        let auth = auth.or(in_url);
        let mut builder = SrSettings::new_builder(url.clone());
        builder.set_timeout(REQUEST_TIMEOUT);
        if let Some(auth) = &auth {
            builder.set_basic_authorization(&auth.user, Some(&auth.password));
        }
        let refused = |error: String| RegistryError::Refused(error.into());
        let client_builder = || {
            let builder = proxies::client_builder().map_err(|error| refused(error.to_string()))?;
            Ok::<_, RegistryError>(builder.tls_certs_merge(roots.iter().cloned()))
        };
        let settings = builder.build_with(client_builder()?).map_err(|error| refused(error.to_string()))?;
        let client = client_builder()?.timeout(REQUEST_TIMEOUT).build().map_err(|error| refused(error.to_string()))?;
        Ok(Self { url, auth, settings, client })
    }

    /// Registers a schema under a subject, or finds it there; the id either way.
    pub async fn register(&self, subject: &str, schema: &str) -> Result<u32, RegistryError> {
        let schema = SuppliedSchema::new(None, SchemaType::Avro, schema.to_owned());
        match post_schema(&self.settings, subject.to_owned(), schema).await {
            Ok(registered) => Ok(registered.id),
            Err(error) => Err(self.explained(Answer::of(&error)).await.unwrap_or_else(Answer::refused_or_unavailable)),
        }
    }

    /// The crate keeps no causes of a connection that failed, such as a certificate: our own request tells them.
    async fn explained(&self, answer: Answer) -> Result<RegistryError, Answer> {
        match answer.status {
            Some(_) => Err(answer),
            None => self.reachable().await.err().ok_or(answer),
        }
    }

    /// The schema of an id, as JSON text. Not cached here: a schema never changes, so the caller keeps what it got.
    pub async fn resolve(&self, id: u32) -> Result<String, RegistryError> {
        match get_schema_by_id(id, &self.settings).await {
            Ok(registered) => Ok(registered.schema),
            Err(error) => {
                let answer = Answer::of(&error);
                match answer.status {
                    // Only the registry's own "not found": a wrong URL answers 404 too, and must not cost a record.
                    Some(404) if answer.code / 100 == 404 => Err(RegistryError::Unknown(id)),
                    _ => Err(RegistryError::Unavailable(answer.text.into())),
                }
            }
        }
    }

    /// Sets a subject's compatibility, for example `BACKWARD_TRANSITIVE`.
    pub async fn set_compatibility(&self, subject: &str, level: &str) -> Result<(), RegistryError> {
        let mut request = self
            .client
            .put(format!("{}/config/{subject}", self.url))
            .header("content-type", "application/vnd.schemaregistry.v1+json")
            .body(serde_json::json!({ "compatibility": level }).to_string());
        if let Some(auth) = &self.auth {
            request = request.basic_auth(&auth.user, Some(&auth.password));
        }
        let response = request.send().await.map_err(unavailable)?;
        let status = response.status();
        if status.is_success() {
            return Ok(());
        }
        let text = format!("{status} {}", response.text().await.unwrap_or_default());
        Err(Answer { status: Some(status.as_u16()), code: 0, text }.refused_or_unavailable())
    }

    /// Succeeds if the registry answers.
    pub async fn reachable(&self) -> Result<(), RegistryError> {
        let mut request = self.client.get(format!("{}/subjects", self.url));
        if let Some(auth) = &self.auth {
            request = request.basic_auth(&auth.user, Some(&auth.password));
        }
        let response = request.send().await.map_err(unavailable)?;
        match response.status() {
            status if status.is_success() => Ok(()),
            status => Err(RegistryError::Unavailable(status.to_string().into())),
        }
    }
}

/// The certificates of a file.
fn certificates(path: &Path) -> Result<Vec<Certificate>, RegistryError> {
    let refused = |reason: String| {
        let setting = "`schema_registry.authorities` (MEANWHILE__SCHEMA_REGISTRY__AUTHORITIES)";
        RegistryError::Refused(format!("{setting}: {}: {reason}", path.display()).into())
    };
    let pem = std::fs::read(path).map_err(|error| refused(error.to_string()))?;
    match Certificate::from_pem_bundle(&pem) {
        Ok(all) if !all.is_empty() => Ok(all),
        _ => Err(refused("no certificate in PEM is in it".to_owned())),
    }
}

/// With its causes: reqwest's own text names none of them, and its errors cannot be cloned.
fn unavailable(error: reqwest::Error) -> RegistryError {
    RegistryError::Unavailable(chain(&error).into())
}

/// Calls again while the registry is unavailable, with growing pauses; says so once.
pub async fn until_available<T, F, Fut>(mut call: F) -> Result<T, RegistryError>
where
    F: FnMut() -> Fut,
    Fut: Future<Output = Result<T, RegistryError>>,
{
    let mut pause = RETRY_FIRST;
    let mut told = false;
    loop {
        match call().await {
            Err(RegistryError::Unavailable(error)) => {
                if !std::mem::replace(&mut told, true) {
                    tracing::warn!(%error, "the schema registry is not available; retrying");
                }
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(RETRY_MAX);
            }
            other => {
                if told {
                    tracing::info!("the schema registry is available again");
                }
                return other;
            }
        }
    }
}

/// The registry's answer.
struct Answer {
    status: Option<u16>,
    code: u32,
    text: String,
}

impl Answer {
    fn of(error: &SRCError) -> Self {
        let raw = std::error::Error::source(error).and_then(|source| source.downcast_ref::<RawError>());
        // The crate keeps the HTTP status in its message only.
        let status = error.error.rsplit("status ").next().and_then(|rest| rest.get(..3)).and_then(|s| s.parse().ok());
        let cause = error.cause.clone().unwrap_or_default();
        Self { status, code: raw.map_or(0, |raw| raw.error_code), text: format!("{}: {cause}", error.error) }
    }

    fn refused_or_unavailable(self) -> RegistryError {
        match self.status {
            // 408 and 429 pass; 401 and 403 are an operator's to mend, after which the same call succeeds.
            Some(408 | 429 | 401 | 403) => RegistryError::Unavailable(self.text.into()),
            Some(400..=499) => RegistryError::Refused(self.text.into()),
            _ => RegistryError::Unavailable(self.text.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_and_its_causes_say_each_thing_once() {
        let (refused, away) = (RegistryError::Refused("409 no".into()), RegistryError::Unavailable("503 no".into()));
        assert_eq!(chain(&refused), "the registry refuses: 409 no");
        assert_eq!(chain(&away), "the schema registry is not available: 503 no");
        assert_eq!(chain(&RegistryError::Unknown(7)), "the registry has no schema 7");
    }
}
