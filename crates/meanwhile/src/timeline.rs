//! A job's events as a person reads them, one line each, as they come.

use std::collections::HashMap;
use std::io::IsTerminal;

use client::{Event, Events, JobState, Status, StepProgress};

/// The least width of the step column.
const STEP_WIDTH: usize = 10;
/// The beginning of the name under which a callback is waited for; no signal of a flow has such a name.
const CALLBACK: &str = "callback:";

/// Prints events of one job. Keeps only the layout, and what steps have told last.
pub(crate) struct Timeline {
    colour: bool,
    created_at: String,
    step_width: usize,
    told: HashMap<String, StepProgress>,
}

#[derive(Clone, Copy)]
enum Tone {
    Plain,
    Good,
    Bad,
    Back,
    Wait,
}

impl Timeline {
    /// Prints the head of the timeline.
    #[expect(clippy::print_stdout, reason = "this is the command's answer")]
    #[expect(clippy::disallowed_methods, reason = "NO_COLOR is a convention of terminals (no-color.org), no setting")]
    pub(crate) fn new(status: &Status) -> Self {
        let longest = status.steps.iter().map(|step| step.id.len()).max().unwrap_or(0);
        let timeline = Self {
            colour: std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none(),
            created_at: status.created_at.clone(),
            step_width: longest.max(STEP_WIDTH),
            told: HashMap::new(),
        };
        println!("{} {}", timeline.bold(&status.flow), status.id);
        timeline
    }

    /// Prints these events.
    #[expect(clippy::print_stdout, reason = "this is the command's answer")]
    pub(crate) fn print_new(&self, events: &Events) {
        for event in &events.events {
            println!("{}", self.line(event));
        }
    }

    /// Prints what steps under way tell of themselves, where that is news. `events`: those that were printed last, which
    /// are at least as far as the status.
    #[expect(clippy::print_stdout, reason = "this is the command's answer")]
    pub(crate) fn print_progress(&mut self, status: &Status, events: &Events) {
        for line in self.progress_lines(status, events) {
            println!("{line}");
        }
    }

    fn progress_lines(&mut self, status: &Status, events: &Events) -> Vec<String> {
        let ends = ["step.succeeded", "step.skipped", "step.failed"];
        let is_end = |event: &Event, step: &str| event.step == step && ends.contains(&event.kind.as_str());
        let is_over = |step: &str| events.events.iter().any(|event| is_end(event, step));
        let mut lines = Vec::new();
        for step in status.steps.iter().filter(|step| !is_over(&step.id)) {
            let Some(progress) = step.progress.as_ref().filter(|told| self.told.get(&step.id) != Some(*told)) else {
                continue;
            };
            self.told.insert(step.id.clone(), progress.clone());
            let percent = progress.percent.map(|percent| format!("{percent} %"));
            let words: Vec<String> = percent.into_iter().chain(progress.message.clone()).collect();
            let id = format!("{:width$}", step.id, width = self.step_width);
            lines.push(format!("  {:>9}  % {id} {}", "", words.join(", ")));
        }
        lines
    }

    /// Prints the job's end, or its present state.
    #[expect(clippy::print_stdout, reason = "this is the command's answer")]
    pub(crate) fn print_end(&self, status: &Status) {
        let tone = match status.status {
            JobState::Succeeded => Tone::Good,
            JobState::Failed | JobState::Cancelled => Tone::Bad,
            JobState::NeedsAttention => Tone::Wait,
            JobState::Accepted | JobState::Running | JobState::Waiting | JobState::Compensating | JobState::Unknown => {
                Tone::Plain
            }
        };
        let more = match (status.status, &status.error) {
            (JobState::Succeeded, _) => status.result.as_ref().map(ToString::to_string),
            (_, error) => error.as_ref().map(|error| error.message.clone()),
        };
        println!("  = {} {}\n", self.paint(tone, status.status.as_str()), more.unwrap_or_default());
    }

