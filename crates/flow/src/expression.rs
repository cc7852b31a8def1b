//! Expressions: `{{ input.sku }}` within the texts of a flow.
//!
//! A text that is exactly one `{{ }}` keeps the value's JSON type; other texts become text. A missing value is an error
//! that names it, unless `default` or `is defined` asks for it. Expressions are compiled once and evaluated with fuel.
//! A number that is only passed on stays as it was written.
//!
//! Invariant: no statements (`{% %}`), no macros, no includes: only expressions.

use std::collections::BTreeSet;
use std::sync::LazyLock;

use minijinja::{Environment, UndefinedBehavior};
use serde_json::{Map, Value};

mod bounded;
mod guard;
mod link;
mod operation;
mod output;
mod rewrite;
mod scan;
mod scope;
mod tracked;
mod url;
mod written;

pub(crate) use link::{LINK_BYTES_MAX, follow};
pub(crate) use scan::{Part, split};
pub(crate) use scope::{Evaluation, Scope, StepScope};
pub(crate) use url::UrlTemplate;

/// Instructions that one evaluation may take; an everyday expression takes fewer than a hundred.
const FUEL: u64 = 20_000;
/// Bytes of text that one rendered text may have.
const TEXT_BYTES_MAX: usize = 1024 * 1024;

/// The names of what each worker is given for itself.
const SURROUNDINGS: [&str; 2] = ["env", "secrets"];

/// A failed evaluation. Its message names paths, never values.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub(crate) struct ExpressionError {
    message: String,
    /// The name in the worker's surroundings that is not there: `env.NAME`, `secrets.NAME`.
    not_configured: Option<String>,
}

impl ExpressionError {
    pub(crate) fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), not_configured: None }
    }

    /// The name in the worker's surroundings that is not there, if that is the reason.
    pub(crate) fn not_configured(&self) -> Option<&str> {
        self.not_configured.as_deref()
    }

    /// With the path that is missing; only one of the surroundings says anything about the worker.
    fn missing(self, path: &str) -> Self {
        let of_worker = path.split('.').next().is_some_and(|root| SURROUNDINGS.contains(&root));
        Self { not_configured: of_worker.then(|| path.to_owned()), ..self }
    }
}

static ENVIRONMENT: LazyLock<Environment<'static>> = LazyLock::new(|| {
    let mut environment = Environment::new();
    environment.set_undefined_behavior(UndefinedBehavior::Strict);
    environment.set_fuel(Some(FUEL));
    environment.set_debug(false);
    environment.set_auto_escape_callback(|_| minijinja::AutoEscape::None);
    environment.remove_global("debug");
    environment.add_filter("default", tracked::default);
    environment.add_filter("d", tracked::default);
    environment.add_test("defined", tracked::is_defined);
    environment.add_test("undefined", tracked::is_undefined);
    environment.add_filter("tojson", output::to_json_text);
    operation::install(&mut environment);
    bounded::install(&mut environment);
    environment
});

/// One compiled `{{ }}`.
pub(crate) struct Expression {
    source: String,
    compiled: minijinja::Expression<'static, 'static>,
    /// The dotted paths that it reads, `input.sku`.
    paths: BTreeSet<String>,
}

impl Expression {
    pub(crate) fn compile(source: &str) -> Result<Self, ExpressionError> {
        let source = source.trim().to_owned();
        if source.is_empty() {
            return Err(ExpressionError::new("`{{ }}` holds no expression"));
        }
        let failure =
            |detail: &str| ExpressionError::new(format!("`{{{{ {source} }}}}` is not an expression: {detail}"));
        let compile = |text: &str| {
            let compiled = ENVIRONMENT.compile_expression_owned(text.to_owned());
            compiled.map_err(|error| failure(error.detail().unwrap_or("it cannot be parsed")))
        };
        compile(&source)?;
        check_names(&source)?;
        let compiled = compile(&rewrite::rewrite(&source).ok_or_else(|| failure("it cannot be parsed"))?)?;
        let paths = compiled.undeclared_variables(true).into_iter().filter(|path| !is_function(path)).collect();
        Ok(Self { source, compiled, paths })
    }

