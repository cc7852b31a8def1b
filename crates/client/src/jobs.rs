//! Lists of jobs.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{Client, Error, JobState};

/// The choice of jobs; what is none chooses all.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[expect(missing_docs, reason = "the parameters of the API, under their names there")]
pub struct JobChoice {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub flow: Option<String>,
    /// One state, or several with commas between them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub correlation_id: Option<String>,
    /// RFC 3339.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub since: Option<String>,
    /// RFC 3339.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub until: Option<String>,
    /// Those that are stuck, and no others.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub stuck: bool,
}

/// A page of `GET /v1/jobs`.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
pub struct Jobs {
    /// Newest first.
    pub jobs: Vec<ListedJob>,
    /// The place at which the next page begins; none at the end. A page may be short, or empty, and not the last one.
    pub next: Option<String>,
    /// Of what was accepted after this time, all that was asked for has been listed. RFC 3339; none at the end.
    pub looked_back_to: Option<String>,
}

/// A job in a list. Times are RFC 3339 in UTC.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[expect(missing_docs, reason = "the fields of the API's answer, under their names there")]
pub struct ListedJob {
    pub id: String,
    pub flow: String,
    pub version: String,
    pub status: JobState,
    /// The step that it is at; none once it has ended.
    pub step: Option<String>,
    pub key: String,
    pub correlation_id: String,
    pub created_at: String,
    pub updated_at: String,
    /// Since when it is known to make no progress.
    pub stuck_since: Option<String>,
    pub trace_id: Option<String>,
    /// The finished job that this one repeats.
    pub retry_of: Option<String>,
}

impl Client {
    /// A page of jobs, after a place ([`Jobs::next`]).
    ///
    /// # Errors
    /// [`Error::Problem`] when the choice is malformed.
    pub async fn jobs(&self, choice: &JobChoice, after: Option<&str>, limit: u32) -> Result<Jobs, Error> {
        self.get(&format!("/v1/jobs?{}", query(choice, after, limit))).await
    }

    /// The same as the API sent it.
    ///
    /// # Errors
    /// As [`Client::jobs`].
    pub async fn jobs_document(&self, choice: &JobChoice, after: Option<&str>, limit: u32) -> Result<Value, Error> {
        self.get(&format!("/v1/jobs?{}", query(choice, after, limit))).await
    }
}

fn query(choice: &JobChoice, after: Option<&str>, limit: u32) -> String {
    let named = [
        ("flow", choice.flow.as_deref()),
        ("status", choice.status.as_deref()),
        ("key", choice.key.as_deref()),
        ("correlation_id", choice.correlation_id.as_deref()),
        ("since", choice.since.as_deref()),
        ("until", choice.until.as_deref()),
        ("stuck", choice.stuck.then_some("true")),
        ("cursor", after),
    ];
    crate::page_query(limit, named)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_choice_becomes_a_query_whatever_it_says() {
        let choice = JobChoice {
            key: Some("a&b=c".to_owned()),
            status: Some("failed,running".to_owned()),
            ..JobChoice::default()
        };
        assert_eq!(query(&choice, Some("x"), 7), "limit=7&status=failed%2Crunning&key=a%26b%3Dc&cursor=x");
        assert_eq!(query(&JobChoice::default(), None, 1), "limit=1");
    }

    #[test]
    fn a_job_without_a_step_reads_too() {
        let text = r#"{"jobs":[{"id":"1","flow":"f","version":"v","status":"succeeded","key":"k","correlation_id":"c",
            "created_at":"a","updated_at":"b","links":{}}],"next":null,"looked_back_to":null}"#;
        let page: Jobs = serde_json::from_str(text).unwrap();
        assert_eq!((page.jobs[0].status, &page.jobs[0].step), (JobState::Succeeded, &None));
    }
}
