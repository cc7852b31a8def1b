//! The operators of expressions. They are stricter than the engine's own: unlike kinds are not compared, and no digit
//! of a number is lost without a word.

use std::sync::LazyLock;

use minijinja::value::{Rest, Value, ValueKind};
use minijinja::{Environment, Error, ErrorKind, Expression, context};

use super::bounded;
use super::output::check_finite;
use super::tracked::is_missing;
use super::written::{Written, computable};

/// The names under which rewritten expressions call the functions here.
pub(super) const COMPARE: &str = "_compare";
pub(super) const COMPUTE: &str = "_compute";
pub(super) const NUMBERS: &str = "_numbers";
pub(super) const NEGATE: &str = "_negate";
pub(super) const ALIKE: &str = "_alike";
pub(super) const SLICE: &str = "_slice";

/// Filters that only order what they are given: its items have to be of one kind.
pub(super) const ORDERING: &[&str] = &["sort", "min", "max"];
/// Filters that compute with numbers; the others pass them on as they were written.
pub(super) const COMPUTING: &[&str] =
    &["abs", "int", "float", "round", "sum", "unique", "dictsort", "groupby", "bool", "format"];
/// Tests that compute with numbers.
pub(super) const COMPUTING_TESTS: &[&str] = &["odd", "even", "divisibleby"];

pub(super) fn install(environment: &mut Environment<'static>) {
    environment.add_function(COMPARE, compare);
    environment.add_function(COMPUTE, compute);
    environment.add_function(NUMBERS, |value: Value| computable(&value));
    environment.add_function(NEGATE, |value: Value| engine("-", &Value::from(0), &computable(&value)?));
    environment.add_function(ALIKE, |value: Value| alike(&value));
    environment.add_function(SLICE, slice);
    environment.add_test("number", |value: &Value| value.is_number() || Written::of(value).is_some());
    environment
        .add_test("integer", |value: &Value| value.is_integer() || Written::of(value).is_some_and(Written::is_whole));
    environment.add_test("float", |value: &Value| {
        (value.is_number() && !value.is_integer()) || Written::of(value).is_some_and(|written| !written.is_whole())
    });
    for (sign, names) in [
        ("==", &["==", "eq", "equalto"][..]),
        ("!=", &["!=", "ne"]),
        ("<", &["<", "lt", "lessthan"]),
        ("<=", &["<=", "le"]),
        (">", &[">", "gt", "greaterthan"]),
        (">=", &[">=", "ge"]),
        ("in", &["in"]),
    ] {
        for name in names {
            environment.add_test(*name, move |one: &Value, other: Value| holds(one, sign, &other));
        }
    }
}

/// `_compare(a, '<', b, '<=', c)`: true when each of them holds.
fn compare(arguments: Rest<Value>) -> Result<bool, Error> {
    let mut all = true;
    for chain in arguments.windows(3).step_by(2) {
        if let [one, sign, other] = chain {
            all &= holds(one, sign.as_str().unwrap_or_default(), other)?;
        }
    }
    Ok(all)
}

fn holds(one: &Value, sign: &str, other: &Value) -> Result<bool, Error> {
    if is_missing(one) || is_missing(other) {
        // It is remembered as missing, and the evaluation fails with its name.
        return Ok(false);
    }
    if one.is_undefined() || other.is_undefined() {
        return Err(Error::from(ErrorKind::UndefinedError));
    }
    let (one, other) = (computable(one)?, computable(other)?);
    match sign {
        "in" => is_in(&one, &other),
        "not in" => is_in(&one, &other).map(|within| !within),
        "==" => check_kinds(&one, &other, true).map(|()| one == other),
        "!=" => check_kinds(&one, &other, true).map(|()| one != other),
        _ => {
            check_kinds(&one, &other, false)?;
            Ok(match sign {
                "<" => one < other,
                "<=" => one <= other,
                ">" => one > other,
                _ => one >= other,
            })
        }
    }
}

/// Null may be asked for (`input.note == none`), but is neither more nor less than anything.
fn check_kinds(one: &Value, other: &Value, null_is_fine: bool) -> Result<(), Error> {
    let (one, other) = (kind(one), kind(other));
    if one == other || (null_is_fine && (one == NULL || other == NULL)) {
        return Ok(());
    }
    Err(Error::new(ErrorKind::InvalidOperation, format!("{one} cannot be compared with {other}")))
}

const NULL: &str = "null";

