//! Random flows.

use flow::decide::NewJob;
use flow::definition::Definition;
use flow::id::JobId;
use serde_json::{Value, json};

use crate::chance::Chance;
use crate::sandbox::simulate;

pub(crate) const QUEUES: [&str; 2] = ["fast", "slow"];
/// The signals for which steps wait.
pub(crate) const SIGNALS: [&str; 2] = ["yes", "details"];

/// A flow of one to six steps with everything that changes decisions. `late`: calls may have their effect late.
pub(crate) fn definition(chance: &mut Chance, late: bool) -> Definition {
    let count = 1 + chance.below(6);
    let mut steps: Vec<Value> = (0..count).map(|index| step(chance, index, late)).collect();
    for index in 0..count {
        fall_back(chance, &mut steps, index);
    }
    let mut document = json!({ "flow": "simulated", "steps": steps });
    if chance.percent(30) {
        document["on_failure"] = json!("park");
    }
    if chance.percent(40) {
        document["deadline"] = json!(["100ms", "10s", "2m"][chance.below(3)]);
    }
    document["result"] = match chance.percent(10) {
        // Fails when the last step was skipped, after everything was done.
        true => json!(format!("{{{{ steps.s{}.output }}}}", count - 1)),
        false => json!({ "last": format!("{{{{ steps.s{}.output | default(none) }}}}", count - 1) }),
    };
    // A chance of its own: the seeds of other flows stay what they were.
    simulate(&mut chance.clone(), &mut document);
    Definition::from_document(&document).unwrap_or_else(|problems| panic!("{document}: {problems:?}"))
}

/// A job of such a flow.
pub(crate) fn new_job(job: JobId) -> NewJob {
    NewJob {
        job,
        tenant: "default".to_owned(),
        key: "key".to_owned(),
        input: json!({ "yes": true, "no": false }),
        correlation_id: "simulated".to_owned(),
        priority: 1,
        retry_of: None,
    }
}

/// A step that sleeps, or waits for a signal: with a bound or without one, in vain for good or not.
fn rest(chance: &mut Chance, index: usize) -> Value {
    let id = format!("s{index}");
    let length = ["1s", "30s", "5m"][chance.below(3)];
    if chance.percent(40) {
        return json!({ "id": id, "queue": QUEUES[chance.below(2)], "sleep": length });
    }
    let mut wait = json!({ "signal": SIGNALS[chance.below(SIGNALS.len())] });
    if chance.percent(70) {
        wait["timeout"] = json!(length);
        wait["on_timeout"] = match chance.below(if index > 0 { 4 } else { 2 }) {
            0 => json!("fail"),
            1 => json!("continue"),
            _ => json!(format!("s{}", chance.below(index))),
        };
    }
    json!({ "id": id, "queue": QUEUES[chance.below(2)], "wait": wait })
}

fn step(chance: &mut Chance, index: usize, late: bool) -> Value {
    if chance.percent(15) {
        return rest(chance, index);
    }
    let mut step = json!({ "id": format!("s{index}"), "queue": QUEUES[chance.below(2)] });
    let completes = chance.percent(25);
    match completes {
        true => complete(chance, &mut step),
        false => step["native"] = json!("work"),
    }
    step["retry"] = retry(chance, 4);
    if chance.percent(20) {
        step["idempotent"] = json!(false);
        if chance.percent(60) {
            step["verify"] = verify(chance);
        }
    }
    if chance.percent(15) {
        step["deadline"] = json!(["5s", "90s", "10m"][chance.below(3)]);
    }
    if chance.percent(20) {
        step["when"] = json!(["{{ input.yes }}", "{{ input.no }}"][chance.below(2)]);
    }
    if index > 0 && !completes && chance.percent(30) {
        step["with"] = json!({ "before": format!("{{{{ steps.s{}.output | default(none) }}}}", index - 1) });
    }
    if chance.percent(70) {
        step["compensate"] = json!({ "native": "undo", "retry": retry(chance, 3) });
        step["compensate"]["with"] = json!(format!("{{{{ steps.s{index}.output | default(step.idempotency_key) }}}}"));
        if chance.percent(30) {
            // One that is asked about settles for as long as its calls may take.
            let any = !late && step.get("verify").is_none();
            step["settle"] = json!(["2m", "31s", "0s", "1ms"][chance.below(if any { 4 } else { 2 })]);
        }
    }
    if chance.percent(30) {
        step["cancel"] = json!("abort");
    }
    step
}

/// A 200 says that it was done, a 404 that it was not; an `open` one says neither.
fn verify(chance: &mut Chance) -> Value {
    json!({
        "http": { "url": "http://service/{{ step.idempotency_key }}" },
        "done_when": "{{ none if response.body == 'open' else response.status == 200 }}",
        "retry": retry(chance, 4),
    })
}

/// Another way on for some calls: a value, or a later step.
fn fall_back(chance: &mut Chance, steps: &mut [Value], index: usize) {
    let (last, step) = (steps.len() - 1, &mut steps[index]);
    let calls = step.get("sleep").is_none() && step.get("wait").is_none();
    if !calls || !chance.percent(15) {
        return;
    }
    if index < last && chance.percent(50) {
        let target = index + 1 + chance.below(last - index);
        step["fallback"] = json!({ "step": format!("s{target}") });
    } else if step.get("compensate").is_none() {
        step["fallback"] = json!({ "value": "instead" });
    }
}

/// A call whose answer only accepts the work.
fn complete(chance: &mut Chance, step: &mut Value) {
    step["http"] = json!({ "method": "POST", "url": "http://service/work", "fail_on": [402] });
    let timeout = ["5s", "1m", "5m"][chance.below(3)];
    if chance.percent(60) {
        step["http"]["body"] = json!({ "to": "{{ callback.url }}" });
        step["callback"] = json!({ "timeout": timeout });
        return;
    }
    let until = "{{ response.body.over }}";
    let url = ["http://service/work", "{{ response.headers.location }}"][chance.below(2)];
    step["poll"] = json!({ "url": url, "every": "1s", "until": until, "timeout": timeout });
}

fn retry(chance: &mut Chance, attempts_max: usize) -> Value {
    let backoff = ["1ms..5ms", "2s..60s"][chance.below(2)];
    json!({ "attempts": 1 + chance.below(attempts_max), "backoff": backoff })
}
