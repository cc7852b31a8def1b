//! A case, run on the flow's own decisions, with a clock that skips every wait.

use flow::body::Payload;
use flow::decide::{
    Decision, Env, HttpAnswer, HttpCall, NativeCall, Next, Outcome, Prepared, Said, Verdict, advance, can_be_ruled,
    classify, code, poll_host, prepare, resumed, ruled, simulated, start, steps_total,
};
use flow::definition::Definition;
use flow::event::JobEvent;
use flow::slip::{Hold, HoldReason, Phase, Released, ReleasedBy, Slip};
use flow::view::JobView;
use serde_json::{Map, Value, json};

use crate::case::{Answer, CallName, Case, CaseFile, Given, GivenSignal, Run};
use crate::compare::{Difference, compare};
use crate::flow_file::FlowFile;
use crate::probe::new_job;
use crate::scan::expressions;
use crate::world::{callbacks, variable};

/// Moves of a token in one case: a flow of 100 steps with 100 attempts each, there and back.
const MOVES_MAX: u32 = 100_000;

/// The outcome of a case.
#[derive(Debug)]
pub struct CaseReport {
    /// The case's name.
    pub name: String,
    /// The case's file.
    pub file: String,
    /// The line of its name, from 1.
    pub line: u32,
    /// What is not as expected.
    pub differences: Vec<Difference>,
}

/// Runs every case of a file.
pub fn run_cases(flow: &FlowFile, file: &CaseFile) -> Vec<CaseReport> {
    let env = surroundings(&flow.definition, file);
    let report = |case: &Case| {
        let run = Runner::new(&flow.definition, &env, case).run();
        CaseReport {
            name: case.name.clone(),
            file: file.name.clone(),
            line: case.line,
            differences: compare(case, &run),
        }
    };
    file.cases.iter().map(report).collect()
}

fn surroundings(definition: &Definition, file: &CaseFile) -> Env {
    let mut env = Env { callbacks: callbacks(), ..Env::default() };
    for path in expressions(definition.document()).into_iter().flat_map(|scanned| scanned.paths) {
        match path.split('.').collect::<Vec<_>>().as_slice() {
            ["env", name, ..] => drop(env.vars.insert((*name).to_owned(), variable(name))),
            ["secrets", name, ..] => drop(env.secrets.insert((*name).to_owned(), (*name).to_lowercase())),
            _ => {}
        }
    }
    env.vars.extend(file.env.iter().cloned());
    env
}

struct Runner<'a> {
    definition: &'a Definition,
    env: &'a Env,
    case: &'a Case,
    now_ms: i64,
    cursor: i64,
    /// What the operator is going to say.
    resumes_left: std::slice::Iter<'a, Option<Said>>,
    /// The places of the signals that were used.
    signals_used: Vec<usize>,
    was_cancelled: bool,
    run: Run,
}

impl<'a> Runner<'a> {
    fn new(definition: &'a Definition, env: &'a Env, case: &'a Case) -> Self {
        let run = Run { view: None, calls: Vec::new(), stopped: None };
        let resumes_left = case.resumes.iter();
        let signals_used = Vec::new();
        Self { definition, env, case, now_ms: 0, cursor: -1, resumes_left, signals_used, was_cancelled: false, run }
    }

    fn run(mut self) -> Run {
        let job = new_job(self.case.input.clone(), "a-test".to_owned());
        let mut slip = self.follow(start(self.definition, job, self.now_ms));
        for _ in 0..MOVES_MAX {
            let Some(arrived) = slip else { return self.run };
            slip = self.arrive(&arrived);
        }
        self.run.stopped = Some(format!("the job had not ended after {MOVES_MAX} moves"));
        self.run
    }