fn kind(value: &Value) -> &'static str {
    match value.kind() {
        ValueKind::None => NULL,
        ValueKind::Bool => "a boolean",
        ValueKind::Number => "a number",
        ValueKind::String => "a text",
        ValueKind::Seq | ValueKind::Iterable => "a list",
        ValueKind::Map => "a mapping",
        _ => "another value",
    }
}

fn is_in(one: &Value, other: &Value) -> Result<bool, Error> {
    match other.kind() {
        ValueKind::String | ValueKind::Map if one.kind() != ValueKind::String => Err(Error::new(
            ErrorKind::InvalidOperation,
            format!("{} cannot be looked for in {}", kind(one), kind(other)),
        )),
        ValueKind::Seq | ValueKind::Iterable => {
            let items: Vec<Value> = other.try_iter()?.collect();
            if items.contains(one) {
                return Ok(true);
            }
            // A list of several kinds may be meant so; one of other kinds alone is a mistake.
            match items.iter().map(|item| check_kinds(one, item, true)).find(Result::is_ok) {
                None if !items.is_empty() => check_kinds(one, &items[0], true).map(|()| false),
                _ => Ok(false),
            }
        }
        _ => engine("in", one, other).map(|within| within.is_true()),
    }
}

/// The list, once it is sure that all of it is of one kind.
fn alike(value: &Value) -> Result<Value, Error> {
    let value = computable(value)?;
    if value.kind() == ValueKind::Seq {
        let items: Vec<Value> = value.try_iter()?.collect();
        for pair in items.windows(2) {
            check_kinds(&pair[0], &pair[1], false)?;
        }
    }
    Ok(value)
}

/// `_compute(a, '+', b, '-', c)`, from left to right.
fn compute(arguments: Rest<Value>) -> Result<Value, Error> {
    if arguments.iter().any(Value::is_undefined) {
        return Err(Error::from(ErrorKind::UndefinedError));
    }
    let mut rest = arguments.iter();
    let mut total = computable(rest.next().unwrap_or(&Value::UNDEFINED))?;
    while let (Some(sign), Some(next)) = (rest.next(), rest.next()) {
        let (sign, next) = (sign.as_str().unwrap_or_default(), computable(next)?);
        let both_whole = total.is_integer() && next.is_integer();
        if sign == "/" || !both_whole {
            check_double(&total)?;
            check_double(&next)?;
        }
        total = engine(sign, &total, &next)?;
    }
    Ok(total)
}

/// `a[from:to:step]`. The engine's own slices hide the names that they read.
fn slice(value: Value, from: Value, to: Value, step: Option<Value>) -> Result<Value, Error> {
    if value.is_undefined() || is_missing(&value) {
        return Err(Error::from(ErrorKind::UndefinedError));
    }
    let step = step.unwrap_or_else(|| Value::from(()));
    SLICING.as_ref().map_err(|detail| Error::new(ErrorKind::InvalidOperation, detail.clone()))?.eval(context! {
        value, from, to, step
    })
}

/// A whole number that is computed with as a double has to be one exactly.
fn check_double(value: &Value) -> Result<(), Error> {
    let exact = |whole: i128| (whole as f64) as i128 == whole;
    if value.is_integer() && !i128::try_from(value.clone()).is_ok_and(exact) {
        let detail = "a whole number has too many digits for a computation with fractions";
        return Err(Error::new(ErrorKind::InvalidOperation, detail));
    }
    Ok(())
}

static ENGINE: LazyLock<Environment<'static>> = LazyLock::new(Environment::new);

/// The engine's own operations, compiled once.
static OPERATIONS: LazyLock<Vec<(&str, Expression<'static, 'static>)>> = LazyLock::new(|| {
    let compiled = |sign: &&'static str| Some((*sign, ENGINE.compile_expression_owned(format!("a {sign} b")).ok()?));
    ["+", "-", "*", "/", "//", "%", "**", "in"].iter().filter_map(compiled).collect()
});

static SLICING: LazyLock<Result<Expression<'static, 'static>, String>> = LazyLock::new(|| {
    ENGINE.compile_expression_owned("value[from:to:step]".to_owned()).map_err(|error| error.to_string())
});

/// One operation of the engine itself.
fn engine(sign: &str, one: &Value, other: &Value) -> Result<Value, Error> {
    let operation = OPERATIONS.iter().find(|(known, _)| *known == sign);
    let (_, operation) = operation.ok_or_else(|| Error::new(ErrorKind::InvalidOperation, "an unknown operator"))?;
    if sign == "*" {
        bounded::check_product(one, other)?;
    }
    let result = operation.eval(context! { a => one, b => other })?;
    check_finite(&result)?;
    Ok(result)
}
