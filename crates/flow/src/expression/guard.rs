//! Fallbacks in their places. A filter belongs to the value before it: `steps.a.output.n > 1 | default(2)` gives the
//! `1` a fallback, and the output none.

use super::rewrite::tokens;

/// True if each place at which the expression reads this step's output has a fallback, or if the expression asks
/// whether it is there.
pub(super) fn covers(source: &str, step: &str) -> bool {
    let Some(tokens) = tokens(source) else { return false };
    let reads: Vec<usize> = (0..tokens.len()).filter(|at| reads(&tokens, *at, step)).collect();
    reads.iter().any(|at| is_asked_for(&tokens, *at)) || reads.iter().all(|at| has_fallback(&tokens, *at))
}

/// The first literal to which a fallback is given.
pub(super) fn idle(source: &str) -> Option<&str> {
    let tokens = tokens(source)?;
    let is_literal = |token: &str| {
        let word = ["none", "null", "true", "false", "None", "True", "False"].contains(&token);
        word || token.starts_with(|first: char| first.is_ascii_digit() || first == '"' || first == '\'')
    };
    let found = (0..tokens.len()).find(|at| {
        let begins = *at == 0 || ![".", "|", "is", "["].contains(&token(&tokens, *at - 1));
        begins && is_literal(token(&tokens, *at)) && is_default(&tokens, *at + 1)
    });
    found.and_then(|at| tokens.get(at).copied())
}

fn token<'s>(tokens: &[&'s str], at: usize) -> &'s str {
    tokens.get(at).copied().unwrap_or_default()
}

fn reads(tokens: &[&str], at: usize, step: &str) -> bool {
    let is_root = at == 0 || token(tokens, at - 1) != ".";
    is_root && token(tokens, at) == "steps" && token(tokens, at + 1) == "." && token(tokens, at + 2) == step
}

/// The place after a path that begins here: past its names and subscripts.
fn end_of_path(tokens: &[&str], mut at: usize) -> usize {
    at += 1;
    loop {
        match token(tokens, at) {
            "." => at += 2,
            "[" => at = closing(tokens, at).map_or(tokens.len(), |close| close + 1),
            _ => return at,
        }
    }
}

/// The place of the bracket that closes the one here.
fn closing(tokens: &[&str], open: usize) -> Option<usize> {
    let mut depth = 0_usize;
    for (at, token) in tokens.iter().enumerate().skip(open) {
        match *token {
            "(" | "[" | "{" => depth += 1,
            ")" | "]" | "}" => depth = depth.saturating_sub(1),
            _ => {}
        }
        if depth == 0 {
            return Some(at);
        }
    }
    None
}

fn is_default(tokens: &[&str], at: usize) -> bool {
    token(tokens, at) == "|" && ["default", "d"].contains(&token(tokens, at + 1))
}

fn is_asked_for(tokens: &[&str], at: usize) -> bool {
    let end = end_of_path(tokens, at);
    let word = if token(tokens, end + 1) == "not" { end + 2 } else { end + 1 };
    token(tokens, end) == "is" && ["defined", "undefined"].contains(&token(tokens, word))
}

/// True if a fallback follows the path, or a bracket around it.
fn has_fallback(tokens: &[&str], at: usize) -> bool {
    let encloses = |open: &usize| token(tokens, *open) == "(" && closing(tokens, *open).is_some_and(|close| close > at);
    let around = (0..at).filter(encloses).filter_map(|open| closing(tokens, open));
    is_default(tokens, end_of_path(tokens, at)) || around.into_iter().any(|close| is_default(tokens, close + 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fallback_counts_where_it_stands_behind_the_value() {
        for fine in [
            "steps.a.output.id | default(none)",
            "steps.a.output.list[0].id | d('x') > 1",
            "steps.a.output['id'] | default(none) == none",
            "(steps.a.output.n | default(1)) + (steps.a.output.m|default(2))",
            "(steps.a.output.id if input.x else none) | default(none)",
            "steps.a.output.id if steps.a.output is defined else none",
            "steps.a is not defined or steps.a.output.n > 1",
            "steps.b.output.n > 1 | default(2)",
            "input.steps.a > 1",
        ] {
            assert!(covers(fine, "a"), "{fine}");
        }
        for bare in [
            "steps.a.output.id",
            "steps.a.output.id == none | default(none)",
            "steps.a.output.n + 1 | default(2)",
            "steps.a.output.n | upper | default('x')",
            "steps.b.output.n | default(1) + steps.a.output.n",
            "steps.a.output.n | default(1) > steps.a.output.m",
            "'| default(1)' ~ steps.a.output.n",
        ] {
            assert!(!covers(bare, "a"), "{bare}");
        }
    }

    #[test]
    fn a_fallback_of_a_literal_is_found() {
        for (source, literal) in [
            ("input.a == none | default(none)", Some("none")),
            ("input.n > 1000 | default(5)", Some("1000")),
            ("input.t == 'x' | d('y')", Some("'x'")),
            ("input.n | default(5) > 1000", None),
            ("input.list.0 | default(1)", None),
            ("input.none | default(1)", None),
            ("input.a | default(none) | default(1)", None),
        ] {
            assert_eq!(idle(source), literal, "{source}");
        }
    }
}
