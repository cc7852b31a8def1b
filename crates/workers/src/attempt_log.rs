//! The attempts that a worker has made of a step since its slip arrived: what events of failures tell of each.
//!
//! Invariant: words of the other side get into the log only where the step says `expose: true`, and no secret of this
//! worker does. Callers read events.

use std::collections::VecDeque;
use std::time::Duration;

use flow::decide::{Decision, Env, HttpAnswer, Outcome};
use flow::definition::Definition;
use flow::event::EventKind;
use flow::slip::{Phase, Slip};
use serde_json::{Value, json};

/// The member of a failure's data.
const ATTEMPT_LOG: &str = "attempt_log";
/// Attempts of a log: the newest ones.
const ATTEMPTS_MAX: usize = 10;
/// Characters of an excerpt.
const EXCERPT_CHARS_MAX: usize = 256;
/// Bytes of a body that are looked through for secrets.
const LOOKED_BYTES_MAX: usize = 64 * 1024;
/// What stands in the place of a secret.
pub(crate) const REDACTED: &str = "***";

/// The outcome of an attempt, and the beginning of the answer's body where a caller may see it.
pub(crate) struct Attempted {
    pub(crate) outcome: Outcome,
    pub(crate) excerpt: Option<String>,
}

impl From<Outcome> for Attempted {
    fn from(outcome: Outcome) -> Self {
        Self { outcome, excerpt: None }
    }
}

/// The newest attempts, oldest first.
#[derive(Debug, Default)]
pub(crate) struct AttemptLog(VecDeque<Value>);

impl AttemptLog {
    /// Notes an attempt that failed; others leave no trace.
    pub(crate) fn note(&mut self, slip: &Slip, attempted: &Attempted, took: Duration) {
        let Outcome::Failed { error, .. } = &attempted.outcome else { return };
        if self.0.len() == ATTEMPTS_MAX {
            self.0.pop_front();
        }
        let status = error.status.map_or_else(|| Value::from(error.code.as_str()), Value::from);
        let duration_ms = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
        let mut entry = json!({ "attempt": slip.attempt + 1, "status": status, "duration_ms": duration_ms });
        if let Some(excerpt) = &attempted.excerpt {
            entry["excerpt"] = excerpt.as_str().into();
        }
        self.0.push_back(entry);
    }

    /// Adds the log to what the decision tells of the failure.
    pub(crate) fn tell(&self, decision: &mut Decision) {
        if self.0.is_empty() {
            return;
        }
        for event in &mut decision.events {
            let is_told = match event.kind {
                EventKind::StepRetrying | EventKind::StepFailed | EventKind::JobParked => true,
                // One that still waits for its callback tells the failure.
                EventKind::StepWaiting => event.data.as_ref().is_some_and(|data| data.get("code").is_some()),
                _ => false,
            };
            if let (true, Some(Value::Object(data))) = (is_told, &mut event.data) {
                data.insert(ATTEMPT_LOG.to_owned(), self.0.iter().cloned().collect());
            }
        }
    }
}

/// The data of a failure as it may stand in a log, where bodies do not belong.
pub(crate) fn without_log(data: &Value) -> Value {
    let mut data = data.clone();
    if let Some(members) = data.as_object_mut() {
        members.remove(ATTEMPT_LOG);
    }
    data
}

/// The beginning of a refusal's body, on one line and without secrets, if the step shows its service's own words.
pub(crate) fn excerpt(definition: &Definition, slip: &Slip, answer: &HttpAnswer, env: &Env) -> Option<String> {
    let HttpAnswer::Response { status, body, .. } = answer else { return None };
    let is_shown = definition.step(&slip.step).is_some_and(|step| step.exposes_failures());
    if (200..300).contains(status) || slip.phase != Phase::Forward || !is_shown {
        return None;
    }
    let looked_at = &body[..body.len().min(LOOKED_BYTES_MAX)];
    let mut text = String::from_utf8_lossy(looked_at).into_owned();
    let mut secrets: Vec<&str> = env.secrets.values().map(|secret| secret.trim()).filter(|it| !it.is_empty()).collect();
    // One secret may be part of another.
    secrets.sort_by_key(|secret| std::cmp::Reverse(secret.len()));
    for secret in secrets {
        text = text.replace(secret, REDACTED);
    }
    if looked_at.len() < body.len() {
        // Its end may be a part of a secret.
        let longest = env.secrets.values().map(String::len).max().unwrap_or(0);
        text.truncate(text.floor_char_boundary(text.len().saturating_sub(longest)));
    }
    let plain = |character: char| if character.is_control() { ' ' } else { character };
    let excerpt: String = text.trim().chars().map(plain).take(EXCERPT_CHARS_MAX).collect();
    (!excerpt.is_empty()).then_some(excerpt)
}

#[cfg(test)]
mod tests {
    use flow::decide::{Effect, NewJob, Next, StepError, advance, start};

    use super::*;

    const FLOW: &str = "flow: order\nsteps:\n\
        - { id: shown, http: { method: POST, url: 'http://x/a', expose: true }, retry: { attempts: 50 } }\n\
        - { id: kept, http: { method: POST, url: 'http://x/b' } }\n";

