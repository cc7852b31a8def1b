//! The audit log: who has changed what.

use serde::Deserialize;
use serde_json::Value;

use crate::{Client, Error, page_query};

/// The choice of entries; what is none chooses all.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[expect(missing_docs, reason = "the parameters of the API, under their names there")]
pub struct AuditChoice {
    pub subject: Option<String>,
    pub action: Option<String>,
    pub object: Option<String>,
    /// RFC 3339.
    pub since: Option<String>,
    pub until: Option<String>,
}

/// An entry.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[expect(missing_docs, reason = "the fields of the API's answer, under their names there")]
pub struct AuditEntry {
    pub at: String,
    pub subject: Option<String>,
    pub action: String,
    pub object: String,
    pub client: Option<String>,
    /// Of the answer; none where it is not known how it ended.
    pub status: Option<u16>,
}

#[derive(Deserialize)]
struct Entries {
    entries: Vec<AuditEntry>,
}

impl Client {
    /// Changes by callers of the tenant, the latest first.
    ///
    /// # Errors
    /// [`Error::Problem`] for a choice that is none, or without the scope `operate`.
    pub async fn audit(&self, choice: &AuditChoice, limit: u32) -> Result<Vec<AuditEntry>, Error> {
        Ok(self.get::<Entries>(&path(choice, limit)).await?.entries)
    }

    /// The same as the API sent it.
    ///
    /// # Errors
    /// As [`Client::audit`].
    pub async fn audit_document(&self, choice: &AuditChoice, limit: u32) -> Result<Value, Error> {
        self.get(&path(choice, limit)).await
    }
}

fn path(choice: &AuditChoice, limit: u32) -> String {
    let AuditChoice { subject, action, object, since, until } = choice;
    let named = [("subject", subject), ("action", action), ("object", object), ("since", since), ("until", until)];
    format!("/v1/audit?{}", page_query(limit, named.map(|(name, value)| (name, value.as_deref()))))
}