    fn line(&self, event: &Event) -> String {
        let undo = event.phase == "undo";
        let message = event.data["message"].as_str().unwrap_or_default();
        let pause_ms = event.next_attempt_after_ms.unwrap_or_default();
        let (sign, tone, words) = match event.kind.as_str() {
            "job.accepted" => ("o", Tone::Plain, "accepted".to_owned()),
            "step.succeeded" => ("+", Tone::Good, format!("done{}{}", attempts(event), decided(event))),
            "step.skipped" if !message.is_empty() => ("-", Tone::Wait, format!("{message}; the job goes on")),
            "step.skipped" => ("-", Tone::Plain, "skipped".to_owned()),
            "step.running" => (":", Tone::Plain, "under way, apart from its queue".to_owned()),
            "step.waiting" => (".", Tone::Wait, waits(event)),
            "step.retrying" => ("~", Tone::Wait, format!("{message}; again in {}", duration(pause_ms))),
            "step.failed" if undo => ("!", Tone::Bad, format!("cannot be undone: {message}")),
            "step.failed" => ("x", Tone::Bad, format!("{message}{}", attempts(event))),
            "step.compensated" => ("<", Tone::Back, format!("undone{}", attempts(event))),
            "job.compensating" => ("<", Tone::Back, "undoing what was done".to_owned()),
            "job.parked" => ("!", Tone::Wait, format!("parked: {message}")),
            "job.resumed" => match (event.data["outcome"].as_str(), &event.actor) {
                (Some(outcome), Some(by)) => ("o", Tone::Plain, format!("{by} says how it ended: {outcome}")),
                _ => ("o", Tone::Plain, "sent on by an operator".to_owned()),
            },
            "job.stuck" => ("!", Tone::Bad, "no progress, although nothing that it waits for is known".to_owned()),
            "job.succeeded" => ("*", Tone::Good, "succeeded".to_owned()),
            "job.failed" => ("*", Tone::Bad, "failed; what was done is undone".to_owned()),
            "job.cancelled" => ("*", Tone::Bad, "cancelled; what was done is undone".to_owned()),
            other => ("?", Tone::Plain, other.to_owned()),
        };
        let step = format!("{:width$}", event.step, width = self.step_width);
        format!("  {:>9}  {} {step} {}", self.since(&event.at), self.paint(tone, sign), self.paint(tone, &words))
    }

    /// `+0.123 s` since the job was accepted, from two RFC 3339 times of the same form.
    fn since(&self, at: &str) -> String {
        match (millis_of_day(&self.created_at), millis_of_day(at)) {
            (Some(from), Some(to)) => {
                const DAY_MS: i64 = 86_400_000;
                let passed = (to - from).rem_euclid(DAY_MS);
                // Clocks of two machines may disagree a little; nothing happens before the acceptance.
                let passed = if passed > DAY_MS / 2 { 0 } else { passed };
                format!("+{}.{:03} s", passed / 1_000, passed % 1_000)
            }
            _ => String::new(),
        }
    }

    fn bold(&self, text: &str) -> String {
        if self.colour { format!("\u{1b}[1m{text}\u{1b}[0m") } else { text.to_owned() }
    }

    fn paint(&self, tone: Tone, text: &str) -> String {
        let code = match tone {
            Tone::Plain => return text.to_owned(),
            Tone::Good => 32,
            Tone::Bad => 31,
            Tone::Back => 36,
            Tone::Wait => 33,
        };
        if self.colour { format!("\u{1b}[{code}m{text}\u{1b}[0m") } else { text.to_owned() }
    }
}

fn attempts(event: &Event) -> String {
    if event.attempts > 1 { format!(" (attempt {})", event.attempts) } else { String::new() }
}

fn decided(event: &Event) -> String {
    event.actor.as_ref().map(|actor| format!(", approved by {actor}")).unwrap_or_default()
}

fn waits(event: &Event) -> String {
    if let Some(downstream) = event.data["downstream"].as_str() {
        let what =
            if event.reason.as_deref() == Some("breaker") { "the breaker of" } else { "room within the limits of" };
        return format!("waits for {what} {downstream}");
    }
    let for_ms = event.next_attempt_after_ms.map(duration);
    if let Some(poll) = event.data.get("poll") {
        let host = poll["host"].as_str().unwrap_or("its service");
        let (next, longest) = (for_ms.unwrap_or_default(), poll["timeout_ms"].as_i64().map(duration));
        return format!("polls {host}, first in {next}, {} at most", longest.unwrap_or_default());
    }
    match (&event.signal, for_ms) {
        (Some(signal), Some(longest)) if signal.starts_with(CALLBACK) => {
            format!("waits for its callback, {longest} at most")
        }
        (Some(signal), Some(longest)) => format!("waits for `{signal}`, {longest} at most"),
        (Some(signal), None) => format!("waits for `{signal}`"),
        (None, Some(length)) => format!("sleeps for {length}"),
        (None, None) => "rests".to_owned(),
    }
}

/// A duration in the largest unit in which it is a whole number, or in seconds where that says enough.
fn duration(ms: i64) -> String {
    match ms {
        ..1_000 => format!("{ms} ms"),
        _ if ms % 86_400_000 == 0 => format!("{} d", ms / 86_400_000),
        _ if ms % 3_600_000 == 0 => format!("{} h", ms / 3_600_000),
        _ if ms % 60_000 == 0 => format!("{} min", ms / 60_000),
        _ => format!("{}.{} s", ms / 1_000, ms % 1_000 / 100),
    }
}

