//! The meaning of a change of the steps for callers, followers of events, and operators.

use std::collections::BTreeMap;

use serde_json::Value;

use super::{Change, duration, shown};
use crate::definition::{Action, Definition, Retry, Step};
use crate::slip::Phase;

/// The reason for which a change of a step's work does not break callers.
const OWN: &str = "jobs under way stay on their version";

/// A step as it is compiled, and as it is written.
struct Side<'a> {
    step: &'a Step,
    written: &'a Value,
}

/// Everything that is different in the steps.
pub(super) fn changes(old: &Definition, new: &Definition) -> Vec<Change> {
    let (before, after) = (sides(old), sides(new));
    let find = |list: &'_ [Side<'_>], id: &str| list.iter().position(|side| side.step.id == id);
    let mut changes = Vec::new();
    for side in &before {
        match find(&after, &side.step.id).and_then(|index| after.get(index)) {
            Some(other) => compare(side, other, &mut changes),
            None => changes.push(Change::breaking(
                place(side.step),
                "gone",
                "status and events tell of it no more: who follows it waits in vain",
            )),
        }
    }
    for side in after.iter().filter(|side| find(&before, &side.step.id).is_none()) {
        changes.push(Change::fine(place(side.step), "new", OWN));
    }
    let common = |list: &[Side<'_>], other: &[Side<'_>]| -> Vec<String> {
        let ids = list.iter().map(|side| side.step.id.clone());
        ids.filter(|id| find(other, id).is_some()).collect()
    };
    if common(&before, &after) != common(&after, &before) {
        changes.push(Change::fine("steps", "in another order", OWN));
    }
    changes.extend(wants(old, new));
    changes
}

/// New needs, which the workers must meet before this version is applied.
fn wants(old: &Definition, new: &Definition) -> Vec<Change> {
    let (queues, natives) = (old.queues(), old.natives());
    let queues = new
        .queues()
        .into_iter()
        .filter(|queue| !queues.contains(queue))
        .map(|queue| Change::fine(format!("queue {queue}"), "new", "its jobs wait until workers serve it"));
    let natives = new
        .natives()
        .into_iter()
        .filter(|native| !natives.contains(native))
        .map(|native| Change::fine(format!("native {native}"), "new", "its jobs wait until workers know it"));
    queues.chain(natives).collect()
}

fn sides(definition: &Definition) -> Vec<Side<'_>> {
    let written = definition.document().get("steps").and_then(Value::as_array).into_iter().flatten();
    definition.steps().iter().zip(written).map(|(step, written)| Side { step, written }).collect()
}

fn place(step: &Step) -> String {
    format!("step {}", step.id)
}

fn compare(old: &Side<'_>, new: &Side<'_>, changes: &mut Vec<Change>) {
    let place = place(old.step);
    if let (Some(before), Some(after)) = (old.step.action(Phase::Forward), new.step.action(Phase::Forward)) {
        action(&place, (before, old.written), (after, new.written), changes);
    }
    if old.written.get("when") != new.written.get("when") {
        let what = format!("`when`: {} -> {}", shown(old.written.get("when")), shown(new.written.get("when")));
        changes.push(Change::fine(&place, what, "it runs for other jobs; the others tell it as skipped"));
    }
    if old.step.queue != new.step.queue {
        let what = format!("`queue`: {} -> {}", old.step.queue, new.step.queue);
        changes.push(Change::fine(&place, what, OWN));
    }
    for key in ["verify", "deadline"] {
        if old.written.get(key) != new.written.get(key) {
            let what = format!("`{key}`: {} -> {}", shown(old.written.get(key)), shown(new.written.get(key)));
            changes.push(Change::fine(&place, what, OWN));
        }
    }
    match (old.step.is_idempotent(), new.step.is_idempotent()) {
        (true, false) => {
            let why = "after an unknown outcome `verify` or an operator decides, where it was repeated";
            changes.push(Change::fine(&place, "no longer idempotent", why));
        }
        (false, true) => {
            let why = "after an unknown outcome it is repeated, where `verify` or an operator decided";
            changes.push(Change::fine(&place, "idempotent now", why));
        }
        (true, true) | (false, false) => {}
    }
    let settle = |side: &Side<'_>| (side.written.get("settle").is_some(), side.step.settle_ms());
    if settle(old) != settle(new) && (settle(old).0 || settle(new).0) {
        let what = format!("`settle`: {} -> {}", duration(settle(old).1), duration(settle(new).1));
        changes.push(Change::fine(&place, what, OWN));
    }
    match (old.step.aborts_on_cancel(), new.step.aborts_on_cancel()) {
        (true, false) => changes.push(Change::fine(&place, "`cancel`: abort -> finish", OWN)),
        (false, true) => changes.push(Change::fine(&place, "`cancel`: finish -> abort", OWN)),
        (true, true) | (false, false) => {}
    }
    expose(&place, old.step, new.step, changes);
    compensation(&place, old, new, changes);
}

