//! Readiness by name: the dependencies that are missing, since when, and the reason. And the endpoints that report it.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::sync::Arc;

use anyhow::Context;
use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use events::time::rfc3339;
use parking_lot::Mutex;
use serde::Serialize;
use serde_json::json;
use tokio::net::TcpListener;
use tokio::sync::watch;

use crate::identity::Clock;
use crate::telemetry::Metrics;

/// While a dependency stays missing, another message about it is logged at most this often.
const REPEAT_AFTER_MS: i64 = 30_000;

/// Something that a role cannot work without.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Dependency {
    /// The role that needs it: `relay`.
    pub role: String,
    /// `kafka`, `postgres`, `registry`, or a state such as `slot`.
    pub name: String,
    /// True if it answers.
    pub ok: bool,
    /// The reason if it does not answer; else empty or its state, such as `standby`.
    pub message: String,
    /// The time since which it is so, RFC 3339.
    pub since: String,
}

#[derive(Debug, Clone)]
struct Report {
    ok: bool,
    message: String,
    since_ms: i64,
    logged_ms: i64,
}

#[derive(Debug)]
struct Board {
    clock: Clock,
    reports: Mutex<BTreeMap<(String, String), Report>>,
    all_ok: watch::Sender<bool>,
}

/// The dependencies of a process by role and name. Clones share one board; each handle reports for one role.
#[derive(Debug, Clone)]
pub struct Readiness {
    role: Arc<str>,
    board: Arc<Board>,
}

impl Readiness {
    /// An empty board (ready as long as nothing is expected), and the handle of one role.
    pub fn new(clock: Clock, role: &str) -> Self {
        let board = Board { clock, reports: Mutex::default(), all_ok: watch::Sender::new(true) };
        Self { role: role.into(), board: Arc::new(board) }
    }

    /// The handle of another role of the same process, on the same board.
    #[must_use]
    pub fn for_role(&self, role: &str) -> Self {
        Self { role: role.into(), board: Arc::clone(&self.board) }
    }

    /// Makes the role not ready until each of these was reported once. Logs nothing.
    pub fn expect(&self, names: &[&str]) {
        for name in names {
            self.note(name, Some("not reached yet".to_owned()), false);
        }
    }

    /// Notes that the dependency answers.
    pub fn ready(&self, name: &str) {
        self.note(name, None, true);
    }

    /// Notes that the role is ready in a state, such as a standby that waits for its turn. Logs only the change.
    pub fn ready_as(&self, name: &str, state: impl Display) {
        self.note_as(name, true, state.to_string(), true);
    }

    /// Notes that the dependency does not answer, and the reason (no secrets).
    pub fn missing(&self, name: &str, why: impl Display) {
        self.note(name, Some(why.to_string()), true);
    }

    /// Notes an outcome as [`Readiness::ready`] or [`Readiness::missing`], and hands it on.
    ///
    /// # Errors
    /// The outcome's own.
    pub fn report<T, E: Display>(&self, name: &str, outcome: Result<T, E>) -> Result<T, E> {
        match &outcome {
            Ok(_) => self.ready(name),
            Err(error) => self.missing(name, error),
        }
        outcome
    }

    fn note(&self, name: &str, missing: Option<String>, log: bool) {
        self.note_as(name, missing.is_none(), missing.unwrap_or_default(), log);
    }

