//! Inputs and outputs that make a difference to a flow: a few of each that give every condition each of its values.
//!
//! Every input here is one that the flow's schema accepts, and every output is one that a service may give.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use crate::flow_file::FlowFile;
use crate::probe::{Probe, Truth};
use crate::sample::{Declared, Presence, declared, get, sample, set};
use crate::scan::{Scanned, expressions};

/// Combinations of values that are tried, of an input or of an output.
const COMBINATIONS_MAX: usize = 4_096;

/// The condition of a step.
pub(crate) struct Condition {
    pub(crate) step: usize,
    pub(crate) scanned: Scanned,
    probe: Option<Probe>,
}

/// The values to walk a flow with.
pub(crate) struct Domain {
    pub(crate) inputs: Vec<Value>,
    /// By step: the outputs of its success; one at least.
    pub(crate) outputs: Vec<Vec<Value>>,
    pub(crate) conditions: Vec<Condition>,
    /// True if a condition that is decided by a few values has seen all of them.
    pub(crate) is_exhaustive: bool,
    /// Names of the input that may be absent from an accepted input.
    pub(crate) may_be_absent: BTreeSet<String>,
}

/// A name within an input or an output, and the values to try; none: it is absent.
struct Axis {
    names: Vec<String>,
    values: Vec<Option<Value>>,
}

impl Condition {
    /// The one value that it has for all of these inputs, if a few values decide it, and it reads nothing else.
    pub(crate) fn constant(&self, inputs: &[Value]) -> Option<bool> {
        let reads_input = |path: &String| path == "input" || path.starts_with("input.");
        if !self.scanned.is_simple || !self.scanned.paths.iter().all(reads_input) {
            return None;
        }
        let probe = self.probe.as_ref()?;
        let mut truths = inputs.iter().map(|input| probe.truth(input, &[]));
        let first = truths.next()?;
        let is_constant = truths.all(|truth| truth == first);
        match first {
            Truth::Holds if is_constant => Some(true),
            Truth::Fails if is_constant => Some(false),
            Truth::Holds | Truth::Fails | Truth::Missing | Truth::Error => None,
        }
    }
}

impl Domain {
    /// The values for this flow. `given`: inputs to begin with, in place of one made by the schema. `assumed`: steps
    /// whose conditions are not evaluated.
    pub(crate) fn of(file: &FlowFile, given: &[Value], assumed: &[usize]) -> Self {
        let definition = &file.definition;
        let ids: Vec<String> = definition.steps().iter().map(|step| step.id.clone()).collect();
        let entries = definition.document()["steps"].as_array().map(Vec::as_slice).unwrap_or_default();
        let conditions: Vec<Condition> = entries
            .iter()
            .enumerate()
            .filter(|(step, _)| !assumed.contains(step))
            .filter_map(|(step, entry)| {
                let scanned = expressions(entry.get("when")?).into_iter().next()?;
                Some(Condition { step, probe: Probe::new(&scanned.source, &ids), scanned })
            })
            .collect();
        let read: BTreeSet<String> =
            expressions(definition.document()).into_iter().flat_map(|scanned| scanned.paths).collect();
        let (inputs, inputs_exhaustive, may_be_absent) = inputs(file, given, &conditions, &read);
        let (mut outputs, mut is_exhaustive) = (Vec::new(), inputs_exhaustive);
        for id in &ids {
            let (values, exhaustive) = outputs_of(id, &conditions, &read);
            outputs.push(values);
            is_exhaustive &= exhaustive;
        }
        Self { inputs, outputs, conditions, is_exhaustive, may_be_absent }
    }
}

