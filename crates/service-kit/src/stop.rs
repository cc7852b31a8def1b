//! Stops injected at seams: the environment makes a process die at a named place, as if killed there. For tests.
//!
//! `MEANWHILE_STOP_AT=workers.before-commit:3` ends the process when it comes to that seam for the third time;
//! `MEANWHILE_STOP_AT=panic:workers.before-commit:3` makes its thread panic there.

use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering};

/// The variable that names the seam, and after a colon the passage (1 without it).
const VARIABLE: &str = "MEANWHILE_STOP_AT";

struct Stop {
    panics: bool,
    seam: String,
    passages_left: AtomicU64,
}

#[expect(clippy::disallowed_methods, reason = "for tests only: it is no setting")]
static STOP: LazyLock<Option<Stop>> = LazyLock::new(|| {
    let text = std::env::var(VARIABLE).ok()?;
    let (panics, text) = text.strip_prefix("panic:").map_or((false, &*text), |text| (true, text));
    let (seam, passage) = parse(text);
    Some(Stop { panics, seam: seam.to_owned(), passages_left: AtomicU64::new(passage) })
});

fn parse(text: &str) -> (&str, u64) {
    match text.rsplit_once(':') {
        Some((seam, passage)) => (seam, passage.parse().unwrap_or(1)),
        None => (text, 1),
    }
}

/// A seam: ends the process here if the environment says so. Costs one load where it does not.
pub fn stop_at(seam: &str) {
    let Some(stop) = STOP.as_ref().filter(|stop| stop.seam == seam) else { return };
    if stop.passages_left.fetch_sub(1, Ordering::SeqCst) == 1 {
        tracing::error!(seam, "stopping here, as {VARIABLE} says");
        assert!(!stop.panics, "a panic at {seam}, as {VARIABLE} says");
        std::process::abort();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seam_is_named_with_the_passage_at_which_to_stop() {
        assert_eq!(parse("workers.before-commit:3"), ("workers.before-commit", 3));
        assert_eq!(parse("workers.before-commit"), ("workers.before-commit", 1));
    }

    #[test]
    fn without_the_variable_nothing_stops() {
        stop_at("workers.before-commit");
    }
}
