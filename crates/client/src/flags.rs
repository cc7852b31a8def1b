//! Flags of flows' own addresses, as operators see and change them.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{Client, Error};

/// A version of a flow's flags.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[expect(missing_docs, reason = "the fields of the API's answer, under their names there")]
pub struct FlagsVersion {
    /// 0: there are none.
    pub version: i64,
    /// The document.
    pub flags: Value,
    pub changed_by: Option<String>,
    /// RFC 3339.
    pub changed_at: Option<String>,
    pub reason: Option<String>,
    /// The version that was gone back to.
    pub rollback_to: Option<i64>,
}

/// The present flags of a flow.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[expect(missing_docs, reason = "the fields of the API's answer, under their names there")]
pub struct FlowFlags {
    pub flow: String,
    pub route: String,
    #[serde(flatten)]
    pub version: FlagsVersion,
    pub effective: EffectiveFlags,
}

/// What holds for a flow's own address.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[expect(missing_docs, reason = "the fields of the API's answer, under their names there")]
pub struct EffectiveFlags {
    pub durable_percent: f64,
    pub by: String,
    pub answer: String,
    pub hold_ms: u64,
}

#[derive(Deserialize)]
struct Listed {
    flags: Vec<FlowFlags>,
}

#[derive(Deserialize)]
struct History {
    versions: Vec<FlagsVersion>,
}

#[derive(Serialize)]
struct Change<'a> {
    flags: &'a Value,
    reason: &'a str,
}

#[derive(Serialize)]
struct Rollback<'a> {
    to: i64,
    reason: &'a str,
}

impl Client {
    /// The flags of every flow with an address of its own.
    ///
    /// # Errors
    /// [`Error::Problem`] when the database does not answer.
    pub async fn flags(&self) -> Result<Vec<FlowFlags>, Error> {
        Ok(self.get::<Listed>("/v1/flags").await?.flags)
    }

    /// The same as the API sent it.
    ///
    /// # Errors
    /// As [`Client::flags`].
    pub async fn flags_document(&self) -> Result<Value, Error> {
        self.get("/v1/flags").await
    }

    /// The present flags of a flow.
    ///
    /// # Errors
    /// [`Error::Problem`] for a flow that has no address of its own, or when the database does not answer.
    pub async fn flags_of(&self, flow: &str) -> Result<FlowFlags, Error> {
        self.get(&path(flow, "")).await
    }

    /// Changes the flags of a flow, for all instances within a second. `version` is the one that is changed. May be
    /// repeated.
    ///
    /// # Errors
    /// [`Error::Problem`] when the flags are none, or have been changed since, or cannot be stored now.
    pub async fn set_flags(&self, flow: &str, version: i64, flags: &Value, reason: &str) -> Result<FlowFlags, Error> {
        let request = self.http.put(format!("{}{}", self.url, path(flow, "")));
        let request = request.header("if-match", format!("\"{version}\"")).json(&Change { flags, reason });
        self.answered(request).await?.json().await.map_err(Error::Unreadable)
    }

    /// The latest hundred versions of a flow's flags, the last one first.
    ///
    /// # Errors
    /// As [`Client::flags_of`].
    pub async fn flags_history(&self, flow: &str) -> Result<Vec<FlagsVersion>, Error> {
        Ok(self.get::<History>(&path(flow, "/history")).await?.versions)
    }

    /// The same as the API sent it.
    ///
    /// # Errors
    /// As [`Client::flags_of`].
    pub async fn flags_history_document(&self, flow: &str) -> Result<Value, Error> {
        self.get(&path(flow, "/history")).await
    }

    /// Goes back to an earlier version, whatever the present one is; 0: no flags.
    ///
    /// # Errors
    /// [`Error::Problem`] when there is no such version, or when it cannot be stored now.
    pub async fn roll_back_flags(&self, flow: &str, to: i64, reason: &str) -> Result<FlowFlags, Error> {
        self.post(&path(flow, "/rollback"), &Rollback { to, reason }).await
    }
}

fn path(flow: &str, rest: &str) -> String {
    let name: String = url::form_urlencoded::byte_serialize(flow.as_bytes()).collect();
    // In a path, a plus is no space.
    format!("/v1/flags/{}{rest}", name.replace('+', "%20"))
}
