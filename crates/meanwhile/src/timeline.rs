//! A job's events as a person reads them, one line each, as they come.

use std::collections::HashMap;
use std::io::IsTerminal;

use client::{Event, Events, JobState, Status, StepProgress};
use flow::document::in_words;

/// The least width of the step column.
const STEP_WIDTH: usize = 10;
/// The beginning of the name under which a callback is waited for; no signal of a flow has such a name.
const CALLBACK: &str = "callback:";

/// Prints events of one job. Keeps the layout, and what of its past later lines depend on.
pub(crate) struct Timeline {
    colour: bool,
    created_at: String,
    step_width: usize,
    /// What steps have told last.
    told: HashMap<String, StepProgress>,
    is_cancel_told: bool,
    /// The time of the acceptance, by its event: a rest that begins with it is a late start.
    accepted_at: Option<String>,
    /// The steps that were undone, in that order.
    undone: Vec<String>,
    /// The step of which an operator has said how it has ended.
    ruled: Option<String>,
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
        let colour = std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none();
        let timeline = Self::of(colour, status.created_at.clone(), longest.max(STEP_WIDTH));
        println!("{} {}", timeline.bold(&status.flow), status.id);
        timeline
    }

    fn of(colour: bool, created_at: String, step_width: usize) -> Self {
        Self {
            colour,
            created_at,
            step_width,
            told: HashMap::new(),
            is_cancel_told: false,
            accepted_at: None,
            undone: Vec::new(),
            ruled: None,
        }
    }

    /// Prints these events, and somebody's wish that the job be cancelled among them.
    #[expect(clippy::print_stdout, reason = "this is the command's answer")]
    pub(crate) fn print_new(&mut self, status: &Status, events: &Events) {
        for line in self.new_lines(status, events) {
            println!("{line}");
        }
    }

    fn new_lines(&mut self, status: &Status, events: &Events) -> Vec<String> {
        let mut lines = Vec::new();
        for event in &events.events {
            lines.extend(self.cancel_line(status, Some(&event.at)));
            lines.push(self.line(event));
        }
        lines.extend(self.cancel_line(status, None));
        lines
    }

    /// The line of the wish, once: before what happened later. All times have the same form.
    fn cancel_line(&mut self, status: &Status, before: Option<&str>) -> Option<String> {
        let wish = status.cancel.as_ref().filter(|_| !self.is_cancel_told)?;
        if before.is_some_and(|at| at < wish.requested_at.as_str()) {
            return None;
        }
        self.is_cancel_told = true;
        let reason = wish.reason.as_ref().map(|reason| format!(": {reason}")).unwrap_or_default();
        let words = format!("to be cancelled, as {} wants{reason}", wish.by);
        let step = format!("{:width$}", "", width = self.step_width);
        Some(format!("  {:>9}  o {step} {}", self.since(&wish.requested_at), self.paint(Tone::Wait, &words)))
    }

    /// Prints what steps under way tell of themselves, where that is news. `events`: those that were printed last,
    /// which are at least as far as the status.
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
            (JobState::Succeeded, _) => {
                let result = status.result.as_ref();
                result.map(|result| in_words(result).as_ref().unwrap_or(result).to_string())
            }
            (JobState::Cancelled, _) => status.cancel.as_ref().and_then(|wish| wish.reason.clone()),
            (_, error) => error.as_ref().map(|error| error.message.clone()),
        };
        let late = if status.cancel_too_late { "\n  = the cancel came too late: the job had succeeded" } else { "" };
        println!("  = {} {}{late}\n", self.paint(tone, status.status.as_str()), more.unwrap_or_default());
    }

    fn line(&mut self, event: &Event) -> String {
        let (sign, tone, words) = self.words(event);
        let undo = event.phase == "undo" && !["step.compensated", "step.failed"].contains(&event.kind.as_str());
        let words = if undo && event.kind.starts_with("step.") { format!("undo: {words}") } else { words };
        let step = format!("{:width$}", event.step, width = self.step_width);
        format!("  {:>9}  {} {step} {}", self.since(&event.at), self.paint(tone, sign), self.paint(tone, &words))
    }

    fn words(&mut self, event: &Event) -> (&'static str, Tone, String) {
        let undo = event.phase == "undo";
        let message = event.data["message"].as_str().unwrap_or_default();
        let pause_ms = event.next_attempt_after_ms.unwrap_or_default();
        match event.kind.as_str() {
            "job.accepted" => {
                self.accepted_at = Some(event.at.clone());
                ("o", Tone::Plain, "accepted".to_owned())
            }
            "step.succeeded" => ("+", Tone::Good, format!("done{}{}", attempts(event), self.decided(event))),
            "step.skipped" if !message.is_empty() => ("-", Tone::Wait, format!("{message}; the job goes on")),
            "step.skipped" => ("-", Tone::Plain, "skipped".to_owned()),
            "step.running" => (":", Tone::Plain, "under way, apart from its queue".to_owned()),
            "step.waiting" if self.starts_later(event) => {
                (".", Tone::Wait, format!("starts in {}", duration(pause_ms)))
            }
            "step.waiting" => (".", Tone::Wait, waits(event)),
            "step.retrying" => ("~", Tone::Wait, format!("{message}; again in {}", duration(pause_ms))),
            "step.failed" if undo => ("!", Tone::Bad, format!("cannot be undone: {message}")),
            "step.failed" => ("x", Tone::Bad, format!("{message}{}", attempts(event))),
            "step.compensated" => {
                self.undone.push(event.step.clone());
                ("<", Tone::Back, format!("undone{}", attempts(event)))
            }
            "job.compensating" => ("<", Tone::Back, "undoing what was done".to_owned()),
            "job.parked" => ("!", Tone::Wait, format!("parked: {message}")),
            "job.resumed" => match (event.data["outcome"].as_str(), &event.actor) {
                (Some(outcome), Some(by)) => {
                    self.ruled = Some(event.step.clone());
                    ("o", Tone::Plain, format!("{by} says how it ended: {outcome}"))
                }
                _ => ("o", Tone::Plain, "sent on by an operator".to_owned()),
            },
            "job.stuck" => ("!", Tone::Bad, "no progress, although nothing that it waits for is known".to_owned()),
            "job.succeeded" => ("*", Tone::Good, "succeeded".to_owned()),
            "job.failed" => ("*", Tone::Bad, format!("failed; {}", self.what_is_undone())),
            "job.cancelled" => ("*", Tone::Bad, format!("cancelled; {}", self.what_is_undone())),
            other => ("?", Tone::Plain, other.to_owned()),
        }
    }

    fn what_is_undone(&self) -> String {
        match self.undone.is_empty() {
            true => "nothing was undone".to_owned(),
            false => format!("undone: {}", self.undone.join(", ")),
        }
    }

    /// A rest that is told with the acceptance, before any step.
    fn starts_later(&self, event: &Event) -> bool {
        event.reason.as_deref() == Some("timer") && event.attempts == 0 && self.accepted_at.as_ref() == Some(&event.at)
    }

    /// Whoever decided about the step, by a signal or as an operator.
    fn decided(&mut self, event: &Event) -> String {
        let is_ruled = self.ruled.take_if(|step| *step == event.step).is_some();
        let how = if is_ruled { "as said by" } else { "approved by" };
        event.actor.as_ref().map(|actor| format!(", {how} {actor}")).unwrap_or_default()
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

/// A duration: in seconds below two minutes, as the times of the lines are; then in the two largest units.
fn duration(ms: i64) -> String {
    const UNITS: [(&str, i64); 4] = [("d", 86_400_000), ("h", 3_600_000), ("min", 60_000), ("s", 1_000)];
    if ms < 120_000 {
        let text = format!("{}.{:03}", ms / 1_000, ms % 1_000);
        return format!("{} s", text.trim_end_matches('0').trim_end_matches('.'));
    }
    let place = UNITS.iter().position(|(_, unit_ms)| ms >= *unit_ms).unwrap_or(UNITS.len() - 1);
    let parts = UNITS.iter().skip(place).scan(ms, |rest, (unit, unit_ms)| {
        let count = *rest / unit_ms;
        *rest %= unit_ms;
        Some((count, unit))
    });
    let told: Vec<String> =
        parts.take(2).filter(|(count, _)| *count > 0).map(|(count, unit)| format!("{count} {unit}")).collect();
    told.join(" ")
}

fn millis_of_day(at: &str) -> Option<i64> {
    let time = at.split('T').nth(1)?.trim_end_matches('Z');
    let (clock, millis) = time.split_once('.').unwrap_or((time, "0"));
    let mut parts = clock.split(':').map(str::parse::<i64>);
    let (hours, minutes, seconds) = (parts.next()?.ok()?, parts.next()?.ok()?, parts.next()?.ok()?);
    Some(((hours * 60 + minutes) * 60 + seconds) * 1_000 + millis.parse::<i64>().ok()?)
}

#[cfg(test)]
mod tests;
