//! The meaning of a flow's change for its callers and the followers of its jobs: breaking or not, and why. Pure.
//!
//! A change is breaking if a caller who used the flow correctly may notice it: another address, an input that is
//! refused now, a result that lacks something, a step without events, a failure that ends otherwise. The work of a
//! step (its call, time limit, retries, queue) is the flow's own: jobs under way stay on the version that they began
//! with.

use std::fmt;

use serde_json::Value;

use crate::definition::{Answers, Definition, OnFailure, Trigger};
use crate::flags::{Flags, Rules};

mod input;
mod result;
pub mod schema;
mod steps;

/// Characters of a value that are shown.
const SHOWN_CHARS_MAX: usize = 60;

/// One difference.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// The place of the difference: `route`, `input /qty`, `step charge`.
    pub place: String,
    /// The difference.
    pub what: String,
    /// Its consequence, and for whom.
    pub why: String,
    /// True if a caller who used the flow correctly may notice it.
    pub is_breaking: bool,
}

impl Change {
    fn breaking(place: impl Into<String>, what: impl Into<String>, why: impl Into<String>) -> Self {
        Self { place: place.into(), what: what.into(), why: why.into(), is_breaking: true }
    }

    fn fine(place: impl Into<String>, what: impl Into<String>, why: impl Into<String>) -> Self {
        Self { is_breaking: false, ..Self::breaking(place, what, why) }
    }
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let verdict = if self.is_breaking { "breaking" } else { "fine" };
        write!(f, "{verdict:<8}  {}: {}; {}", self.place, self.what, self.why)
    }
}

/// The differences of one flow.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FlowDiff {
    pub flow: String,
    /// The old version; none for a new flow.
    pub old: Option<String>,
    /// The new version; none for a flow that is gone.
    pub new: Option<String>,
    /// The differences, breaking changes first.
    pub changes: Vec<Change>,
}

impl FlowDiff {
    /// True if any change is breaking.
    pub fn is_breaking(&self) -> bool {
        self.changes.iter().any(|change| change.is_breaking)
    }
}

/// The flows that differ, by name.
pub fn flows(old: &[Definition], new: &[Definition]) -> Vec<FlowDiff> {
    let mut names: Vec<&str> = old.iter().chain(new).map(Definition::name).collect();
    names.sort_unstable();
    names.dedup();
    let of = |list: &[Definition], name: &str| list.iter().find(|definition| definition.name() == name).cloned();
    let diff = |name: &str| {
        let (old, new) = (of(old, name), of(new, name));
        let changes = match (&old, &new) {
            (Some(old), Some(new)) if old.version() == new.version() => return None,
            (Some(old), Some(new)) => changes(old, new),
            (Some(old), None) => vec![gone(old)],
            (None, _) => vec![Change::fine("flow", "new", "nobody relies on it yet")],
        };
        let version = |definition: Option<Definition>| definition.map(|definition| definition.version().to_owned());
        Some(FlowDiff { flow: name.to_owned(), old: version(old), new: version(new), changes })
    };
    names.into_iter().filter_map(diff).collect()
}

fn gone(old: &Definition) -> Change {
    Change::breaking("flow", "gone", format!("callers of {} get 404 where it is not applied", addresses(old)))
}

fn addresses(definition: &Definition) -> String {
    let general = format!("`POST /v1/flows/{}/jobs`", definition.name());
    match definition.route() {
        Some(route) => format!("`{} {}` and {general}", route.method, route.path),
        None => general,
    }
}

/// The differences between two versions of one flow, breaking changes first.
pub fn changes(old: &Definition, new: &Definition) -> Vec<Change> {
    let mut changes = route(old, new);
    changes.extend(input::changes(old, new));
    changes.extend(input::upload(old, new));
    changes.extend(trigger(old, new));
    changes.extend(key(old, new));
    changes.extend(ends(old, new));
    changes.extend(steps::changes(old, new));
    changes.extend(result::changes(old, new));
    changes.extend(result_ttl(old, new));
    changes.extend(retention(old, new));
    if old.summary() != new.summary() {
        changes.push(Change::fine("summary", "worded differently", "it is for people"));
    }
    if changes.is_empty() && old.version() != new.version() {
        changes.push(Change::fine("flow", "written differently", "it does the same"));
    }
    changes.sort_by_key(|change| !change.is_breaking);
    changes
}

