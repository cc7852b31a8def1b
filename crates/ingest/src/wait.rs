//! Answers that wait: for a job's end, or for a change of it (`Prefer: wait=N`, RFC 7240; `?wait=N`).
//!
//! Promise: the wait is bounded by the caller, by the setting and by shutdown, and ends where its connection is needed
//! for others; a caller that is owed the outcome is held longer than all others then. At its end the caller has the
//! answer that it would have got without a wait. Where there is no room for one more waiter, that is at once.

use std::time::Duration;

use axum::extract::Query;
use axum::extract::rejection::QueryRejection;
use axum::http::{HeaderMap, HeaderValue, header};
use axum::response::Response;
use flow::flags::Form;
use flow::id::JobId;
use serde::{Deserialize, Deserializer};
use tokio::time::{Instant, timeout_at};
use web::caller::Caller;
use web::context::RequestContext;
use web::prefer::{PREFERENCE_APPLIED, Preferences};
use web::problem::{Kind, Problem};
use web::server::Crowd;

use crate::job_lookup::{JobState, find};
use crate::recent::Waiter;
use crate::state::Api;

/// `?wait=N`, which is the same as the preference for callers who cannot set headers.
#[derive(Debug, Default, Deserialize)]
pub(crate) struct WaitQuery {
    #[serde(default, deserialize_with = "seconds")]
    pub(crate) wait: Option<u64>,
}

/// The wait that the URL asks for, or the problem 400.
pub(crate) fn wait_query(query: Result<Query<WaitQuery>, QueryRejection>) -> Result<WaitQuery, Problem> {
    query.map(|Query(query)| query).map_err(|error| Problem::new(Kind::BadRequest, error.body_text()))
}

pub(crate) fn seconds<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u64>, D::Error> {
    let text = String::deserialize(deserializer)?;
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(serde::de::Error::custom(format!("`wait` is a number of seconds, not `{text}`")));
    }
    // The longest wait is far below what a number can hold.
    Ok(Some(text.parse().unwrap_or(u64::MAX)))
}

/// What a request waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Until {
    Change,
    End,
}

/// The preferences of a request, and which of them its answer honours.
pub(crate) struct Asked {
    pub(crate) preferences: Preferences,
    /// The time for which the answer may wait.
    wait: Option<Duration>,
    /// True if it is not the preference that asks for the wait.
    is_silent: bool,
    /// True if the caller is owed the outcome: nothing less than it is an answer.
    is_owed: bool,
    deadline: Instant,
    applied: Vec<String>,
    /// Connections that wait for room.
    crowd: Option<Crowd>,
    /// True once the wait was given up to make room.
    crowded: bool,
}

impl Asked {
    /// The request arrives now.
    pub(crate) fn of(api: &Api, context: &RequestContext, headers: &HeaderMap, query: &WaitQuery) -> Self {
        let preferences = Preferences::of(headers);
        let preferences = Preferences { wait_s: query.wait.or(preferences.wait_s), ..preferences };
        let wait = preferences.wait(api.config.wait_max_s);
        let deadline = Instant::now() + wait.unwrap_or_default();
        let (is_silent, crowd) = (query.wait.is_some(), context.crowd.clone());
        Self { preferences, wait, is_silent, is_owed: false, deadline, applied: Vec::new(), crowd, crowded: false }
    }

    /// Waits as the form of the answer has it. Returns the time for which a caller is held that is owed the outcome: it
    /// waits as for any service, so it gives its connection up to nobody.
    pub(crate) fn take_form(&mut self, form: Form) -> Option<Duration> {
        let (wait_ms, is_owed) = match form {
            Form::AsAsked => return None,
            Form::Within(wait_ms) => (wait_ms, false),
            Form::Owed(wait_ms) => (wait_ms, true),
        };
        let wait = Duration::from_millis(wait_ms);
        (self.wait, self.deadline, self.is_silent) = (Some(wait), Instant::now() + wait, true);
        self.is_owed = is_owed;
        if is_owed {
            self.crowd = None;
        }
        is_owed.then_some(wait)
    }