    /// The slip with which the job goes on.
    fn arrive(&mut self, slip: &Slip) -> Option<Slip> {
        let is_undo = slip.phase == Phase::Undo;
        if !is_undo && !self.was_cancelled && self.case.cancel_before.as_ref() == Some(&slip.step) {
            self.was_cancelled = true;
            return self.follow(advance(self.definition, slip, Outcome::Cancelled, self.now_ms));
        }
        let name = CallName { step: slip.step.clone(), is_undo };
        let (request, timeout_ms) = match prepare(self.definition, slip, self.env, self.now_ms) {
            Prepared::Outcome(outcome) => {
                return self.follow(advance(self.definition, slip, outcome, self.now_ms));
            }
            Prepared::Missing(missing) => {
                self.run.stopped = Some(format!("{name} cannot be called: {}", missing.what));
                return None;
            }
            Prepared::Http(call) => (http_request(&call, self.now_ms), call.timeout_ms),
            Prepared::Native(call) => (native_request(&call, self.now_ms), call.timeout_ms),
            // Cases are run with the calls made.
            Prepared::Simulated(simulated) => (Value::Null, simulated.after_ms),
        };
        let answered = self.answer(slip, &name, timeout_ms);
        if answered.is_none() {
            self.run.stopped = Some(format!("{name} is called, and the case gives no outcome for it"));
        }
        self.run.calls.push((name, request));
        let (outcome, took_ms) = answered?;
        let outcome = poll_host(self.definition, slip, outcome, self.env);
        self.now_ms = self.now_ms.saturating_add_unsigned(took_ms);
        self.follow(advance(self.definition, slip, outcome, self.now_ms))
    }

    /// The outcome of the next attempt, and the time that it takes: as the case says, or else as the flow's `simulate`
    /// does. A compensation of which neither says anything succeeds.
    fn answer(&self, slip: &Slip, name: &CallName, timeout_ms: u64) -> Option<(Outcome, u64)> {
        let made = self.run.calls.iter().filter(|(made, _)| made == name).count();
        if let Some((_, outcomes)) = self.case.outcomes.iter().find(|(known, _)| known == name) {
            let given = outcomes.get(made).or_else(|| outcomes.last())?;
            return Some(outcome(self.definition, slip, given.clone(), timeout_ms, self.now_ms));
        }
        match simulated(self.definition, slip, self.now_ms) {
            Some(simulated) => Some((simulated.outcome, simulated.after_ms)),
            None if name.is_undo => Some((Outcome::done(Value::Null), 0)),
            None => None,
        }
    }

    fn follow(&mut self, decision: Decision) -> Option<Slip> {
        for event in &decision.events {
            self.take(event);
        }
        match decision.next {
            Next::Step { slip, .. } => Some(slip),
            Next::RetryNow { slip, delay_ms } => {
                self.now_ms = self.now_ms.saturating_add_unsigned(delay_ms);
                Some(slip)
            }
            Next::Hold(hold) if hold.reason == HoldReason::Attention => self.resume(hold.slip),
            Next::Hold(hold) if hold.signal.is_some() => self.wait(hold),
            Next::Hold(hold) => {
                self.now_ms = self.now_ms.saturating_add_unsigned(hold.release_after_ms?);
                Some(hold.slip)
            }
            Next::End => None,
        }
    }

    /// An operator sends the parked job on, or says how its step has ended.
    fn resume(&mut self, parked: Slip) -> Option<Slip> {
        let said = self.resumes_left.next()?.clone();
        let event = resumed(&parked, steps_total(self.definition), self.now_ms);
        let Some(said) = said else {
            self.take(&event);
            return Some(parked);
        };
        if !can_be_ruled(&parked, &said) {
            let (step, said) = (&parked.step, said.as_str());
            self.run.stopped =
                Some(format!("an operator says `{said}`, which cannot be said where the job is parked at `{step}`"));
            return None;
        }
        let verdict = Verdict { said, by: "an operator".to_owned() };
        self.take(&verdict.told_by(event));
        Some(ruled(parked, &verdict))
    }