fn trigger(old: &Definition, new: &Definition) -> Option<Change> {
    let [before, after] = [old, new].map(|flow| &flow.document()["on"]);
    if before == after {
        return None;
    }
    let verify = |flow: &Definition| flow.trigger().and_then(Trigger::webhook).map(|webhook| webhook.verify);
    let what = format!("{} -> {}", shown(Some(before)), shown(Some(after)));
    let address = format!("`POST /v1/flows/{}/webhook`", new.name());
    Some(match (verify(old), verify(new)) {
        (Some(_), None) => Change::breaking("on", what, format!("senders of {address} get 404")),
        (Some(before), Some(after)) if before != after => {
            Change::breaking("on", what, format!("senders of {address} that sign as before get 401"))
        }
        (None | Some(_), _) => Change::fine("on", what, "jobs start at other times or by other records, not requests"),
    })
}

fn route(old: &Definition, new: &Definition) -> Vec<Change> {
    let (before, after) = (old.route(), new.route());
    if before == after {
        return terms(old, new);
    }
    let mut changes = Vec::new();
    if let Some(route) = before {
        let why = format!("its callers get 404 or 405; `POST /v1/flows/{}/jobs` stays", new.name());
        changes.push(Change::breaking("route", format!("`{} {}` is gone", route.method, route.path), why));
    }
    if let Some(route) = after {
        let what = format!("`{} {}` is new", route.method, route.path);
        changes.push(Change::fine("route", what, "one more address of the flow"));
    }
    changes
}

/// The terms of an address that stays. Flags may stand over them, of which nothing is known here.
fn terms(old: &Definition, new: &Definition) -> Vec<Change> {
    let none = Flags::default();
    let (before, after) = (Rules::of(old, &none), Rules::of(new, &none));
    let mut changes = Vec::new();
    if before.answers() != after.answers() {
        let what = format!("answers {} -> {}", before.answers().as_str(), after.answers().as_str());
        changes.push(match (before.answers(), after.answers()) {
            (Answers::Sync, Answers::Auto) | (Answers::Auto, Answers::Sync) => {
                Change::fine("route", what, "only callers who allow 202 may see a difference")
            }
            _ => Change::breaking("route", what, "callers get another form of answer than before"),
        });
    }
    if old.has_upstream() != new.has_upstream() {
        let (what, why) = match new.has_upstream() {
            true => ("an old service stands behind it", "without flags it answers every request in place of a job"),
            false => {
                ("no old service stands behind it any more", "every request becomes a job, whatever the flags say")
            }
        };
        changes.push(Change::breaking("route", what, why));
    }
    if before.hold_ms() > after.hold_ms() {
        let what = format!("hold {} -> {}", duration(before.hold_ms()), duration(after.hold_ms()));
        changes.push(Change::breaking("route", what, "callers who wait for the outcome get 504 earlier"));
    }
    changes
}

fn key(old: &Definition, new: &Definition) -> Option<Change> {
    let (before, after) = (old.document().get("key"), new.document().get("key"));
    let why = "jobs are kept in order by something else than before; inputs that lack it get 422";
    (before != after).then(|| Change::breaking("key", format!("{} -> {}", shown(before), shown(after)), why))
}