/// The answer to the caller of a failed job.
fn expose(place: &str, old: &Step, new: &Step, changes: &mut Vec<Change>) {
    let (what, why) = match (old.exposes_failures(), new.exposes_failures()) {
        (true, false) => ("no longer exposed", "callers of a failed job get 502, where they got the step's own 4xx"),
        (false, true) => ("exposed", "callers of a failed job get the step's own 4xx, where they got 502"),
        (true, true) | (false, false) => return,
    };
    changes.push(Change::breaking(place, what, why));
}

fn compensation(place: &str, old: &Side<'_>, new: &Side<'_>, changes: &mut Vec<Change>) {
    let place = format!("{place} compensate");
    match (old.step.action(Phase::Undo), new.step.action(Phase::Undo)) {
        (Some(_), None) => {
            changes.push(Change::breaking(place, "gone", "what the step did stays when the job fails"));
        }
        (None, Some(_)) => changes.push(Change::fine(place, "new", "what the step did is undone when the job fails")),
        (Some(before), Some(after)) => {
            let written = |side: &Side<'_>| side.written.get("compensate").cloned().unwrap_or_default();
            action(&place, (before, &written(old)), (after, &written(new)), changes);
        }
        (None, None) => {}
    }
}

/// The call, its time limit and its retries.
fn action(place: &str, old: (&Action, &Value), new: (&Action, &Value), changes: &mut Vec<Change>) {
    let ((old, old_written), (new, new_written)) = (old, new);
    let (before, after) = (called(old_written), called(new_written));
    for word in before.keys().chain(after.keys().filter(|word| !before.contains_key(*word))) {
        let (before, after) = (before.get(word), after.get(word));
        if before != after {
            changes.push(Change::fine(place, format!("`{word}`: {} -> {}", shown(before), shown(after)), OWN));
        }
    }
    if old.timeout_ms != new.timeout_ms {
        let what = format!("`timeout`: {} -> {}", duration(old.timeout_ms), duration(new.timeout_ms));
        changes.push(Change::fine(place, what, OWN));
    }
    if old.retry != new.retry {
        changes.push(Change::fine(place, format!("`retry`: {} -> {}", retry(old.retry), retry(new.retry)), OWN));
    }
}

/// The call and the data that it sends, word by word, without `expose`, which is the callers' business.
fn called(written: &Value) -> BTreeMap<String, Value> {
    let words = ["native", "with", "auth", "callback", "poll", "simulate"];
    let native = words.into_iter().filter_map(|word| Some((word.to_owned(), written.get(word)?.clone())));
    let http = written.get("http").and_then(Value::as_object).into_iter().flatten();
    let http = http.filter(|(word, _)| *word != "expose").map(|(word, value)| (format!("http.{word}"), value.clone()));
    native.chain(http).collect()
}

fn retry(retry: Retry) -> String {
    let Retry { attempts, backoff_min_ms, backoff_max_ms } = retry;
    format!("{attempts} attempts, {}..{}", duration(backoff_min_ms), duration(backoff_max_ms))
}