fn millis_of_day(at: &str) -> Option<i64> {
    let time = at.split('T').nth(1)?.trim_end_matches('Z');
    let (clock, millis) = time.split_once('.').unwrap_or((time, "0"));
    let mut parts = clock.split(':').map(str::parse::<i64>);
    let (hours, minutes, seconds) = (parts.next()?.ok()?, parts.next()?.ok()?, parts.next()?.ok()?);
    Some(((hours * 60 + minutes) * 60 + seconds) * 1_000 + millis.parse::<i64>().ok()?)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn line(event: Value) -> String {
        timeline().line(&serde_json::from_value(event).unwrap())
    }

    fn timeline() -> Timeline {
        let created_at = "2026-01-31T23:59:59.900Z".to_owned();
        Timeline { colour: false, created_at, step_width: STEP_WIDTH, told: HashMap::new() }
    }

    #[test]
    fn what_a_step_tells_of_itself_is_printed_once_and_not_after_its_end() {
        let mut timeline = timeline();
        let mut lines = |progress: Value, kind: &str| {
            let status = json!({
                "id": "1", "flow": "f", "version": "v", "status": "running", "created_at": "", "updated_at": "",
                "steps": [{ "id": "print", "status": "running", "attempts": 1, "progress": progress }],
            });
            let events = json!({ "events": [{ "type": kind, "step": "print", "at": "" }], "next": null });
            let (status, events) = (serde_json::from_value(status).unwrap(), serde_json::from_value(events).unwrap());
            timeline.progress_lines(&status, &events)
        };
        let half = || json!({ "percent": 50, "message": "page 5" });
        assert_eq!(lines(half(), "step.waiting"), ["             % print      50 %, page 5"]);
        assert_eq!(lines(half(), "step.waiting"), Vec::<String>::new());
        assert_eq!(lines(json!({ "message": "page 6" }), "step.running"), ["             % print      page 6"]);
        assert_eq!(lines(half(), "step.succeeded"), Vec::<String>::new());
        assert_eq!(lines(Value::Null, "step.waiting"), Vec::<String>::new());
    }

    #[test]
    fn a_line_says_when_where_and_what() {
        let done = json!({"type": "step.succeeded", "step": "charge", "attempts": 3, "at": "2026-02-01T00:00:00.150Z"});
        assert_eq!(line(done), "   +0.250 s  + charge     done (attempt 3)");
        let early = json!({"type": "job.accepted", "at": "2026-01-31T23:59:59.899Z"});
        assert_eq!(line(early), "   +0.000 s  o            accepted");
    }

    #[test]
    fn a_rest_says_what_ends_it() {
        let rest = |more: Value| {
            let mut event = json!({"type": "step.waiting", "step": "s", "at": "2026-02-01T00:00:00.150Z"});
            event.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            line(event).split_once("s          ").unwrap().1.to_owned()
        };
        assert_eq!(rest(json!({"next_attempt_after_ms": 500})), "sleeps for 500 ms");
        assert_eq!(
            rest(json!({"next_attempt_after_ms": 172_800_000, "signal": "yes"})),
            "waits for `yes`, 2 d at most"
        );
        assert_eq!(rest(json!({"signal": "yes"})), "waits for `yes`");
        let poll = json!({"host": "courier:8080", "timeout_ms": 172_800_000});
        assert_eq!(
            rest(json!({"next_attempt_after_ms": 5_000, "reason": "timer", "data": {"poll": poll}})),
            "polls courier:8080, first in 5.0 s, 2 d at most"
        );
        let callback = json!({"next_attempt_after_ms": 172_800_000, "signal": "callback:pack:1:0"});
        assert_eq!(rest(callback), "waits for its callback, 2 d at most");
        let held = |reason: &str| {
            let data = json!({"downstream": "payment:80"});
            rest(json!({"next_attempt_after_ms": 900_000, "reason": reason, "data": data}))
        };
        assert_eq!(held("breaker"), "waits for the breaker of payment:80");
        assert_eq!(held("limit"), "waits for room within the limits of payment:80");
        assert_eq!(
            ["1.5 s", "90.0 s", "5 min", "3 h"],
            [1_500, 90_000, 300_000, 10_800_000].map(duration).each_ref().map(String::as_str)
        );
    }

    #[test]
    fn a_failure_says_why() {
        let failed = json!({
            "type": "step.failed", "step": "charge", "attempts": 1, "at": "2026-02-01T00:00:01.000Z",
            "data": {"message": "402 declined"},
        });
        assert_eq!(line(failed), "   +1.100 s  x charge     402 declined");
    }
}