    /// The text between the braces.
    pub(crate) fn source(&self) -> &str {
        &self.source
    }

    /// The dotted paths that it reads.
    pub(crate) fn paths(&self) -> impl Iterator<Item = &str> {
        self.paths.iter().map(String::as_str)
    }

    /// True if it has a fallback for an absent value.
    pub(crate) fn has_fallback(&self) -> bool {
        let dense: String = self.source.chars().filter(|c| !c.is_whitespace()).collect();
        ["|default(", "|d(", "isdefined", "isundefined", "isnotdefined"].iter().any(|word| dense.contains(word))
    }

    /// True if it has a fallback for the output of this step, wherever it reads it.
    pub(crate) fn has_fallback_for(&self, step: &str) -> bool {
        guard::covers(&self.source, step)
    }

    /// A literal with a fallback: it is never missing, so another value was meant.
    pub(crate) fn idle_fallback(&self) -> Option<&str> {
        guard::idle(&self.source)
    }

    pub(crate) fn evaluate(&self, evaluation: &Evaluation<'_>) -> Result<Value, ExpressionError> {
        evaluation.misses().clear();
        let result = self.compiled.eval(evaluation.root(self.paths()));
        if let Some(path) = evaluation.misses().first_unhandled() {
            let error = ExpressionError::new(format!("`{path}` is missing in `{{{{ {} }}}}`", self.source));
            return Err(error.missing(&path));
        }
        let value = result.map_err(|error| self.failure(&error))?;
        if value.is_undefined() {
            return Err(self.unnamed(format!("`{{{{ {} }}}}` has no value", self.source)));
        }
        output::to_json(&value).map_err(|error| self.failure(&error))
    }

    fn failure(&self, error: &minijinja::Error) -> ExpressionError {
        match error.kind() {
            minijinja::ErrorKind::UndefinedError => {
                self.unnamed(format!("a value is missing in `{{{{ {} }}}}`", self.source))
            }
            minijinja::ErrorKind::OutOfFuel => self.failure_text("it takes too long"),
            kind => match error.detail() {
                Some(detail) => self.failure_text(&format!("{kind}: {detail}")),
                None => self.failure_text(&kind.to_string()),
            },
        }
    }

    /// A value is missing that was not looked up by a plain name: `env[name]` does not tell which.
    fn unnamed(&self, message: String) -> ExpressionError {
        let error = ExpressionError::new(message);
        match self.paths().find(|path| SURROUNDINGS.contains(path)) {
            Some(root) => error.missing(root),
            None => error,
        }
    }

    fn failure_text(&self, detail: &str) -> ExpressionError {
        ExpressionError::new(format!("`{{{{ {} }}}}` cannot be evaluated: {detail}", self.source))
    }
}

/// The engine looks filters and tests up when it runs; a flow should hear of a wrong one before.
fn check_names(source: &str) -> Result<(), ExpressionError> {
    let known = |question: &str, name: &str| {
        let asked = ENVIRONMENT.compile_expression_owned(format!("'{name}' is {question}"));
        asked.and_then(|asked| asked.eval(())).is_ok_and(|answer| answer.is_true())
    };
    let (filters, tests) = scan::filters_and_tests(source);
    if let Some(name) = filters.iter().find(|name| !known("filter", name)) {
        return Err(ExpressionError::new(format!("there is no filter `{name}` in `{{{{ {source} }}}}`")));
    }
    match tests.iter().find(|name| !known("test", name)) {
        Some(name) => Err(ExpressionError::new(format!("there is no test `{name}` in `{{{{ {source} }}}}`"))),
        None => Ok(()),
    }
}