    fn note_as(&self, name: &str, ok: bool, message: String, log: bool) {
        let now_ms = self.board.clock.now_ms();
        let mut reports = self.board.reports.lock();
        let key = (self.role.to_string(), name.to_owned());
        let before = reports.get(&key);
        let changed = before.is_none_or(|before| before.ok != ok);
        let since_ms = before.filter(|_| !changed).map_or(now_ms, |before| before.since_ms);
        let logged_ms = before.map_or(i64::MIN, |before| before.logged_ms);
        let other_message = before.is_none_or(|before| before.message != message);
        let due = now_ms.saturating_sub(logged_ms) >= REPEAT_AFTER_MS;
        // The first success after start needs no line of its own; `expect` never logged.
        let was_logged = logged_ms > i64::MIN;
        let speak = log && if ok { changed && was_logged } else { changed || !was_logged || (other_message && due) };
        if speak && ok {
            tracing::info!(role = %self.role, dependency = name, "{name} is reachable again");
        } else if speak {
            tracing::warn!(role = %self.role, dependency = name, "{name} is missing: {message}; trying again");
        }
        let logged_ms = if speak { now_ms } else { logged_ms };
        if changed {
            let (role, dependency) = key.clone();
            metrics::gauge!("meanwhile_dependency_up", "role" => role, "dependency" => dependency).set(if ok {
                1.0
            } else {
                0.0
            });
        }
        reports.insert(key, Report { ok, message, since_ms, logged_ms });
        let all_ok = reports.values().all(|report| report.ok);
        drop(reports);
        self.board.all_ok.send_if_modified(|before| std::mem::replace(before, all_ok) != all_ok);
    }

    /// True if nothing is missing, in any role of this process.
    pub fn is_ready(&self) -> bool {
        *self.board.all_ok.borrow()
    }

    /// Returns once nothing is missing.
    pub async fn wait_ready(&self) {
        // The sender lives on the board that `self` holds, so it cannot be gone.
        let _ = self.board.all_ok.subscribe().wait_for(|ok| *ok).await;
    }

    /// Everything on the board, sorted by role and name.
    pub fn dependencies(&self) -> Vec<Dependency> {
        let reports = self.board.reports.lock();
        let dependency = |((role, name), report): (&(String, String), &Report)| Dependency {
            role: role.clone(),
            name: name.clone(),
            ok: report.ok,
            message: report.message.clone(),
            since: rfc3339(report.since_ms),
        };
        reports.iter().map(dependency).collect()
    }
}

/// `GET /healthz` (alive), `/readyz` (200, or 503 naming what is missing) and `/metrics`: to serve alone or to merge
/// into an API.
pub fn router(readiness: Readiness, metrics: Metrics) -> Router {
    Router::new()
        .route("/healthz", get(async || Json(json!({ "status": "alive" }))))
        .route("/readyz", get(readyz))
        .with_state(readiness)
        .route("/metrics", get(async move || ([("content-type", "text/plain; version=0.0.4")], metrics.render())))
}

async fn readyz(State(readiness): State<Readiness>) -> Response {
    let dependencies = readiness.dependencies();
    let missing = missing(&dependencies);
    if missing.is_empty() {
        return Json(json!({ "status": "ready", "dependencies": dependencies })).into_response();
    }
    let document = json!({
        "type": "/problems/not-ready",
        "title": "Something that this service needs is missing",
        "detail": missing,
        "remediation": "It recovers by itself once the named dependencies are reachable; see `dependencies`.",
        "status": 503,
        "dependencies": dependencies,
    });
    let content_type = [(CONTENT_TYPE, "application/problem+json")];
    let mut response = (StatusCode::SERVICE_UNAVAILABLE, content_type, document.to_string()).into_response();
    response.extensions_mut().insert(Unready(dependencies));
    response
}

/// The missing dependencies, in the extensions of `/readyz`'s answer: an API that `/readyz` is part of answers with its
/// own kind of problem.
#[derive(Debug, Clone)]
pub struct Unready(pub Vec<Dependency>);

/// The missing ones of these dependencies, for a person; empty when all answer.
pub fn missing(dependencies: &[Dependency]) -> String {
    let missing: Vec<String> = dependencies
        .iter()
        .filter(|dependency| !dependency.ok)
        .map(|dependency| format!("{} ({}): {}", dependency.name, dependency.role, dependency.message))
        .collect();
    missing.join("; ")
}

