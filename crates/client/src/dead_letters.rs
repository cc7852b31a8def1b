//! Dead letters and parked jobs, as operators see them.

use serde::{Deserialize, Serialize};
use serde_json::Value;
use url::form_urlencoded::Serializer;

use crate::{Client, Error};

/// The choice of dead letters and parked jobs; what is none chooses all.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[expect(missing_docs, reason = "the parameters of the API, under their names there")]
pub struct Choice {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub class: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub topic: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub flow: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub step: Option<String>,
    /// RFC 3339.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub since: Option<String>,
    /// RFC 3339.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub until: Option<String>,
}

/// A page of `GET /v1/dead-letters`.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
pub struct DeadLetters {
    /// Newest first.
    pub dead_letters: Vec<DeadLetter>,
    /// The place at which the next page begins; none at the end.
    pub next: Option<String>,
}

/// A record that nobody could read or handle, or a parked job.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[expect(missing_docs, reason = "the fields of the API's answer, under their names there")]
pub struct DeadLetter {
    pub id: String,
    /// `record` or `job`.
    pub kind: String,
    pub class: String,
    #[serde(default)]
    pub reason: String,
    /// RFC 3339.
    pub at: String,
    /// `open`, `redriven` or `dropped`.
    pub status: String,
    #[serde(default)]
    pub redrives: u32,
    /// The place where a record failed.
    pub failed_in: Option<FailedIn>,
    /// The flow that it is about, where that can be told.
    pub flow: Option<String>,
    /// The step that it is about, where that can be told.
    pub step: Option<String>,
}

/// The place where a record failed.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[expect(missing_docs, reason = "the fields of the API's answer, under their names there")]
pub struct FailedIn {
    pub topic: String,
    pub partition: i32,
    pub offset: i64,
}

/// The body of `POST /v1/dead-letters/{id}/redrive`.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Redrive {
    /// Another value in place of the record's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub value: Option<Value>,
    /// The same as bytes in base64, for topics that are not JSON.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub value_base64: Option<String>,
    /// Another key in place of the record's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// Send it though it has come back five times.
    pub force: bool,
}

/// The body of `POST /v1/dead-letters:redrive`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct RedriveMany {
    /// Which ones.
    #[serde(flatten)]
    pub choice: Choice,
    /// Go on after this place.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub after: Option<String>,
    /// At most so many, 1 to 1,000.
    pub max: u32,
    /// Send none.
    pub dry_run: bool,
    /// Those too that have come back five times.
    pub force: bool,
}

/// The outcome of [`Client::redrive_many`].
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[expect(missing_docs, reason = "the fields of the API's answer, under their names there")]
pub struct Redriven {
    pub chosen: u64,
    pub redriven: u64,
    pub left: Vec<Left>,
    pub next: Option<String>,
}

/// One that could not be sent.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[expect(missing_docs, reason = "the fields of the API's answer, under their names there")]
pub struct Left {
    pub id: String,
    pub reason: String,
}

impl Client {
    /// A page of what waits for an operator, after a place ([`DeadLetters::next`]).
    ///
    /// # Errors
    /// [`Error::Problem`] when the choice is malformed.
    pub async fn dead_letters(&self, choice: &Choice, after: Option<&str>, limit: u32) -> Result<DeadLetters, Error> {
        self.get(&format!("/v1/dead-letters?{}", query(choice, after, limit))).await
    }

    /// The same as the API sent it.
    ///
    /// # Errors
    /// As [`Client::dead_letters`].
    pub async fn dead_letters_document(
        &self,
        choice: &Choice,
        after: Option<&str>,
        limit: u32,
    ) -> Result<Value, Error> {
        self.get(&format!("/v1/dead-letters?{}", query(choice, after, limit))).await
    }

    /// A dead letter with its record, as the API sent it.
    ///
    /// # Errors
    /// [`Error::Problem`] when there is none.
    pub async fn dead_letter(&self, id: &str) -> Result<Value, Error> {
        self.get(&format!("/v1/dead-letters/{id}")).await
    }

    /// Sends a dead letter back to where it failed, once; returns its topic. May be repeated.
    ///
    /// # Errors
    /// [`Error::Problem`] when it cannot be sent.
    pub async fn redrive(&self, id: &str, order: &Redrive) -> Result<String, Error> {
        let answer: Value = self.post(&format!("/v1/dead-letters/{id}/redrive"), order).await?;
        Ok(answer["topic"].as_str().unwrap_or_default().to_owned())
    }

    /// Sends many dead letters and parked jobs on. May be repeated.
    ///
    /// # Errors
    /// [`Error::Problem`] when the choice is malformed, or nothing more can be sent at present.
    pub async fn redrive_many(&self, order: &RedriveMany) -> Result<Redriven, Error> {
        self.post("/v1/dead-letters:redrive", order).await
    }

    /// Drops a dead letter. May be repeated.
    ///
    /// # Errors
    /// [`Error::Problem`] when there is none, or it was sent back.
    pub async fn drop_dead_letter(&self, id: &str, reason: &str) -> Result<(), Error> {
        let query = Serializer::new(String::new()).append_pair("reason", reason).finish();
        self.delete(&format!("/v1/dead-letters/{id}?{query}")).await
    }
}

fn query(choice: &Choice, after: Option<&str>, limit: u32) -> String {
    let named = [
        ("class", choice.class.as_deref()),
        ("topic", choice.topic.as_deref()),
        ("flow", choice.flow.as_deref()),
        ("step", choice.step.as_deref()),
        ("since", choice.since.as_deref()),
        ("until", choice.until.as_deref()),
        ("after", after),
    ];
    crate::page_query(limit, named)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_choice_becomes_a_query_whatever_it_says() {
        let choice = Choice { class: Some("a&b=c".to_owned()), since: Some("é".to_owned()), ..Choice::default() };
        assert_eq!(query(&choice, Some("5.0-1"), 7), "limit=7&class=a%26b%3Dc&since=%C3%A9&after=5.0-1");
        assert_eq!(query(&Choice::default(), None, 1), "limit=1");
    }

    #[test]
    fn an_order_says_only_what_was_chosen() {
        let choice = Choice { class: Some("parked".to_owned()), ..Choice::default() };
        let order = RedriveMany { choice, max: 5, ..RedriveMany::default() };
        let text = serde_json::to_string(&order).unwrap();
        assert_eq!(text, r#"{"class":"parked","max":5,"dry_run":false,"force":false}"#);
    }
}
