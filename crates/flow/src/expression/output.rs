//! From the value of an expression to JSON.

use minijinja::value::{Value, ValueKind};
use minijinja::{Error, ErrorKind};
use serde_json::{Map, Value as Json};

use super::bounded;
use super::tracked::Fields;
use super::written::Written;

/// The value as JSON, numbers as they were written.
pub(super) fn to_json(value: &Value) -> Result<Json, Error> {
    if let Some(written) = Written::of(value) {
        return Ok(Json::Number(written.number().clone()));
    }
    if let Some(fields) = value.downcast_object_ref::<Fields>() {
        let entry = |(name, value): &(String, Value)| Ok((name.clone(), to_json(value)?));
        return fields.entries().iter().map(entry).collect::<Result<Map<_, _>, Error>>().map(Json::Object);
    }
    match value.kind() {
        ValueKind::Number => number(value),
        ValueKind::Seq | ValueKind::Iterable => {
            value.try_iter()?.map(|item| to_json(&item)).collect::<Result<_, _>>().map(Json::Array)
        }
        ValueKind::Map => {
            let entry = |key: Value| {
                let name = key.as_str().map_or_else(|| key.to_string(), ToOwned::to_owned);
                Ok((name, to_json(&value.get_item(&key)?)?))
            };
            value.try_iter()?.map(entry).collect::<Result<Map<_, _>, Error>>().map(Json::Object)
        }
        _ => serde_json::to_value(value).map_err(|error| Error::new(ErrorKind::BadSerialization, error.to_string())),
    }
}

fn number(value: &Value) -> Result<Json, Error> {
    check_finite(value)?;
    serde_json::to_value(value).map_err(|error| Error::new(ErrorKind::BadSerialization, error.to_string()))
}

/// JSON has no such number: it would become null.
pub(super) fn check_finite(value: &Value) -> Result<(), Error> {
    if value.is_number() && f64::try_from(value.clone()).is_ok_and(|number| !number.is_finite()) {
        return Err(Error::new(ErrorKind::InvalidOperation, "its result is no finite number"));
    }
    Ok(())
}

/// The `tojson` filter: a text with the value as JSON, safe within HTML too, as Jinja has it.
pub(super) fn to_json_text(value: &Value, indent: Option<usize>) -> Result<String, Error> {
    let json = to_json(value)?;
    let text = match indent {
        None | Some(0) => json.to_string(),
        Some(_) => format!("{json:#}"),
    };
    let safe = [("<", "\\u003c"), (">", "\\u003e"), ("&", "\\u0026"), ("'", "\\u0027")];
    let text = safe.iter().fold(text, |text, (sign, escape)| text.replace(sign, escape));
    bounded::check(text.len())?;
    Ok(text)
}