    /// A place among those that wait for this job, if the request is one that waits and there is room.
    pub(crate) fn enter(&self, api: &Api, job: JobId) -> Option<Waiter> {
        self.wait?;
        let waiter = api.recent.wait(job, api.config.waiters_max);
        if waiter.is_none() {
            metrics::counter!("meanwhile_waits_refused_total").increment(1);
        }
        waiter
    }

    /// The answer honours the wait.
    pub(crate) fn honour_wait(&mut self) {
        if let (Some(wait), false) = (self.wait, self.is_silent) {
            self.honour(&format!("wait={}", wait.as_secs()));
        }
    }

    /// The answer honours this preference.
    pub(crate) fn honour(&mut self, preference: &str) {
        self.applied.push(preference.to_owned());
    }

    /// Names the preferences that were honoured, and says that the answer depends on them.
    pub(crate) fn tell(&self, answer: Result<Response, Problem>) -> Result<Response, Problem> {
        let applied = HeaderValue::try_from(self.applied.join(", ")).ok().filter(|_| !self.applied.is_empty());
        let applied = applied.map(|applied| (PREFERENCE_APPLIED, applied));
        let close = self.crowded.then_some((header::CONNECTION, HeaderValue::from_static("close")));
        let answer = applied.into_iter().chain(close).fold(answer, |answer, (name, value)| match answer {
            Ok(mut response) => {
                response.headers_mut().insert(name, value);
                Ok(response)
            }
            Err(problem) => Err(problem.with_header(name, value)),
        });
        web::prefer::vary(answer)
    }

    /// True if the request is one that waits.
    pub(crate) const fn waits(&self) -> bool {
        self.wait.is_some()
    }

    /// Returns true once this has come about, false when the wait is over.
    pub(crate) async fn in_time(&mut self, api: &Api, coming: impl Future<Output = ()>) -> bool {
        let crowd = self.crowd.as_ref();
        let leaving = if self.is_owed { &api.leaving.holds_end } else { &api.leaving.begun };
        let crowded = async {
            match crowd {
                Some(crowd) => crowd.wanted().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            () = leaving.cancelled() => false,
            came = timeout_at(self.deadline, coming) => came.is_ok(),
            () = crowded => {
                self.crowded = true;
                false
            }
        }
    }

    /// Waits for a job's end. Nothing is looked up before it has ended: the caller knows that it had not before the
    /// waiter entered. None when the wait is over, or when the job cannot be looked up.
    pub(crate) async fn end(
        &mut self,
        api: &Api,
        caller: &Caller,
        job: JobId,
        waiter: &mut Waiter,
    ) -> Option<JobState> {
        if !self.in_time(api, waiter.ended()).await {
            return None;
        }
        let job = Box::pin(find(api, caller, &job.to_string())).await.ok()?;
        job.view.status.is_final().then_some(job)
    }

    /// The job once it is as wanted, or as it is when the wait is over.
    ///
    /// # Errors
    /// As [`find`].
    pub(crate) async fn until(
        &mut self,
        api: &Api,
        caller: &Caller,
        text: &str,
        until: Until,
        is_wanted: impl FnMut(&JobState) -> bool,
    ) -> Result<JobState, Problem> {
        self.until_seen(api, text, until, || Box::pin(find(api, caller, text)), is_wanted).await
    }

    /// The same of what `look` tells of the job. It may be large: it is not kept while the request waits, nor is the
    /// room for reading it.
    pub(crate) async fn until_seen<T, F: Future<Output = Result<T, Problem>>>(
        &mut self,
        api: &Api,
        text: &str,
        until: Until,
        look: impl Fn() -> F,
        mut is_wanted: impl FnMut(&T) -> bool,
    ) -> Result<T, Problem> {
        let waiter = text.parse().ok().and_then(|job| self.enter(api, job));
        let job = look().await?;
        let Some(mut waiter) = waiter else { return Ok(job) };
        self.honour_wait();
        if is_wanted(&job) {
            return Ok(job);
        }
        drop(job);
        loop {
            let in_time = match until {
                Until::Change => self.in_time(api, waiter.changed()).await,
                Until::End => self.in_time(api, waiter.ended()).await,
            };
            let job = look().await?;
            if !in_time || until == Until::End || is_wanted(&job) {
                return Ok(job);
            }
        }
    }
}
