//! The value of one expression, by the flow's own code: as the result of a job whose steps are done.

use flow::decide::{Decision, NewJob, Next, Outcome, advance, start};
use flow::definition::Definition;
use flow::event::{EventKind, JobEvent};
use flow::id::JobId;
use flow::slip::{CarriedStep, Completed, Slip};
use serde_json::{Value, json};

/// Every job here has this id: nothing depends on it but the jitter of delays.
const JOB: &str = "00000000-0000-7000-8000-000000000001";
const TENANT: &str = "default";
/// The step whose success asks for the value. No flow may name a step so: it is longer than names are.
const LAST: &str = "prove_asks_for_the_value_of_one_expression_after_all_the_steps";

/// One expression, ready to be asked for its value.
pub(crate) struct Probe(Definition);

/// The value of a condition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Truth {
    Holds,
    Fails,
    /// It reads a value that is not there.
    Missing,
    /// It cannot be evaluated for another reason.
    Error,
}

impl Probe {
    /// None for what is no expression.
    pub(crate) fn new(source: &str, steps: &[String]) -> Option<Self> {
        let steps: Vec<Value> = steps
            .iter()
            .map(String::as_str)
            .chain([LAST])
            .map(|id| json!({ "id": id, "native": "nothing", "retry": { "attempts": 1 } }))
            .collect();
        let document = json!({ "flow": "probe", "steps": steps, "result": format!("{{{{ {source} }}}}") });
        Definition::from_document(&document).ok().map(Self)
    }

    /// The condition's value where these steps were done with these outputs.
    pub(crate) fn truth(&self, input: &Value, outputs: &[(String, Value)]) -> Truth {
        let Some(slip) = first_slip(start(&self.0, new_job(input.clone(), String::new()), 0)) else {
            return Truth::Error;
        };
        let done = outputs.iter().map(|(step, output)| completed(step, output.clone())).collect();
        let slip = Slip { step: LAST.to_owned(), done, ..slip };
        let decision = advance(&self.0, &slip, Outcome::done(Value::Null), 0);
        let answer = decision.events.iter().find(|event| event.kind == EventKind::JobSucceeded);
        match answer.and_then(|event| event.data.as_ref()) {
            Some(Value::Bool(true)) => Truth::Holds,
            Some(Value::Bool(false)) => Truth::Fails,
            Some(_) => Truth::Error,
            None if decision.events.iter().filter_map(message_of).any(|text| missing_path(text).is_some()) => {
                Truth::Missing
            }
            None => Truth::Error,
        }
    }
}

/// A job with this input.
pub(crate) fn new_job(input: Value, correlation_id: String) -> NewJob {
    NewJob {
        job: JOB.parse::<JobId>().expect("it is a UUID"),
        tenant: TENANT.to_owned(),
        key: "key".to_owned(),
        input,
        correlation_id,
        priority: 1,
        retry_of: None,
    }
}

/// A slip of a job with this input that has come to no step yet.
pub(crate) fn blank_slip(input: Value, correlation_id: String) -> Option<Slip> {
    let document = json!({ "flow": "blank", "steps": [{ "id": "none", "native": "none" }] });
    let definition = Definition::from_document(&document).ok()?;
    let slip = first_slip(start(&definition, new_job(input, correlation_id), 0))?;
    Some(Slip { step: String::new(), visit: 0, hop: 0, ..slip })
}

fn first_slip(decision: Decision) -> Option<Slip> {
    match decision.next {
        Next::Step { slip, .. } => Some(slip),
        Next::RetryNow { .. } | Next::Hold(_) | Next::End => None,
    }
}

fn completed(step: &str, output: Value) -> Completed {
    Completed {
        step: step.to_owned(),
        visit: 1,
        output: Some(output),
        uncertain: false,
        undone: false,
        carried: CarriedStep::default(),
    }
}

/// The message of the failure that an event carries.
pub(crate) fn message_of(event: &JobEvent) -> Option<&str> {
    event.data.as_ref()?.get("message")?.as_str()
}

/// The name that a message of the expressions says is missing.
pub(crate) fn missing_path(message: &str) -> Option<&str> {
    let before = message.split("` is missing in `{{").next().filter(|before| before.len() < message.len())?;
    before.rsplit('`').next()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_probe_answers_as_the_flow_would() {
        let steps = ["check".to_owned()];
        let truth = |source: &str, outputs: &[(String, Value)]| {
            Probe::new(source, &steps).expect("an expression").truth(&json!({ "n": 3 }), outputs)
        };
        let checked = [("check".to_owned(), json!({ "risk": "high" }))];
        assert_eq!(truth("input.n > 2", &[]), Truth::Holds);
        assert_eq!(truth("input.n < 2", &[]), Truth::Fails);
        assert_eq!(truth("steps.check.output.risk == 'high'", &checked), Truth::Holds);
        assert_eq!(truth("steps.check.output.risk == 'high'", &[]), Truth::Missing);
        assert_eq!(truth("input.n == 'three'", &[]), Truth::Error);
        assert_eq!(truth("input.n", &[]), Truth::Error, "no truth at all");
    }

    #[test]
    fn the_missing_name_is_read_out_of_a_message() {
        assert_eq!(missing_path("`when`: `steps.a.output.id` is missing in `{{ x }}`"), Some("steps.a.output.id"));
        assert_eq!(missing_path("`{{ x }}` cannot be evaluated"), None);
    }
}
