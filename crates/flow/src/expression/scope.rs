//! The values that an expression can use.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::sync::Arc;

use minijinja::value::Value;
use serde_json::Value as Json;

use super::tracked::{Fields, Misses, wrap};
use crate::answer::StepAnswer;
use crate::slip::Slip;

/// The values that an expression can use. One that is none cannot be named: definitions are checked for it.
#[derive(Clone, Copy)]
pub(crate) struct Scope<'a> {
    /// `input`
    pub(crate) input: &'a Json,
    /// `steps` and `job`
    pub(crate) slip: Option<&'a Slip>,
    /// `step`
    pub(crate) step: Option<StepScope<'a>>,
    /// `env` and `secrets`
    pub(crate) env: Option<&'a crate::decide::Env>,
    /// More names, known in this place only: `callback` and `progress`, or `response`.
    pub(crate) more: &'a [(&'a str, &'a Json)],
}

/// `step.*`
#[derive(Clone, Copy)]
pub(crate) struct StepScope<'a> {
    pub(crate) idempotency_key: &'a str,
    pub(crate) attempt: u32,
}

/// One evaluation of several expressions over one scope.
pub(crate) struct Evaluation<'a> {
    scope: Scope<'a>,
    misses: Arc<Misses>,
    /// Roots that were already converted.
    roots: RefCell<BTreeMap<String, Value>>,
}

impl<'a> Evaluation<'a> {
    pub(crate) fn new(scope: Scope<'a>) -> Self {
        Self { scope, misses: Arc::default(), roots: RefCell::default() }
    }

    pub(super) fn misses(&self) -> &Misses {
        &self.misses
    }

    /// The context for an expression that reads these paths. Only what is read is converted.
    pub(super) fn root<'p>(&self, paths: impl Iterator<Item = &'p str>) -> Value {
        let mut entries: Vec<(String, Value)> = Vec::new();
        for path in paths {
            let name = path.split('.').next().unwrap_or(path);
            if !entries.iter().any(|(known, _)| known == name)
                && let Some(value) = self.root_value(name)
            {
                entries.push((name.to_owned(), value));
            }
        }
        Value::from_object(Roots(entries))
    }

    fn root_value(&self, name: &str) -> Option<Value> {
        if let Some(value) = self.roots.borrow().get(name) {
            return Some(value.clone());
        }
        let value = match name {
            "input" => wrap(self.scope.input, "input", &self.misses),
            "steps" => self.steps(self.scope.slip?),
            "job" => self.job(self.scope.slip?),
            "step" => self.step(self.scope.slip?, self.scope.step?),
            "env" => self.texts("env", &self.scope.env?.vars),
            "secrets" => self.texts("secrets", &self.scope.env?.secrets),
            name => {
                let (known, value) = self.scope.more.iter().find(|(known, _)| *known == name)?;
                wrap(value, known, &self.misses)
            }
        };
        self.roots.borrow_mut().insert(name.to_owned(), value.clone());
        Some(value)
    }

    /// `steps.<id>.output`, absent where the outcome is unknown; `status` and `headers`, where they were kept.
    fn steps(&self, slip: &Slip) -> Value {
        let mut entries: Vec<(String, Value)> = Vec::with_capacity(slip.done.len());
        for done in &slip.done {
            let path = format!("steps.{}", done.step);
            let output = done.output.as_ref().map(|output| wrap(output, &format!("{path}.output"), &self.misses));
            let mut fields: Vec<_> = output.map(|output| ("output".to_owned(), output)).into_iter().collect();
            let is_own = |answer: &&StepAnswer| answer.step == done.step && answer.visit == done.visit;
            if let Some(answer) = slip.answers.iter().find(is_own) {
                let text = |(name, value): &(String, String)| (name.clone(), Value::from(value.as_str()));
                let headers = answer.headers.iter().map(text).collect();
                fields.push(("status".to_owned(), Value::from(answer.status)));
                let headers = Fields::value(format!("{path}.headers"), headers, &self.misses);
                fields.push(("headers".to_owned(), headers));
            }
            entries.retain(|(step, _)| *step != done.step);
            entries.push((done.step.clone(), Fields::value(path, fields, &self.misses)));
        }
        Fields::value("steps", entries, &self.misses)
    }

    fn job(&self, slip: &Slip) -> Value {
        let entries = vec![
            ("id".to_owned(), Value::from(slip.job.to_string())),
            ("correlation_id".to_owned(), Value::from(slip.correlation_id.as_str())),
            ("tenant".to_owned(), Value::from(slip.tenant.as_str())),
            ("flow".to_owned(), Value::from(slip.flow.as_str())),
        ];
        Fields::value("job", entries, &self.misses)
    }

    fn step(&self, slip: &Slip, step: StepScope<'_>) -> Value {
        let entries = vec![
            ("id".to_owned(), Value::from(slip.step.as_str())),
            ("idempotency_key".to_owned(), Value::from(step.idempotency_key)),
            ("visit".to_owned(), Value::from(slip.visit)),
            ("attempt".to_owned(), Value::from(step.attempt)),
        ];
        Fields::value("step", entries, &self.misses)
    }

    fn texts(&self, path: &str, texts: &BTreeMap<String, String>) -> Value {
        let entries = texts.iter().map(|(name, text)| (name.clone(), Value::from(text.as_str()))).collect();
        Fields::value(path, entries, &self.misses)
    }
}

/// The outermost names. Unlike [`Fields`] it leaves unknown names to the functions of the language (`range`, `dict`).
#[derive(Debug)]
struct Roots(Vec<(String, Value)>);

impl minijinja::value::Object for Roots {
    fn get_value(self: &Arc<Self>, key: &Value) -> Option<Value> {
        let name = key.as_str()?;
        self.0.iter().find(|(known, _)| known == name).map(|(_, value)| value.clone())
    }
}