fn inputs(
    file: &FlowFile,
    given: &[Value],
    conditions: &[Condition],
    read: &BTreeSet<String>,
) -> (Vec<Value>, bool, BTreeSet<String>) {
    let definition = &file.definition;
    let schema = definition.input_schema();
    let names_of = |path: &String| path.split('.').skip(1).map(str::to_owned).collect::<Vec<_>>();
    let of_input = |path: &&String| path.starts_with("input.");
    let of_schema = || schema.map_or_else(|| json!({}), |schema| sample(schema, schema, 0));
    let mut base = definition.scheduled_input().unwrap_or_else(of_schema);
    let mut may_be_absent = BTreeSet::new();
    for path in read.iter().filter(of_input) {
        let names = names_of(path);
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let presence = declared(schema, &names).presence;
        if matches!(presence, Presence::Optional | Presence::Forbidden) {
            may_be_absent.insert(path.clone());
        } else if get(&base, &names).is_none() {
            set(&mut base, &names, Some(json!("x")));
        }
    }
    let asked: BTreeSet<&String> =
        conditions.iter().flat_map(|condition| &condition.scanned.paths).filter(of_input).collect();
    let axes: Vec<Axis> = asked
        .iter()
        .map(|path| {
            let names = names_of(path);
            let refs: Vec<&str> = names.iter().map(String::as_str).collect();
            let values = values(declared(schema, &refs), path, conditions);
            Axis { names, values }
        })
        .collect();
    let bases = if given.is_empty() { vec![base] } else { given.to_vec() };
    let mut all = Vec::new();
    let mut exhaustive = true;
    for base in &bases {
        let (combined, complete) = combine(base, &axes);
        exhaustive &= complete;
        all.push(base.clone());
        all.extend(combined);
    }
    all.retain(|input| definition.validate_input(input).is_empty() && definition.ordering_key(input, "any").is_ok());
    (distinct(all, "input", conditions), exhaustive, may_be_absent)
}

fn outputs_of(step: &str, conditions: &[Condition], read: &BTreeSet<String>) -> (Vec<Value>, bool) {
    let root = format!("steps.{step}.output");
    let inside = format!("{root}.");
    let names_of = |path: &str| path[root.len()..].split('.').skip(1).map(str::to_owned).collect::<Vec<_>>();
    let mut base = json!({});
    for path in read.iter().filter(|path| path.starts_with(&inside)) {
        let names = names_of(path);
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        if get(&base, &names).is_none() {
            set(&mut base, &names, Some(json!("x")));
        }
    }
    let paths = conditions.iter().flat_map(|condition| &condition.scanned.paths);
    let asked: BTreeSet<&String> = paths.filter(|path| **path == root || path.starts_with(&inside)).collect();
    let unknown = Declared { schema: None, presence: Presence::Unknown };
    let axis = |path: &&String| Axis { names: names_of(path), values: values(unknown, path, conditions) };
    let axes: Vec<Axis> = asked.iter().map(axis).collect();
    let (mut all, exhaustive) = combine(&base, &axes);
    all.insert(0, base);
    (distinct(all, &root, conditions), exhaustive)
}

/// Values that give each comparison with a literal each of its results.
fn values(declared: Declared<'_>, path: &str, conditions: &[Condition]) -> Vec<Option<Value>> {
    let asking: Vec<&Scanned> =
        conditions.iter().map(|condition| &condition.scanned).filter(|scanned| scanned.paths.contains(path)).collect();
    let mut values: Vec<Option<Value>> = Vec::new();
    let schema = declared.schema.unwrap_or(&Value::Null);
    if let Some(all) = schema["enum"].as_array() {
        values.extend(all.iter().cloned().map(Some));
    } else if let Some(one) = schema.get("const") {
        values.push(Some(one.clone()));
    } else {
        let bounds = ["minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"].map(|name| &schema[name]);
        let literals = asking.iter().flat_map(|scanned| &scanned.literals);
        for literal in literals.chain(bounds).filter(|literal| !literal.is_null()) {
            values.extend(around(literal).into_iter().map(Some));
        }
        values.extend([json!(true), json!(false)].map(Some));
        if asking.iter().any(|scanned| !scanned.is_simple) {
            values.extend(["", "x", "xx"].map(|text| Some(json!(text))));
            values.extend([json!([]), json!(["x"]), json!({}), json!(0), json!(1)].map(Some));
        }
        values.push(Some(sample(schema, schema, 1)));
        values.push(Some(Value::Null).filter(|_| schema.get("type").is_some()));
    }
    let may_be_absent = match declared.presence {
        Presence::Optional | Presence::Forbidden => true,
        Presence::Unknown => asking.iter().any(|scanned| scanned.has_fallback),
        Presence::Required => false,
    };
    if declared.presence == Presence::Forbidden {
        values.clear();
    }
    values.retain(Option::is_some);
    let mut unique: Vec<Option<Value>> = Vec::new();
    for value in values.into_iter().chain(may_be_absent.then_some(None)) {
        if !unique.contains(&value) {
            unique.push(value);
        }
    }
    unique
}

