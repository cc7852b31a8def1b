//! API keys of the caller's tenant.

use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{Client, Error};

const KEYS: &str = "/v1/keys";

/// A key to be made.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct NewApiKey {
    /// Its purpose, for people.
    pub name: String,
    /// Such as `jobs:submit`.
    pub scopes: Vec<String>,
    /// Such as `90d`; none: it has no end.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expires_in: Option<String>,
}

/// An API key. `Debug` does not show what opens anything.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[expect(missing_docs, reason = "the fields of the API's answer, under their names there")]
pub struct ApiKey {
    pub id: String,
    pub name: String,
    pub scopes: Vec<String>,
    /// RFC 3339.
    pub expires_at: Option<String>,
    /// `valid`, `expired` or `revoked`; not in the answer to its creation.
    pub status: Option<String>,
    pub created_by: Option<String>,
    pub last_used_at: Option<String>,
    /// In the answer to its creation only.
    pub key: Option<String>,
}

impl fmt::Debug for ApiKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ApiKey").field("id", &self.id).field("scopes", &self.scopes).finish_non_exhaustive()
    }
}

#[derive(Deserialize)]
struct Keys {
    keys: Vec<ApiKey>,
}

impl Client {
    /// The tenant's keys, the newest first.
    ///
    /// # Errors
    /// [`Error::Problem`] without the scope `operate`, or when the database does not answer.
    pub async fn api_keys(&self) -> Result<Vec<ApiKey>, Error> {
        Ok(self.get::<Keys>(KEYS).await?.keys)
    }

    /// The same as the API sent it.
    ///
    /// # Errors
    /// As [`Client::api_keys`].
    pub async fn api_keys_document(&self) -> Result<Value, Error> {
        self.get(KEYS).await
    }

    /// Makes a key. The answer has the key itself, this once.
    ///
    /// # Errors
    /// [`Error::Problem`] for scopes that there are not, or that the caller does not have.
    pub async fn create_api_key(&self, new: &NewApiKey) -> Result<ApiKey, Error> {
        self.post(KEYS, new).await
    }

    /// Revokes a key.
    ///
    /// # Errors
    /// [`Error::Problem`] where there is no such key.
    pub async fn revoke_api_key(&self, id: &str) -> Result<(), Error> {
        let id: String = url::form_urlencoded::byte_serialize(id.as_bytes()).collect();
        self.delete(&format!("{KEYS}/{}", id.replace('+', "%20"))).await
    }
}
