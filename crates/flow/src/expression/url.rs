//! URLs: only the environment may say where a request goes; everything else is data, and is encoded as such.

use std::fmt::Write as _;

use super::{Evaluation, ExpressionError, Part, plain, split};

/// A URL with expressions in it.
pub(crate) struct UrlTemplate {
    /// The first part, if it is an expression: scheme and authority come from it.
    base: Option<super::Expression>,
    rest: Vec<Part>,
}

impl UrlTemplate {
    /// The form of a URL, for messages.
    pub(crate) const EXPECTED: &str =
        "`{{ env.NAME }}/path` or `https://host/path`, with expressions only after the host";

    pub(crate) fn parse(text: &str) -> Result<Self, ExpressionError> {
        let mut parts = split(text.trim())?;
        let base = match parts.first() {
            Some(Part::Expression(_)) => match parts.remove(0) {
                Part::Expression(base) => Some(base),
                Part::Literal(_) => None,
            },
            Some(Part::Literal(_)) | None => None,
        };
        match &base {
            Some(base) => check_base(base, &parts)?,
            None => check_literal_base(&parts)?,
        }
        let template = Self { base, rest: parts };
        template.check_literal_segments()?;
        Ok(template)
    }

    pub(crate) fn expressions(&self) -> impl Iterator<Item = &super::Expression> {
        self.base.iter().chain(self.rest.iter().filter_map(Part::expression))
    }

    /// Scheme and authority, and what follows them up to the first expression.
    pub(crate) fn base(&self, evaluation: &Evaluation<'_>) -> Result<String, ExpressionError> {
        match (&self.base, self.rest.first()) {
            (Some(base), _) => plain(&base.evaluate(evaluation)?, base.source()),
            (None, Some(Part::Literal(text))) => Ok(text.clone()),
            (None, Some(Part::Expression(_)) | None) => Ok(String::new()),
        }
    }

    pub(crate) fn render(&self, evaluation: &Evaluation<'_>) -> Result<String, ExpressionError> {
        let mut url = String::new();
        if let Some(base) = &self.base {
            let text = plain(&base.evaluate(evaluation)?, base.source())?;
            let text = text.trim_end_matches('/');
            if authority(text).is_none_or(str::is_empty) || text.contains(['?', '#', '\\']) {
                let source = base.source();
                return Err(ExpressionError::new(format!(
                    "`{{{{ {source} }}}}` is not the base of a URL: want https://host"
                )));
            }
            url.push_str(text);
        }
        let mut query = false;
        let mut segment = Segment::default();
        for part in &self.rest {
            match part {
                Part::Literal(text) => {
                    for character in text.chars() {
                        if !query && matches!(character, '/' | '?' | '#') {
                            segment.end()?;
                            query = character != '/';
                        } else if !query {
                            segment.text.push(character);
                        }
                        url.push(character);
                    }
                }
                Part::Expression(expression) => {
                    let encoded = encode(&plain(&expression.evaluate(evaluation)?, expression.source())?);
                    if !query {
                        segment.text.push_str(&encoded);
                        segment.source = Some(expression.source().to_owned());
                    }
                    url.push_str(&encoded);
                }
            }
        }
        if !query {
            segment.end()?;
        }
        Ok(url)
    }

    /// Refuses a literal `..`, which a parser of the URL would take out of the path.
    fn check_literal_segments(&self) -> Result<(), ExpressionError> {
        let whole = self.rest.iter().map(|part| match part {
            Part::Literal(text) => text.as_str(),
            Part::Expression(_) => "x",
        });
        let whole: String = whole.collect();
        let path = whole.split(['?', '#']).next().unwrap_or_default();
        if path.split('/').any(is_dots) {
            return Err(ExpressionError::new("a path segment of a URL must not be `.` or `..`"));
        }
        Ok(())
    }
}

/// A path segment in the making.
#[derive(Default)]
struct Segment {
    text: String,
    /// The last expression in it, if there is one.
    source: Option<String>,
}

impl Segment {
    fn end(&mut self) -> Result<(), ExpressionError> {
        let text = std::mem::take(&mut self.text);
        match self.source.take() {
            Some(source) if text.is_empty() || is_dots(&text) => Err(ExpressionError::new(format!(
                "`{{{{ {source} }}}}` makes a path segment of the URL `{text}`, which would change the path"
            ))),
            Some(_) | None => Ok(()),
        }
    }
}

/// True for `.` and `..`, also when their dots are percent-encoded (URL parsers decode those).
fn is_dots(segment: &str) -> bool {
    matches!(segment.to_ascii_lowercase().replace("%2e", ".").as_str(), "." | "..")
}

fn check_base(base: &super::Expression, rest: &[Part]) -> Result<(), ExpressionError> {
    if base.paths().next().is_none() || base.paths().any(|path| !path.starts_with("env.")) {
        return Err(ExpressionError::new("the base of a URL may come only from `env.*`"));
    }
    match rest.first() {
        None => Ok(()),
        Some(Part::Literal(text)) if text.starts_with(['/', '?']) => Ok(()),
        Some(Part::Literal(_) | Part::Expression(_)) => {
            Err(ExpressionError::new("after the base, a URL goes on with `/` or `?`"))
        }
    }
}

fn check_literal_base(parts: &[Part]) -> Result<(), ExpressionError> {
    let Some(Part::Literal(text)) = parts.first() else {
        return Err(ExpressionError::new("a URL must not be empty"));
    };
    let Some(after) = authority(text) else {
        return Err(ExpressionError::new("a URL begins with `{{ env.NAME }}`, `http://` or `https://`"));
    };
    let end = after.find(['/', '?', '#']);
    if after.is_empty() || end == Some(0) {
        return Err(ExpressionError::new("a URL needs a host"));
    }
    if end.is_none() && parts.len() > 1 {
        return Err(ExpressionError::new(
            "the host of a URL must not contain an expression; use `{{ env.NAME }}` as base",
        ));
    }
    Ok(())
}

/// What follows the scheme.
pub(super) fn authority(url: &str) -> Option<&str> {
    url.strip_prefix("http://").or_else(|| url.strip_prefix("https://"))
}

/// Percent-encodes everything but the unreserved characters of RFC 3986, so it is one piece of path or query.
fn encode(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            let _ = write!(encoded, "%{byte:02X}");
        }
    }
    encoded
}
