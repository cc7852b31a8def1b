//! Filters and operators whose results can be far larger than what goes into them. Inputs of jobs are what goes into
//! them, so their results are bounded before they are made: `input.a | join(input.b)` of two large texts would fill any
//! memory.

use minijinja::value::{Kwargs, Rest, Value, ValueKind, ValueOrKwargs, from_args};
use minijinja::{Environment, Error, ErrorKind, State, filters};

/// The largest text that an expression makes, in bytes. No record carries a larger one.
pub(super) const BYTES_MAX: usize = 1024 * 1024;
/// The longest list that a filter makes.
const ITEMS_MAX: usize = 10_000;

/// A filter of the engine, and what its result takes at most.
type Size = fn(&[Value], &Kwargs) -> Result<usize, Error>;

pub(super) fn install(environment: &mut Environment<'static>) {
    // No expression can name these.
    environment.add_filter("join!", filters::join);
    environment.add_filter("replace!", filters::replace);
    environment.add_filter("indent!", filters::indent);
    environment.add_filter("format!", filters::format);
    environment.add_filter("pprint!", filters::pprint);
    environment.add_filter("slice!", filters::slice);
    environment.add_filter("batch!", filters::batch);
    let bounded: [(&str, &str, Size); 7] = [
        ("join", "join!", joined),
        ("replace", "replace!", replaced),
        ("indent", "indent!", indented),
        ("format", "format!", formatted),
        ("pprint", "pprint!", printed),
        ("slice", "slice!", listed),
        ("batch", "batch!", listed),
    ];
    for (name, own, size) in bounded {
        environment.add_filter(name, move |state: &mut State<'_, '_>, arguments: Rest<ValueOrKwargs>| {
            let arguments = arguments.into_values();
            let (positional, named) = from_args::<(&[Value], Kwargs)>(&arguments)?;
            check(size(positional, &named)?)?;
            state.apply_filter(own, &arguments)
        });
    }
}

/// Refuses a result of so many bytes.
pub(super) fn check(bytes: usize) -> Result<(), Error> {
    if bytes <= BYTES_MAX {
        return Ok(());
    }
    Err(Error::new(ErrorKind::InvalidOperation, format!("its result has more than {BYTES_MAX} bytes")))
}

/// Refuses a text or a list that is multiplied to more than may be.
pub(super) fn check_product(one: &Value, other: &Value) -> Result<(), Error> {
    let repeated = |of: &Value, by: &Value| match (of.kind(), usize::try_from(by.clone())) {
        (ValueKind::String | ValueKind::Seq | ValueKind::Iterable, Ok(times)) => length(of).saturating_mul(times),
        _ => 0,
    };
    check(repeated(one, other).max(repeated(other, one)))
}

/// The bytes of a text, or the items of a list.
fn length(value: &Value) -> usize {
    value.as_str().map_or_else(|| value.len().unwrap_or_default(), str::len)
}

/// The bytes of a value as text.
fn written(value: &Value) -> usize {
    value.as_str().map_or_else(|| value.to_string().len(), str::len)
}

fn text_of(value: Option<&Value>) -> &str {
    value.and_then(Value::as_str).unwrap_or_default()
}

fn joined(arguments: &[Value], _: &Kwargs) -> Result<usize, Error> {
    let Some(value) = arguments.first() else { return Ok(0) };
    let joiner = text_of(arguments.get(1)).len();
    if let Some(text) = value.as_str() {
        return Ok(text.len().saturating_add(text.chars().count().saturating_mul(joiner)));
    }
    let Ok(items) = value.try_iter() else { return Ok(0) };
    let mut bytes = 0_usize;
    for item in items {
        bytes = bytes.saturating_add(written(&item)).saturating_add(joiner);
        check(bytes)?;
    }
    Ok(bytes)
}

fn replaced(arguments: &[Value], _: &Kwargs) -> Result<usize, Error> {
    let [text, from, to] = [0, 1, 2].map(|place| text_of(arguments.get(place)));
    Ok(text.len().saturating_add(text.matches(from).count().saturating_mul(to.len())))
}

fn indented(arguments: &[Value], named: &Kwargs) -> Result<usize, Error> {
    let text = text_of(arguments.first());
    let width = match arguments.get(1) {
        Some(width) => usize::try_from(width.clone()).unwrap_or_default(),
        None => named.peek::<Option<usize>>("width")?.unwrap_or(4),
    };
    Ok(text.len().saturating_add(text.split('\n').count().saturating_mul(width)))
}

/// Each directive prints one argument, and fills it up to its width.
fn formatted(arguments: &[Value], named: &Kwargs) -> Result<usize, Error> {
    let text = text_of(arguments.first());
    let given = arguments.iter().skip(1).map(written).max().unwrap_or_default();
    let given = given.max(
        named.args().filter_map(|name| named.peek::<Value>(name).ok()).map(|it| written(&it)).max().unwrap_or_default(),
    );
    let width = |digits: &str| digits.parse::<usize>().unwrap_or(if digits.is_empty() { 0 } else { usize::MAX });
    let widest = text.split(|c: char| !c.is_ascii_digit()).map(width).max().unwrap_or_default();
    // A `*` takes its width from the arguments.
    let starred = arguments.iter().skip(1).filter_map(|it| usize::try_from(it.clone()).ok()).max().unwrap_or_default();
    let widest = if text.contains('*') { widest.max(starred) } else { widest };
    let each = given.saturating_add(widest).saturating_add(32);
    Ok(text.len().saturating_add(text.matches('%').count().saturating_mul(each)))
}

/// Signs may be written as escapes.
fn printed(arguments: &[Value], _: &Kwargs) -> Result<usize, Error> {
    Ok(arguments.first().map_or(0, written).saturating_mul(2))
}

fn listed(arguments: &[Value], _: &Kwargs) -> Result<usize, Error> {
    match arguments.get(1).map(|count| usize::try_from(count.clone())) {
        Some(Ok(count)) if count > ITEMS_MAX => {
            Err(Error::new(ErrorKind::InvalidOperation, format!("it makes more than {ITEMS_MAX} items")))
        }
        _ => Ok(0),
    }
}