    /// The signal comes in time, or the time passes.
    fn wait(&mut self, hold: Hold) -> Option<Slip> {
        let end_ms = hold.release_after_ms.map(|after_ms| self.now_ms.saturating_add_unsigned(after_ms));
        let mut given = self.case.signals.iter().enumerate();
        let next = given
            .find(|(place, signal)| is_for(hold.signal.as_deref(), &signal.name) && !self.signals_used.contains(place));
        let at_ms = |signal: &GivenSignal| i64::try_from(signal.at_ms).unwrap_or(i64::MAX).max(self.now_ms);
        match next.map(|(place, signal)| (place, at_ms(signal), signal)) {
            Some((place, at_ms, signal)) if end_ms.is_none_or(|end_ms| at_ms < end_ms) => {
                self.now_ms = at_ms;
                self.signals_used.push(place);
                let released = Released { by: ReleasedBy::Signal, payload: Some(signal.payload.clone()) };
                Some(Slip { released: Some(released), ..hold.slip })
            }
            _ => {
                if end_ms.is_none() {
                    let signal = hold.signal.unwrap_or_default();
                    self.run.stopped =
                        Some(format!("the job waits for `{signal}`, and the case sends no more of them"));
                }
                self.now_ms = end_ms?;
                Some(hold.slip)
            }
        }
    }

    fn take(&mut self, event: &JobEvent) {
        self.cursor += 1;
        match &mut self.run.view {
            Some(view) => drop(view.apply(self.cursor, event)),
            None => self.run.view = Some(JobView::from_event(self.cursor, event)),
        }
    }
}

/// A callback is given by its step: its visit and its round are those of the hold.
fn is_for(waiting: Option<&str>, given: &str) -> bool {
    waiting.is_some_and(|name| name.strip_prefix(given).is_some_and(|rest| rest.is_empty() || rest.starts_with(':')))
}

fn outcome(definition: &Definition, slip: &Slip, given: Given, timeout_ms: u64, now_ms: i64) -> (Outcome, u64) {
    let silent = match &given.answer {
        Answer::Http(answer) => *answer == HttpAnswer::TimedOut,
        Answer::Native(Outcome::Failed { error, .. }) => error.code == code::TIMED_OUT,
        Answer::Native(_) => false,
    };
    let took_ms = given.after_ms.unwrap_or(if silent { timeout_ms } else { 0 });
    let answer = if took_ms > timeout_ms { Answer::Http(HttpAnswer::TimedOut) } else { given.answer };
    let took_ms = took_ms.min(timeout_ms);
    let then_ms = now_ms.saturating_add_unsigned(took_ms);
    match answer {
        Answer::Http(answer) => (classify(definition, slip, answer, then_ms), took_ms),
        Answer::Native(outcome) => (outcome, took_ms),
    }
}

fn http_request(call: &HttpCall, now_ms: i64) -> Value {
    let headers: Map<String, Value> =
        call.headers.iter().map(|(name, value)| (name.clone(), Value::String(value.clone()))).collect();
    let body = call.body.as_ref().map(|body| match body {
        Payload::Bytes(bytes) => {
            serde_json::from_slice(bytes).unwrap_or_else(|_| Value::String(String::from_utf8_lossy(bytes).into_owned()))
        }
        Payload::Stored(document) => document.to_json(),
    });
    json!({
        "method": call.method,
        "url": call.url,
        "headers": headers,
        "body": body,
        "key": call.idempotency_key,
        "at": told(now_ms),
    })
}

fn native_request(call: &NativeCall, now_ms: i64) -> Value {
    json!({ "with": call.input, "key": call.idempotency_key, "at": told(now_ms) })
}

/// A time since the acceptance, as durations are written.
fn told(now_ms: i64) -> String {
    match now_ms {
        whole if whole % 1000 == 0 => format!("{}s", whole / 1000),
        _ => format!("{now_ms}ms"),
    }
}
