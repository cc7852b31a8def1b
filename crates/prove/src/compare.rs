//! The differences between what a case expects and what happened.

use std::fmt;

use flow::answer::Body;
use flow::definition::Place;
use flow::view::JobView;
use serde_json::{Map, Value, json};

use crate::case::{CallName, Case, ExpectedCall, Run};

/// One difference.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// The line of the expectation, from 1; 0 where the case says nothing of it.
    pub line: u32,
    /// What is different.
    pub what: String,
    /// The expected value.
    pub expected: String,
    /// The value that it has.
    pub got: String,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.what)?;
        writeln!(f, "  expected  {}", self.expected.replace('\n', "\n            "))?;
        write!(f, "  got       {}", self.got.replace('\n', "\n            "))
    }
}

/// Everything that is not as the case expects.
pub(crate) fn compare(case: &Case, run: &Run) -> Vec<Difference> {
    let mut all = Vec::new();
    let mut differs = |place: Place, what: &str, expected: String, got: String| {
        if expected != got {
            all.push(Difference { line: place.line, what: what.to_owned(), expected, got });
        }
    };
    let expected = &case.expected;
    if let Some(stopped) = &run.stopped {
        differs(Place::default(), "the run", "an end".to_owned(), stopped.clone());
    }
    let view = run.view.as_ref();
    if let Some((status, place)) = &expected.status {
        let got = view.map_or("none", |view| view.status.as_str());
        let because =
            view.and_then(|view| view.error.as_ref()).map(|error| format!(" ({}: {})", error.step, error.message));
        let told = if got == status { got.to_owned() } else { format!("{got}{}", because.unwrap_or_default()) };
        differs(*place, "status", status.clone(), told);
    }
    if let Some((result, place)) = &expected.result {
        let got = view.and_then(|view| view.result.as_ref()).unwrap_or(&Value::Null);
        if !same(result, got) {
            differs(*place, "result", result.to_string(), got.to_string());
        }
    }
    if let Some((answer, place)) = &expected.answer {
        let got = view.map_or(Value::Null, answered);
        let fits = |part: &str| match part {
            "headers" => answer.get(part).is_none_or(|expected| covers(expected, &got[part])),
            part => answer.get(part).is_none_or(|expected| same(expected, &got[part])),
        };
        if !["status", "headers", "body"].into_iter().all(fits) {
            differs(*place, "answer", answer.to_string(), got.to_string());
        }
    }
    if let Some((error, place)) = &expected.error {
        let got = view.and_then(|view| view.error.as_ref()).map_or(Value::Null, flow::slip::Failure::to_json);
        if !covers(error, &got) {
            differs(*place, "error", error.to_string(), got.to_string());
        }
    }
    if let Some((steps, place)) = &expected.compensated {
        let got = view.and_then(|view| view.compensation.as_ref()).map(|undone| undone.undone.join(", "));
        differs(*place, "compensated", steps.join(", "), got.unwrap_or_default());
    }
    if let Some((calls, place)) = &expected.calls {
        let (expected, got) =
            (names(calls.iter().map(|call| &call.name)), names(run.calls.iter().map(|(name, _)| name)));
        if expected == got {
            all.extend(differences_of_requests(calls, run));
        } else {
            differs(*place, "calls", expected, got);
        }
    }
    all
}

/// The answer to a caller who waits.
fn answered(view: &JobView) -> Value {
    let result = view.result.clone().unwrap_or_default();
    let Some(answer) = &view.answer else { return json!({ "status": 200, "headers": {}, "body": result }) };
    let headers: Map<String, Value> =
        answer.headers.iter().map(|(name, value)| (name.clone(), value.as_str().into())).collect();
    let body = match &answer.body {
        Body::OfResult => result,
        Body::Value(value) => value.clone(),
        Body::Bytes(bytes) => String::from_utf8_lossy(bytes).into_owned().into(),
    };
    json!({ "status": answer.status, "headers": headers, "body": body })
}

fn names<'c>(calls: impl Iterator<Item = &'c CallName>) -> String {
    calls.map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

fn differences_of_requests(calls: &[ExpectedCall], run: &Run) -> Vec<Difference> {
    let mut all = Vec::new();
    for (number, (call, (_, request))) in (1..).zip(calls.iter().zip(&run.calls)) {
        for (part, expected, place) in &call.parts {
            let got = &request[part];
            let fits = if part == "headers" { covers(expected, got) } else { same(expected, got) };
            if !fits {
                let what = format!("call {number}, {}: {part}", call.name);
                let told = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
                all.push(Difference { line: place.line, what, expected: told(expected), got: told(got) });
            }
        }
    }
    all
}

/// Equal, whatever the order of keys.
fn same(one: &Value, other: &Value) -> bool {
    match (one, other) {
        (Value::Object(one), Value::Object(other)) => {
            one.len() == other.len() && one.iter().all(|(key, value)| other.get(key).is_some_and(|it| same(value, it)))
        }
        (Value::Array(one), Value::Array(other)) => {
            one.len() == other.len() && one.iter().zip(other).all(|(one, other)| same(one, other))
        }
        _ => one == other,
    }
}

/// Every entry of the expected mapping is there.
fn covers(expected: &Value, got: &Value) -> bool {
    match expected {
        Value::Object(entries) => entries.iter().all(|(key, value)| got.get(key).is_some_and(|it| same(value, it))),
        _ => same(expected, got),
    }
}
