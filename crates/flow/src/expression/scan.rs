//! Finds the expressions in a text.

use super::{Expression, ExpressionError};

/// A piece of a text.
pub(crate) enum Part {
    Literal(String),
    Expression(Expression),
}

impl Part {
    pub(crate) const fn expression(&self) -> Option<&Expression> {
        match self {
            Self::Expression(expression) => Some(expression),
            Self::Literal(_) => None,
        }
    }
}

/// Splits a text into literals and compiled expressions. Empty literals are left out.
pub(crate) fn split(text: &str) -> Result<Vec<Part>, ExpressionError> {
    let mut parts = Vec::new();
    let mut rest = text;
    loop {
        let open = rest.find("{{").unwrap_or(rest.len());
        let literal = &rest[..open];
        if literal.contains("{%") || literal.contains("{#") {
            return Err(ExpressionError::new(
                "statements and comments (`{% %}`, `{# #}`) are not part of the language: write `{{ a if b else c }}`",
            ));
        }
        if !literal.is_empty() {
            parts.push(Part::Literal(literal.to_owned()));
        }
        if open == rest.len() {
            return Ok(parts);
        }
        let inner = &rest[open + 2..];
        let close =
            end_of_expression(inner).ok_or_else(|| ExpressionError::new("a `{{` has no `}}` that closes it"))?;
        parts.push(Part::Expression(Expression::compile(&inner[..close])?));
        rest = &inner[close + 2..];
    }
}

/// Where the `}}` stands that closes an expression, past quoted texts and braces of its own.
fn end_of_expression(text: &str) -> Option<usize> {
    let bytes = text.as_bytes();
    let (mut depth, mut quote, mut at) = (0_u32, None, 0);
    while at < bytes.len() {
        let byte = bytes[at];
        match (quote, byte) {
            (Some(_), b'\\') => at += 1,
            (Some(open), _) if byte == open => quote = None,
            (Some(_), _) => {}
            (None, b'"' | b'\'') => quote = Some(byte),
            (None, b'{') => depth += 1,
            (None, b'}') if depth > 0 => depth -= 1,
            (None, b'}') if bytes.get(at + 1) == Some(&b'}') => return Some(at),
            (None, _) => {}
        }
        at += 1;
    }
    None
}