/// The literal, and what lies beside it.
fn around(literal: &Value) -> Vec<Value> {
    match literal {
        Value::Number(number) => match (number.as_i64(), number.as_f64()) {
            (Some(whole), _) => {
                let half = whole as f64 + 0.5;
                vec![json!(whole), json!(whole.saturating_add(1)), json!(whole.saturating_sub(1)), json!(half)]
            }
            (None, Some(number)) => vec![json!(number), json!(number + 0.5), json!(number - 0.5)],
            (None, None) => Vec::new(),
        },
        Value::String(text) => vec![literal.clone(), json!(format!("{text}x")), json!([text]), json!([])],
        Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => Vec::new(),
    }
}

/// The base with every combination of values, or, if those are too many, with one value changed at a time.
fn combine(base: &Value, axes: &[Axis]) -> (Vec<Value>, bool) {
    let with = |base: &Value, axis: &Axis| -> Vec<Value> {
        let changed = |value: &Option<Value>| {
            let mut changed = base.clone();
            let names: Vec<&str> = axis.names.iter().map(String::as_str).collect();
            set(&mut changed, &names, value.clone()).then_some(changed)
        };
        axis.values.iter().filter_map(changed).collect()
    };
    if axes.is_empty() {
        return (Vec::new(), true);
    }
    let count = axes.iter().try_fold(1_usize, |count, axis| count.checked_mul(axis.values.len().max(1)));
    if count.is_none_or(|count| count > COMBINATIONS_MAX) {
        return (axes.iter().flat_map(|axis| with(base, axis)).collect(), false);
    }
    let all = axes.iter().fold(vec![base.clone()], |all, axis| all.iter().flat_map(|base| with(base, axis)).collect());
    (all, true)
}

/// One value for each behaviour of the conditions that read `root`. Where some can be evaluated, those that make a
/// condition fail for a mere mismatch of kinds are left out.
fn distinct(all: Vec<Value>, root: &str, conditions: &[Condition]) -> Vec<Value> {
    let inside = format!("{root}.");
    let is_mine = |path: &String| path == root || path.starts_with(&inside);
    let reading: Vec<&Condition> =
        conditions.iter().filter(|condition| condition.scanned.paths.iter().any(is_mine)).collect();
    let mut classes: Vec<(String, bool, Value)> = Vec::new();
    let mut known: BTreeMap<String, ()> = BTreeMap::new();
    for value in all {
        let (mut class, mut has_error) = (String::new(), false);
        for condition in &reading {
            let alone = condition.scanned.paths.iter().all(is_mine);
            match &condition.probe {
                Some(probe) if alone => {
                    let truth = truth(probe, root, &value);
                    has_error |= truth == Truth::Error;
                    class.push_str(&format!("{truth:?} "));
                }
                Some(_) | None => {
                    for path in condition.scanned.paths.iter().filter(|path| is_mine(path)) {
                        let names: Vec<&str> = path[root.len()..].split('.').skip(1).collect();
                        class.push_str(&format!("{:?} ", get(&value, &names)));
                    }
                }
            }
        }
        if known.insert(class.clone(), ()).is_none() {
            classes.push((class, has_error, value));
        }
    }
    if classes.iter().any(|(_, has_error, _)| !has_error) {
        classes.retain(|(_, has_error, _)| !has_error);
    }
    classes.into_iter().map(|(_, _, value)| value).collect()
}

fn truth(probe: &Probe, root: &str, value: &Value) -> Truth {
    let step = root.strip_prefix("steps.").and_then(|rest| rest.strip_suffix(".output"));
    match step {
        Some(step) => probe.truth(&json!({}), &[(step.to_owned(), value.clone())]),
        None => probe.truth(value, &[]),
    }
}