/// Listens on `listen` (`host:port`; port 0 takes a free one).
///
/// # Errors
/// The address is not one, or is in use: the message says which setting to change.
pub async fn bind(listen: &str) -> anyhow::Result<TcpListener> {
    TcpListener::bind(listen).await.with_context(|| {
        format!("cannot listen on {listen}; choose another address with MEANWHILE_LISTEN=HOST:PORT (`dev`: --listen)")
    })
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "tests own what they start")]
mod tests {
    use std::time::Duration;

    use axum::body::{Body, to_bytes};
    use axum::http::{Request, StatusCode};
    use serde_json::Value;
    use tower::ServiceExt;

    use super::*;

    async fn ask(readiness: &Readiness, path: &str) -> (StatusCode, String) {
        let router = router(readiness.clone(), Metrics::install().unwrap());
        let response = router.oneshot(Request::get(path).body(Body::empty()).unwrap()).await.unwrap();
        let status = response.status();
        let body = to_bytes(response.into_body(), 1 << 20).await.unwrap();
        (status, String::from_utf8(body.to_vec()).unwrap())
    }

    #[tokio::test]
    async fn readyz_names_each_missing_dependency_with_its_role() {
        let readiness = Readiness::new(Clock::manual(0), "relay");
        readiness.expect(&["kafka", "postgres"]);
        readiness.ready("postgres");
        let (status, body) = ask(&readiness, "/readyz").await;
        let body: Value = serde_json::from_str(&body).unwrap();
        assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(body["detail"], "kafka (relay): not reached yet");
        assert_eq!(body["dependencies"][1]["ok"], true);
        readiness.ready("kafka");
        assert_eq!(ask(&readiness, "/readyz").await.0, StatusCode::OK);
        readiness.for_role("workers").missing("registry", "connection refused");
        let (status, body) = ask(&readiness, "/readyz").await;
        assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
        assert!(body.contains("registry (workers): connection refused"), "{body}");
    }

    #[tokio::test]
    async fn a_process_without_its_dependencies_is_alive_all_the_same() {
        let readiness = Readiness::new(Clock::manual(0), "relay");
        readiness.missing("kafka", "refused");
        assert_eq!(ask(&readiness, "/healthz").await.0, StatusCode::OK);
        let (status, metrics) = ask(&readiness, "/metrics").await;
        assert_eq!(status, StatusCode::OK);
        assert!(metrics.contains("process_resident_memory_bytes"), "{metrics}");
    }

    #[test]
    fn since_changes_only_when_the_state_does() {
        let clock = Clock::manual(0);
        let readiness = Readiness::new(clock.clone(), "relay");
        readiness.missing("kafka", "refused");
        clock.advance(Duration::from_secs(60));
        readiness.missing("kafka", "timed out");
        let seen = &readiness.dependencies()[0];
        assert_eq!((seen.message.as_str(), seen.since.as_str()), ("timed out", "1970-01-01T00:00:00.000Z"));
        readiness.ready("kafka");
        assert_eq!(readiness.dependencies()[0].since, "1970-01-01T00:01:00.000Z");
    }

    #[tokio::test]
    async fn whoever_waits_for_readiness_is_woken() {
        let readiness = Readiness::new(Clock::manual(0), "relay");
        readiness.expect(&["kafka"]);
        let waiting = tokio::spawn({
            let readiness = readiness.clone();
            async move { readiness.wait_ready().await }
        });
        readiness.ready("kafka");
        waiting.await.unwrap();
    }

    #[tokio::test]
    async fn an_address_in_use_is_said_with_the_setting_to_change() {
        let taken = bind("127.0.0.1:0").await.unwrap();
        let address = taken.local_addr().unwrap().to_string();
        let error = bind(&address).await.unwrap_err().to_string();
        assert!(error.contains(&address) && error.contains("MEANWHILE_LISTEN"), "{error}");
    }
}
