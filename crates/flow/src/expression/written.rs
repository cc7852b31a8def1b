//! Numbers as they were written: an expression that only passes one on does not change it.

use std::fmt;
use std::sync::Arc;

use minijinja::value::{Object, ObjectRepr, Value, ValueKind};
use minijinja::{Error, ErrorKind};
use serde_json::Number;

use crate::decimal;

/// A number that a computation might write in another way, or cannot hold.
#[derive(Debug)]
pub(super) struct Written {
    number: Number,
    path: String,
}

impl Object for Written {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        ObjectRepr::Plain
    }

    fn is_true(self: &Arc<Self>) -> bool {
        self.number.as_f64() != Some(0.0)
    }

    fn render(self: &Arc<Self>, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.number)
    }
}

impl Written {
    /// A number as expressions see it: as itself where nothing of it can be lost.
    pub(super) fn value(number: &Number, path: &str) -> Value {
        match (number.as_i64(), number.as_u64()) {
            (Some(whole), _) if whole != 0 || number.as_str() == "0" => Value::from(whole),
            (None, Some(whole)) => Value::from(whole),
            _ => Value::from_object(Self { number: number.clone(), path: path.to_owned() }),
        }
    }

    pub(super) fn of(value: &Value) -> Option<&Self> {
        value.downcast_object_ref()
    }

    pub(super) const fn number(&self) -> &Number {
        &self.number
    }

    pub(super) fn is_whole(&self) -> bool {
        !self.number.as_str().contains(['.', 'e', 'E'])
    }

    /// The number to compute with: whole numbers of up to 128 bits, and doubles.
    fn computable(&self) -> Result<Value, Error> {
        let text = self.number.as_str();
        let number = match self.is_whole() {
            true => text.parse::<i128>().ok().map(Value::from),
            false => decimal::double(text).map(Value::from),
        };
        number.ok_or_else(|| {
            let detail = format!("`{}` is a number that no computation can hold exactly", self.path);
            Error::new(ErrorKind::InvalidOperation, detail)
        })
    }
}

/// The value to compute with. Numbers within lists are taken out of their written form too.
pub(super) fn computable(value: &Value) -> Result<Value, Error> {
    match Written::of(value) {
        Some(written) => written.computable(),
        None if value.kind() == ValueKind::Seq && holds_written(value) => {
            value.try_iter()?.map(|item| computable(&item)).collect::<Result<Vec<_>, _>>().map(Value::from)
        }
        None => Ok(value.clone()),
    }
}

fn holds_written(list: &Value) -> bool {
    list.try_iter().is_ok_and(|mut items| {
        items.any(|item| Written::of(&item).is_some() || (item.kind() == ValueKind::Seq && holds_written(&item)))
    })
}