fn is_function(path: &str) -> bool {
    ENVIRONMENT.globals().any(|(name, _)| name == path)
}

/// A JSON value in whose texts expressions may stand.
pub(crate) enum Template {
    /// No expression anywhere in it.
    Literal(Value),
    /// A text that is exactly one expression: its type is kept.
    Expression(Expression),
    /// A text with expressions in it.
    Text(Vec<Part>),
    List(Vec<Template>),
    /// A map, in the order of the document.
    Map(Vec<(String, Template)>),
}

impl Template {
    /// Compiles a text.
    pub(crate) fn text(text: &str) -> Result<Self, ExpressionError> {
        let mut parts = split(text)?;
        Ok(match parts.len() {
            0 => Self::Literal(Value::String(String::new())),
            1 => match parts.remove(0) {
                Part::Literal(text) => Self::Literal(Value::String(text)),
                Part::Expression(expression) => Self::Expression(expression),
            },
            _ => Self::Text(parts),
        })
    }

    /// Every expression in it.
    pub(crate) fn expressions(&self) -> Vec<&Expression> {
        match self {
            Self::Literal(_) => Vec::new(),
            Self::Expression(expression) => vec![expression],
            Self::Text(parts) => parts.iter().filter_map(Part::expression).collect(),
            Self::List(items) => items.iter().flat_map(Self::expressions).collect(),
            Self::Map(entries) => entries.iter().flat_map(|(_, template)| template.expressions()).collect(),
        }
    }

    pub(crate) fn render(&self, evaluation: &Evaluation<'_>) -> Result<Value, ExpressionError> {
        match self {
            Self::Literal(value) => Ok(value.clone()),
            Self::Expression(expression) => expression.evaluate(evaluation),
            Self::Text(parts) => render_text(parts, evaluation).map(Value::String),
            Self::List(items) => items.iter().map(|item| item.render(evaluation)).collect(),
            Self::Map(entries) => {
                let mut map = Map::with_capacity(entries.len());
                for (key, template) in entries {
                    map.insert(key.clone(), template.render(evaluation)?);
                }
                Ok(Value::Object(map))
            }
        }
    }

    /// Renders to a text: numbers and booleans are written out; null, lists and mappings are refused.
    pub(crate) fn render_plain(&self, evaluation: &Evaluation<'_>) -> Result<String, ExpressionError> {
        let source = match self {
            Self::Expression(expression) => expression.source(),
            Self::Literal(_) | Self::Text(_) | Self::List(_) | Self::Map(_) => "",
        };
        plain(&self.render(evaluation)?, source)
    }
}

fn render_text(parts: &[Part], evaluation: &Evaluation<'_>) -> Result<String, ExpressionError> {
    let mut text = String::new();
    for part in parts {
        match part {
            Part::Literal(literal) => text.push_str(literal),
            Part::Expression(expression) => {
                text.push_str(&plain(&expression.evaluate(evaluation)?, expression.source())?)
            }
        }
        if text.len() > TEXT_BYTES_MAX {
            return Err(ExpressionError::new(format!("a text grew over {TEXT_BYTES_MAX} bytes")));
        }
    }
    Ok(text)
}

/// A scalar as text. A value without a plain form is an error, never an empty text.
pub(crate) fn plain(value: &Value, source: &str) -> Result<String, ExpressionError> {
    let refused = |kind: &str| {
        Err(ExpressionError::new(format!(
            "`{{{{ {source} }}}}` is {kind}; within a text it must be a text, number or boolean"
        )))
    };
    match value {
        Value::String(text) => Ok(text.clone()),
        Value::Number(number) => Ok(number.to_string()),
        Value::Bool(bool) => Ok(bool.to_string()),
        Value::Null => refused("null"),
        Value::Array(_) => refused("a list"),
        Value::Object(_) => refused("a mapping"),
    }
}

#[cfg(test)]
mod tests;
