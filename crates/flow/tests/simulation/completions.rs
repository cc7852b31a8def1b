//! Services that accept the work with a 202. Their callbacks come early, late, twice or never, and tell of failures,
//! too; their polls find the work done, not yet, or nothing.

use flow::body::Payload;
use flow::callback::{Callbacks, Purpose, SECRET_BYTES_MIN, Secrets};
use flow::decide::{Env, HttpAnswer, HttpCall, NativeCall, Outcome, classify, code};
use flow::id::JobId;
use flow::slip::{Phase, Released, ReleasedBy, Slip};
use serde_json::{Value, json};

use crate::service::Told;
use crate::world::{Task, World};

/// A status that the steps here name in `fail_on`.
const RULED_OUT: u16 = 402;

/// A callback on its way.
pub(crate) struct Callback {
    job: JobId,
    signal: String,
    payload: Value,
    at_ms: i64,
}

/// The surroundings of every worker.
pub(crate) fn env() -> Env {
    let secrets = Secrets::new(vec!["s".repeat(SECRET_BYTES_MIN)]).expect("it is long enough");
    Env { callbacks: Callbacks { api_url: "http://api".to_owned(), secrets }, ..Env::default() }
}

impl World {
    /// The outcome of a call that may only be accepted, or of a look at what was.
    pub(crate) fn ask(&mut self, task: &mut Task, call: &HttpCall) -> Outcome {
        let answer = match &call.idempotency_key {
            Some(key) => self.accept_work(task, call, key),
            None => self.look(task),
        };
        let outcome = classify(&self.definition, &task.slip, answer, self.now_ms);
        match &outcome {
            Outcome::Succeeded { .. } => task.told.push(Told::Completed),
            Outcome::Failed { .. } if call.idempotency_key.is_none() => task.told.push(Told::InVain),
            _ => {}
        }
        outcome
    }

    fn accept_work(&mut self, task: &mut Task, call: &HttpCall, key: &str) -> HttpAnswer {
        self.ledger.called(&task.slip, key);
        let body: Value =
            serde_json::from_slice(call.body.as_ref().and_then(Payload::bytes).unwrap_or(b"null")).expect("it is JSON");
        let url = body["to"].as_str().map(str::to_owned);
        if url.is_some() && !self.is_calm() && self.chance.percent(20) {
            let word = if self.chance.percent(50) { "failed" } else { "retry" };
            self.call_back(&task.slip, &url, json!({ "outcome": word }));
            task.told.push(Told::Accepted);
            return accepting();
        }
        let work = NativeCall {
            name: "work".to_owned(),
            input: Value::Null,
            timeout_ms: call.timeout_ms,
            idempotency_key: key.to_owned(),
            undo: false,
        };
        let trouble = self.trouble_now();
        let (told, _) = match self.is_once_only(&task.slip) {
            true => self.service.call_once(&mut self.chance, &work, trouble, self.now_ms),
            false => self.service.call(&mut self.chance, &work, trouble, self.now_ms),
        };
        if self.service.done.contains(key) {
            self.call_back(&task.slip, &url, json!({ "outcome": "done", "body": "done" }));
        }
        task.told.push(if told == Told::Succeeded { Told::Accepted } else { told });
        match told {
            Told::Succeeded => accepting(),
            Told::RuledOut => response(RULED_OUT, Value::Null),
            Told::Unsent => HttpAnswer::ConnectFailed("nobody is there".to_owned()),
            Told::Unknown => HttpAnswer::TimedOut,
            _ => response(400, Value::Null),
        }
    }

    /// The callback goes on its way: once or twice, at once or later than anybody waits, or not at all.
    fn call_back(&mut self, slip: &Slip, url: &Option<String>, payload: Value) {
        let Some(url) = url else { return };
        let text = url.strip_prefix("http://api/v1/callbacks/").expect("it is the API's");
        let permit = env().callbacks.secrets.verify(Purpose::Callback, text).expect("it certifies itself");
        assert_eq!((permit.job, &permit.step, permit.visit), (slip.job, &slip.step, slip.visit));
        assert!(permit.end_ms > self.now_ms);
        let times = if self.is_calm() { 1 } else { [0, 1, 1, 1, 2][self.chance.below(5)] };
        for _ in 0..times {
            let after_ms = [0, 0, 500, 20_000, 120_000][self.chance.below(5)];
            let at_ms = self.now_ms + after_ms;
            let (job, signal) = (permit.job, permit.signal());
            self.on_the_way.push(Callback { job, signal, payload: payload.clone(), at_ms });
        }
        self.deliver_callbacks();
    }

