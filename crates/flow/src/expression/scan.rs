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

/// The place of the `}}` that closes an expression, past quoted texts and braces of its own.
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

/// The names that follow a `|` (filters) and an `is` or `is not` (tests), outside of quoted texts.
pub(super) fn filters_and_tests(source: &str) -> (Vec<String>, Vec<String>) {
    let (mut filters, mut tests) = (Vec::new(), Vec::new());
    let mut before = [String::new(), String::new()];
    for token in tokens(source) {
        let is_name = token.starts_with(|first: char| first.is_alphabetic() || first == '_');
        if is_name && before[1] == "|" {
            filters.push(token.clone());
        }
        if is_name && token != "not" && (before[1] == "is" || (before[0] == "is" && before[1] == "not")) {
            tests.push(token.clone());
        }
        let [_, last] = before;
        before = [last, token];
    }
    (filters, tests)
}

/// Names, and single signs; quoted texts are one sign each.
fn tokens(source: &str) -> Vec<String> {
    let mut tokens: Vec<String> = Vec::new();
    let mut characters = source.chars().peekable();
    while let Some(character) = characters.next() {
        if matches!(character, '"' | '\'') {
            while let Some(quoted) = characters.next() {
                if quoted == '\\' {
                    characters.next();
                } else if quoted == character {
                    break;
                }
            }
            tokens.push(character.to_string());
        } else if character.is_alphanumeric() || character == '_' {
            let mut name = character.to_string();
            while let Some(next) = characters.next_if(|next| next.is_alphanumeric() || *next == '_') {
                name.push(next);
            }
            tokens.push(name);
        } else if !character.is_whitespace() {
            tokens.push(character.to_string());
        }
    }
    tokens
}
