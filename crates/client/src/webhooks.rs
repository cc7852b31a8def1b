//! Webhooks: endpoints, and what became of deliveries.

use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use url::form_urlencoded::{Serializer, byte_serialize};

use crate::{Client, Error};

const ENDPOINTS: &str = "/v1/webhooks/endpoints";
const DELIVERIES: &str = "/v1/webhooks/deliveries";

/// An endpoint to be registered.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct NewWebhookEndpoint {
    /// The URL of the receiver.
    pub url: String,
    /// Types such as `job.failed`, groups such as `job.*`, or `*`; none: the ends of jobs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub events: Option<Vec<String>>,
    /// For people.
    pub description: String,
    /// `hmac` or `ed25519`; none: `hmac`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    /// Deliveries a second, 1 to 1,000 at most; none: no such limit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rate: Option<u32>,
}

/// A registered endpoint. `Debug` shows no secret.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[expect(missing_docs, reason = "the fields of the API's answer, under their names there")]
pub struct WebhookEndpoint {
    pub id: String,
    pub url: String,
    pub description: String,
    pub events: Vec<String>,
    /// Deliveries a second, at most.
    pub rate: Option<u32>,
    /// `enabled`, `failing` or `disabled`.
    pub status: String,
    /// `gone` or `failing`.
    pub disabled_reason: Option<String>,
    /// Of ed25519.
    pub public_key: Option<String>,
    /// In the answer to its creation or rotation only.
    pub secret: Option<String>,
}

impl fmt::Debug for WebhookEndpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WebhookEndpoint").field("id", &self.id).field("status", &self.status).finish_non_exhaustive()
    }
}

/// A delivery in the log.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[expect(missing_docs, reason = "the fields of the API's answer, under their names there")]
pub struct WebhookDelivery {
    pub id: String,
    /// Of a callback: the same for all that lead to one host.
    pub endpoint: String,
    /// True of the webhook that the job's own request asked for.
    #[serde(default)]
    pub callback: bool,
    pub job: Option<String>,
    #[serde(rename = "type")]
    pub kind: String,
    /// `pending`, `delivered` or `failed`.
    pub status: String,
    pub attempts: u32,
    /// RFC 3339.
    pub created_at: String,
    /// RFC 3339: the next attempt.
    pub due_at: Option<String>,
}

/// The choice of deliveries; what is none chooses all.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[expect(missing_docs, reason = "the parameters of the API, under their names there")]
pub struct DeliveryChoice {
    pub endpoint: Option<String>,
    pub job: Option<String>,
    pub status: Option<String>,
    pub limit: Option<u32>,
}

#[derive(Deserialize)]
struct Endpoints {
    endpoints: Vec<WebhookEndpoint>,
}

#[derive(Deserialize)]
struct Deliveries {
    deliveries: Vec<WebhookDelivery>,
}

#[derive(Deserialize)]
struct Asked {
    delivery: String,
}

impl Client {
    /// The caller's endpoints, the oldest first.
    ///
    /// # Errors
    /// [`Error::Problem`] when the database does not answer.
    pub async fn webhook_endpoints(&self) -> Result<Vec<WebhookEndpoint>, Error> {
        Ok(self.get::<Endpoints>(ENDPOINTS).await?.endpoints)
    }

    /// The same as the API sent it.
    ///
    /// # Errors
    /// As [`Client::webhook_endpoints`].
    pub async fn webhook_endpoints_document(&self) -> Result<Value, Error> {
        self.get(ENDPOINTS).await
    }

    /// Registers an endpoint. The answer has its secret, this once.
    ///
    /// # Errors
    /// [`Error::Problem`] for a URL that may not be called, or types that there are not.
    pub async fn create_webhook_endpoint(&self, new: &NewWebhookEndpoint) -> Result<WebhookEndpoint, Error> {
        self.post(ENDPOINTS, new).await
    }

    /// Gives an endpoint another secret, which the answer has, this once. The present one signs too for a while.
    ///
    /// # Errors
    /// [`Error::Problem`] where there is no such endpoint, or the overlap is no duration.
    pub async fn rotate_webhook_secret(&self, id: &str, overlap: &str) -> Result<WebhookEndpoint, Error> {
        self.post(&path(ENDPOINTS, id, "/rotate"), &json!({ "overlap": overlap })).await
    }

    /// Deletes an endpoint.
    ///
    /// # Errors
    /// [`Error::Problem`] where there is no such endpoint.
    pub async fn delete_webhook_endpoint(&self, id: &str) -> Result<(), Error> {
        self.delete(&path(ENDPOINTS, id, "")).await
    }

    /// Asks for a delivery that tells of nothing. Its id.
    ///
    /// # Errors
    /// [`Error::Problem`] where there is no such endpoint.
    pub async fn ping_webhook_endpoint(&self, id: &str) -> Result<String, Error> {
        Ok(self.post::<Asked>(&path(ENDPOINTS, id, "/ping"), &json!({})).await?.delivery)
    }

    /// Lets deliveries to an endpoint go on.
    ///
    /// # Errors
    /// [`Error::Problem`] where there is no such endpoint.
    pub async fn enable_webhook_endpoint(&self, id: &str) -> Result<WebhookEndpoint, Error> {
        self.post(&path(ENDPOINTS, id, "/enable"), &json!({})).await
    }

    /// Asks for all that was given up since a time (RFC 3339) to be sent once more.
    ///
    /// # Errors
    /// [`Error::Problem`] where there is no such endpoint, or the time is none.
    pub async fn recover_webhook_endpoint(&self, id: &str, since: &str) -> Result<(), Error> {
        self.post::<Value>(&path(ENDPOINTS, id, "/recover"), &json!({ "since": since })).await.map(drop)
    }

    /// Deliveries, newest first.
    ///
    /// # Errors
    /// [`Error::Problem`] for a choice that is none.
    pub async fn webhook_deliveries(&self, choice: &DeliveryChoice) -> Result<Vec<WebhookDelivery>, Error> {
        Ok(self.get::<Deliveries>(&query(choice)).await?.deliveries)
    }

    /// The same as the API sent it.
    ///
    /// # Errors
    /// As [`Client::webhook_deliveries`].
    pub async fn webhook_deliveries_document(&self, choice: &DeliveryChoice) -> Result<Value, Error> {
        self.get(&query(choice)).await
    }

    /// Asks for one delivery to be sent once more.
    ///
    /// # Errors
    /// [`Error::Problem`] where there is no such delivery.
    pub async fn resend_webhook_delivery(&self, id: &str) -> Result<(), Error> {
        self.post::<Value>(&path(DELIVERIES, id, "/resend"), &json!({})).await.map(drop)
    }
}

fn path(at: &str, id: &str, rest: &str) -> String {
    let id: String = byte_serialize(id.as_bytes()).collect();
    // In a path, a plus is no space.
    format!("{at}/{}{rest}", id.replace('+', "%20"))
}

fn query(choice: &DeliveryChoice) -> String {
    let DeliveryChoice { endpoint, job, status, limit } = choice;
    let mut query = Serializer::new(String::new());
    let limit = limit.map(|limit| limit.to_string());
    for (name, value) in [("endpoint", endpoint), ("job", job), ("status", status), ("limit", &limit)] {
        if let Some(value) = value {
            query.append_pair(name, value);
        }
    }
    format!("{DELIVERIES}?{}", query.finish())
}