    /// The callbacks that have arrived are kept: the first of a round counts.
    pub(crate) fn deliver_callbacks(&mut self) {
        let now_ms = self.now_ms;
        let (here, later) = std::mem::take(&mut self.on_the_way).into_iter().partition(|it| it.at_ms <= now_ms);
        self.on_the_way = later;
        let here: Vec<Callback> = here;
        for Callback { job, signal, payload, .. } in here {
            self.tally.callbacks += 1;
            let (_, is_used) = self.callbacks.entry((job, signal)).or_insert((payload, false));
            self.tally.callbacks_twice += u64::from(*is_used);
            self.meet_callback(job);
        }
    }

    /// A hold whose callback is there goes on with it.
    pub(crate) fn meet_callback(&mut self, job: JobId) {
        let found = self.holds.iter().find_map(|(rest, (hold, _))| {
            let name = (job, hold.signal.clone()?);
            let is_there = self.callbacks.get(&name).is_some_and(|(_, is_used)| !is_used);
            (rest.0 == job && is_there).then_some((*rest, name))
        });
        let Some((rest, name)) = found else { return };
        let Some((hold, _)) = self.holds.remove(&rest) else { return };
        let Some((payload, is_used)) = self.callbacks.get_mut(&name) else { return };
        *is_used = true;
        let released = Released { by: ReleasedBy::Signal, payload: Some(payload.clone()) };
        self.tally.called_back += 1;
        self.send(Slip { released: Some(released), ..hold.slip }, &hold.queue);
    }

    /// Notes what a released slip of such a step says, for the ledger.
    pub(crate) fn hear(&mut self, task: &mut Task, outcome: &Outcome) {
        if *outcome == Outcome::NotDone {
            // A sandbox says so of itself.
            task.told.push(Told::SaidNotDone);
        }
        let calls_back = self.definition.step(&task.slip.step).is_some_and(|step| step.callback().is_some());
        let Some(released) = task.slip.released.as_ref().filter(|_| calls_back) else { return };
        if task.slip.phase != Phase::Forward {
            return;
        }
        match (released.by, outcome) {
            (ReleasedBy::Signal, Outcome::Succeeded { .. }) => task.told.push(Told::Completed),
            (ReleasedBy::Signal, Outcome::Failed { error, .. }) if error.code != code::DEADLINE_EXCEEDED => {
                task.told.push(Told::CalledBackFailed);
            }
            (ReleasedBy::Time, Outcome::Failed { .. }) => task.told.push(Told::InVain),
            _ => {}
        }
    }

    fn look(&mut self, task: &Task) -> HttpAnswer {
        self.tally.looks += 1;
        let is_done = self.service.done.contains(&task.slip.idempotency_key());
        match self.chance.below(if self.is_calm() { 1 } else { 10 }) {
            1..=3 => response(200, json!({ "over": false })),
            4 => response(503, Value::Null),
            5 => response(404, Value::Null),
            6 => HttpAnswer::TimedOut,
            _ => response(200, json!({ "over": is_done })),
        }
    }
}

/// The 202, which says where the work is found.
fn accepting() -> HttpAnswer {
    let headers = vec![("location".to_owned(), "/jobs/7".to_owned())];
    let (retry_after, content_type) = (Some("2".to_owned()), None);
    HttpAnswer::Response { status: 202, retry_after, content_type, headers, body: Vec::new() }
}

fn response(status: u16, body: Value) -> HttpAnswer {
    HttpAnswer::Response {
        status,
        retry_after: None,
        content_type: None,
        headers: Vec::new(),
        body: body.to_string().into_bytes(),
    }
}
