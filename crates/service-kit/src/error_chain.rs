//! Errors in one line, with their causes.

use std::error::Error;

/// The error and its causes, outermost first: `cannot store: connection refused`.
pub fn error_chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(source) = cause {
        text.push_str(": ");
        text.push_str(&source.to_string());
        cause = source.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn causes_follow_their_error() {
        let error = anyhow::anyhow!("connection refused").context("cannot reach Postgres").context("cannot store");
        assert_eq!(error_chain(error.as_ref()), "cannot store: cannot reach Postgres: connection refused");
    }
}