/// `deadline`, `on_failure` and `sandbox`: how a job may end; `priority`: whether it may begin.
fn ends(old: &Definition, new: &Definition) -> Vec<Change> {
    let mut changes = Vec::new();
    let (before, after) = (old.deadline_ms(), new.deadline_ms());
    let shown = |deadline: Option<u64>| deadline.map_or_else(|| "none".to_owned(), duration);
    let what = format!("{} -> {}", shown(before), shown(after));
    match (before.unwrap_or(u64::MAX), after.unwrap_or(u64::MAX)) {
        (before, after) if after < before => {
            changes.push(Change::breaking("deadline", what, "jobs that ended in time may now fail with 504"));
        }
        (before, after) if after > before => {
            changes.push(Change::fine("deadline", what, "jobs may take longer before they fail with 504"));
        }
        _ => {}
    }
    match (old.on_failure(), new.on_failure()) {
        (OnFailure::Compensate, OnFailure::Park) => changes.push(Change::breaking(
            "on_failure",
            "compensate -> park",
            "a job that fails no longer ends: it waits for an operator, and so do its callers",
        )),
        (OnFailure::Park, OnFailure::Compensate) => changes.push(Change::fine(
            "on_failure",
            "park -> compensate",
            "a job that fails is undone and ends, where it waited for an operator",
        )),
        (OnFailure::Compensate, OnFailure::Compensate) | (OnFailure::Park, OnFailure::Park) => {}
    }
    match (old.is_sandbox(), new.is_sandbox()) {
        (false, true) => {
            let why = "its jobs end as before, but nothing is done";
            changes.push(Change::breaking("sandbox", "false -> true", why));
        }
        (true, false) => changes.push(Change::fine("sandbox", "true -> false", "its calls are made")),
        (true, true) | (false, false) => {}
    }
    let (before, after) = (old.priority(), new.priority());
    if before != after {
        let what = format!("{} -> {}", before.as_str(), after.as_str());
        changes.push(Change::fine("priority", what, "new jobs are refused earlier or later where a queue is behind"));
    }
    changes
}

fn result_ttl(old: &Definition, new: &Definition) -> Option<Change> {
    let (before, after) = (old.result_ttl_ms(), new.result_ttl_ms());
    let shown = |ttl: Option<u64>| ttl.map_or_else(|| "none".to_owned(), duration);
    let what = format!("{} -> {}", shown(before), shown(after));
    match (before.unwrap_or(u64::MAX), after.unwrap_or(u64::MAX)) {
        (before, after) if after < before => {
            Some(Change::breaking("result_ttl", what, "results that callers still got may now be gone (410)"))
        }
        (before, after) if after > before => Some(Change::fine("result_ttl", what, "results are there for longer")),
        _ => None,
    }
}

fn retention(old: &Definition, new: &Definition) -> Option<Change> {
    let (before, after) = (old.retention_ms(), new.retention_ms());
    let shown = |time: Option<u64>| time.map_or_else(|| "none".to_owned(), duration);
    let what = format!("{} -> {}", shown(before), shown(after));
    match (before, after) {
        (before, after) if before == after => None,
        (before, Some(after)) if before.is_none_or(|before| after < before) => {
            Some(Change::breaking("retention", what, "jobs that callers still found may now be unknown (404)"))
        }
        _ => Some(Change::fine("retention", what, "jobs are kept for another time")),
    }
}

/// A value in a message: compact, and cut where it is long.
fn shown(value: Option<&Value>) -> String {
    let text = value.map_or_else(|| "none".to_owned(), Value::to_string);
    match text.char_indices().nth(SHOWN_CHARS_MAX) {
        Some((end, _)) => format!("{}...", text.get(..end).unwrap_or_default()),
        None => text,
    }
}

/// A time as flow files write it, in the largest unit in which it is whole.
fn duration(ms: u64) -> String {
    const UNITS: &[(u64, &str)] = &[(86_400_000, "d"), (3_600_000, "h"), (60_000, "m"), (1_000, "s")];
    let whole = UNITS.iter().find(|(unit_ms, _)| ms >= *unit_ms && ms.is_multiple_of(*unit_ms));
    whole.map_or_else(|| format!("{ms}ms"), |(unit_ms, name)| format!("{}{name}", ms / unit_ms))
}

#[cfg(test)]
mod tests;
