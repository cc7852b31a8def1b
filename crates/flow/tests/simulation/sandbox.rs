//! Sandboxes: no call is made, and each is answered by the flow itself, in its own time.

use flow::decide::{Effect, Outcome, Simulated};
use serde_json::{Value, json};

use crate::chance::Chance;
use crate::service::Told;
use crate::world::{Task, World};

/// Makes some flows sandboxes: all of their calls have answers then.
pub(crate) fn simulate(chance: &mut Chance, document: &mut Value) {
    if !chance.percent(15) {
        return;
    }
    document["sandbox"] = json!(true);
    for step in document["steps"].as_array_mut().into_iter().flatten() {
        if step.get("sleep").is_some() || step.get("wait").is_some() {
            continue;
        }
        step["simulate"] = answers(chance);
        if step.get("compensate").is_some() && chance.percent(60) {
            step["compensate"]["simulate"] = answers(chance);
        }
    }
}

fn answers(chance: &mut Chance) -> Value {
    let fails = [
        json!({ "status": 402, "detail": "{{ job.id }}" }),
        json!({ "status": 503 }),
        json!({ "error": "no-answer" }),
        json!({ "error": "connection-lost" }),
        json!({ "error": "no-connection" }),
    ];
    let mut fail = fails[chance.below(fails.len())].clone();
    match chance.percent(50) {
        true => fail["when"] = json!("{{ step.attempt == 1 }}"),
        false => fail["percent"] = json!(30),
    }
    let latency = ["0s", "200ms..2s", "{{ '1s' if input.yes else '2s' }}", "20s..40s"][chance.below(4)];
    json!({ "latency": latency, "output": { "key": "{{ step.idempotency_key }}" }, "fail": [fail] })
}

impl World {
    /// The outcome of a simulated call. From the calm on all of them succeed.
    pub(crate) fn simulated(&mut self, task: &mut Task, simulated: Simulated) -> Outcome {
        self.tally.simulated += 1;
        self.ledger.called(&task.slip, &task.slip.idempotency_key());
        self.now_ms = self.now_ms.saturating_add_unsigned(simulated.after_ms);
        let outcome = match self.is_calm() {
            true => Outcome::done(json!("calm")),
            false => simulated.outcome,
        };
        task.told.push(match &outcome {
            Outcome::Succeeded { .. } => Told::Succeeded,
            Outcome::Failed { effect: Effect::Refused, .. } => Told::Refused,
            Outcome::Failed { effect: Effect::RuledOut, .. } => Told::RuledOut,
            Outcome::Failed { effect: Effect::Unsent, .. } => Told::Unsent,
            Outcome::Failed { effect: Effect::Unknown, .. } => Told::Unknown,
            other => panic!("no simulated call ends so: {other:?}"),
        });
        if self.is_broken_off(task) { Outcome::Cancelled } else { outcome }
    }
}