    fn definition() -> Definition {
        Definition::parse_yaml("test.yaml", FLOW, &mut |_| Err("no references here".to_owned())).unwrap()
    }

    fn slip(step: &str) -> Slip {
        let job = NewJob {
            job: "0190a6f2-7c1e-7cc0-b1f1-3f4d5a6b7c8d".parse().unwrap(),
            tenant: "t".to_owned(),
            key: "k".to_owned(),
            input: Value::Null,
            correlation_id: "c".to_owned(),
            priority: 1,
            retry_of: None,
        };
        match start(&definition(), job, 0).next {
            Next::Step { slip, .. } => Slip { step: step.to_owned(), ..slip },
            other => panic!("{other:?}"),
        }
    }

    fn answer(status: u16, body: impl Into<Vec<u8>>) -> HttpAnswer {
        HttpAnswer::Response { status, retry_after: None, content_type: None, headers: Vec::new(), body: body.into() }
    }

    fn env(secrets: &[&str]) -> Env {
        let numbered = secrets.iter().enumerate().map(|(number, secret)| (number.to_string(), (*secret).to_owned()));
        Env { secrets: numbered.collect(), ..Env::default() }
    }

    fn shown(body: &str, secrets: &[&str]) -> Option<String> {
        excerpt(&definition(), &slip("shown"), &answer(503, body), &env(secrets))
    }

    #[test]
    fn an_excerpt_is_short_on_one_line_and_without_secrets() {
        assert_eq!(shown("out of\r\n\u{1b}[1mstock", &[]).unwrap(), "out of   [1mstock");
        assert_eq!(shown(&"é".repeat(1_000), &[]).unwrap(), "é".repeat(256));
        assert_eq!(shown("key s3cret-long, s3cret!", &["s3cret", "s3cret-long\n", ""]).unwrap(), "key ***, ***!");
        assert_eq!(shown(" \n", &[]), None);
        // A secret where the excerpt ends, and one where the look ends.
        let before = "x".repeat(250);
        assert_eq!(shown(&format!("{before}0123456789"), &["0123456789"]).unwrap(), format!("{before}***"));
        let secret = "0123456789".repeat(100);
        let cut_off = shown(&secret.repeat(100), &[&secret]);
        assert!(cut_off.as_ref().is_none_or(|shown| !shown.contains('0')), "{cut_off:?}");
    }

    #[test]
    fn only_a_refusal_that_the_step_shows_has_an_excerpt() {
        let of = |step: &str, answer: &HttpAnswer| excerpt(&definition(), &slip(step), answer, &env(&[]));
        assert_eq!(of("shown", &answer(402, "no")).as_deref(), Some("no"));
        assert_eq!(of("kept", &answer(402, "no")), None);
        assert_eq!(of("shown", &answer(200, "yes")), None);
        assert_eq!(of("shown", &HttpAnswer::TimedOut), None);
        let undo = Slip { phase: Phase::Undo, ..slip("shown") };
        assert_eq!(excerpt(&definition(), &undo, &answer(500, "no"), &env(&[])), None);
    }

    fn failed(status: Option<u16>, retryable: bool) -> Outcome {
        let error = StepError { code: "timed-out".to_owned(), message: "m".to_owned(), status };
        Outcome::Failed { error, retryable, effect: Effect::Unknown, retry_after_ms: None }
    }

    #[test]
    fn events_of_a_failure_tell_the_newest_attempts_and_no_others() {
        let mut log = AttemptLog::default();
        for attempt in 0..12 {
            let slip = Slip { attempt, ..slip("shown") };
            let excerpt = (attempt == 11).then(|| "no".to_owned());
            let outcome = failed((attempt == 11).then_some(503), true);
            log.note(&slip, &Attempted { outcome, excerpt }, Duration::from_millis(7));
        }
        log.note(&slip("shown"), &Outcome::done(Value::Null).into(), Duration::ZERO);
        let mut decision = advance(&definition(), &Slip { attempt: 11, ..slip("shown") }, failed(Some(503), false), 5);
        let plain = decision.clone();
        log.tell(&mut decision);
        let told: Vec<_> = decision.events.iter().map(|event| (event.kind, event.data.as_ref())).collect();
        let data = told.iter().find(|(kind, _)| *kind == EventKind::StepFailed).unwrap().1.unwrap();
        let entries = data["attempt_log"].as_array().unwrap();
        assert_eq!((entries.len(), &entries[0]["attempt"]), (10, &json!(3)));
        assert_eq!(entries[0], json!({ "attempt": 3, "status": "timed-out", "duration_ms": 7 }));
        assert_eq!(entries[9], json!({ "attempt": 12, "status": 503, "duration_ms": 7, "excerpt": "no" }));
        for (event, before) in decision.events.iter().zip(&plain.events) {
            let stripped = event.data.as_ref().map(without_log);
            assert_eq!(stripped, before.data, "nothing else is changed");
            assert_eq!(event.data != before.data, event.kind == EventKind::StepFailed, "{:?}", event.kind);
        }
    }
}
