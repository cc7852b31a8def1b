//! Names and literals of expressions, as they are written. Only the flow's own code evaluates them.

use std::collections::BTreeSet;

use serde_json::Value;

/// The outermost names of values.
const ROOTS: [&str; 6] = ["input", "steps", "job", "env", "secrets", "step"];
/// Words of expressions that only ask for values and compare them.
const PLAIN_WORDS: [&str; 11] =
    ["and", "or", "not", "in", "is", "defined", "undefined", "true", "false", "none", "default"];
/// Signs of expressions that only ask for values and compare them.
const PLAIN_SIGNS: &str = "=!<>(),[]|";

/// An expression as it is written.
#[derive(Debug, Clone, Default)]
pub(crate) struct Scanned {
    /// The text between the braces.
    pub(crate) source: String,
    /// Dotted names: `input.sku`, `steps.charge.output.id`.
    pub(crate) paths: BTreeSet<String>,
    /// Numbers and texts.
    pub(crate) literals: Vec<Value>,
    /// True if it only compares values with literals and with each other: a few values of each kind decide it.
    pub(crate) is_simple: bool,
    /// True if it asks whether a value is there.
    pub(crate) has_fallback: bool,
}

#[derive(Debug, Clone, PartialEq)]
enum Token {
    Path(String),
    Word(String),
    Literal(Value),
    Sign(char),
}

/// Every expression within the texts of a JSON value.
pub(crate) fn expressions(value: &Value) -> Vec<Scanned> {
    match value {
        Value::String(text) => in_text(text),
        Value::Array(items) => items.iter().flat_map(expressions).collect(),
        Value::Object(entries) => entries.values().flat_map(expressions).collect(),
        Value::Null | Value::Bool(_) | Value::Number(_) => Vec::new(),
    }
}

fn in_text(text: &str) -> Vec<Scanned> {
    let mut found = Vec::new();
    for part in text.split("{{").skip(1) {
        let source = part.split("}}").next().unwrap_or_default();
        found.push(scan(source.trim()));
    }
    found
}

fn scan(source: &str) -> Scanned {
    let tokens = tokens(source);
    let paths = tokens.iter().filter_map(|token| match token {
        Token::Path(path) => Some(path.clone()),
        Token::Word(_) | Token::Literal(_) | Token::Sign(_) => None,
    });
    let literals = tokens.iter().filter_map(|token| match token {
        Token::Literal(value) => Some(value.clone()),
        Token::Path(_) | Token::Word(_) | Token::Sign(_) => None,
    });
    let asks = |word: &str| tokens.contains(&Token::Word(word.to_owned()));
    Scanned {
        source: source.to_owned(),
        paths: paths.collect(),
        literals: literals.collect(),
        is_simple: is_simple(&tokens),
        has_fallback: ["default", "d", "defined", "undefined"].iter().any(|word| asks(word)),
    }
}

fn is_simple(tokens: &[Token]) -> bool {
    let plain = tokens.iter().all(|token| match token {
        Token::Path(_) | Token::Literal(_) => true,
        Token::Word(word) => PLAIN_WORDS.contains(&word.as_str()),
        Token::Sign(sign) => PLAIN_SIGNS.contains(*sign),
    });
    // An order of texts, and an item of a list, are not decided by a few values.
    let hard = tokens.windows(2).any(|pair| match pair {
        [Token::Path(_), Token::Sign('[')] | [Token::Sign('<' | '>'), Token::Literal(Value::String(_))] => true,
        [Token::Literal(Value::String(_)), Token::Sign('<' | '>')] => true,
        [Token::Sign(one), Token::Sign('|')] => *one == ']',
        _ => false,
    });
    plain && !hard
}

fn tokens(source: &str) -> Vec<Token> {
    let mut tokens = Vec::new();
    let mut rest = source;
    while let Some(first) = rest.chars().next() {
        let length = match first {
            '"' | '\'' => {
                let end = rest[1..].find(first).map_or(rest.len(), |end| end + 2);
                let text = rest.get(1..end - 1).unwrap_or_default();
                tokens.push(Token::Literal(Value::String(text.to_owned())));
                end
            }
            _ if first.is_ascii_digit() => {
                let length = span(rest, |c| c.is_ascii_digit() || c == '.');
                let number = serde_json::from_str(&rest[..length]).unwrap_or(Value::Null);
                tokens.push(Token::Literal(number));
                length
            }
            _ if first.is_alphabetic() || first == '_' => {
                let word = span(rest, |c| c.is_alphanumeric() || c == '_');
                let is_root = ROOTS.contains(&&rest[..word]);
                let length = if is_root { span(rest, |c| c.is_alphanumeric() || c == '_' || c == '.') } else { word };
                let text = rest[..length].trim_end_matches('.').to_owned();
                tokens.push(if is_root { Token::Path(text) } else { Token::Word(text) });
                length
            }
            _ => {
                if !first.is_whitespace() {
                    tokens.push(Token::Sign(first));
                }
                first.len_utf8()
            }
        };
        rest = &rest[length..];
    }
    tokens
}

fn span(text: &str, is_part: impl Fn(char) -> bool) -> usize {
    text.find(|c| !is_part(c)).unwrap_or(text.len())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn names_and_literals_are_found_and_quoted_texts_are_none() {
        let found = scan("steps.check.output.risk == \"input.x\" and input.amount_cents > 10.5");
        assert_eq!(found.paths.into_iter().collect::<Vec<_>>(), ["input.amount_cents", "steps.check.output.risk"]);
        assert_eq!(found.literals, [json!("input.x"), json!(10.5)]);
        assert!(found.is_simple && !found.has_fallback);
    }

    #[test]
    fn what_a_few_values_cannot_decide_is_not_simple() {
        for hard in ["input.a + 1 > 2", "input.a | length > 3", "input.a < 'b'", "input.a[0] == 1", "f(input.a)"] {
            assert!(!scan(hard).is_simple, "{hard}");
        }
        for plain in ["input.a", "not input.a", "input.a in ['x', 'y']", "input.a | default(false)", "1 < input.a <= 5"]
        {
            assert!(scan(plain).is_simple, "{plain}");
        }
    }
}
