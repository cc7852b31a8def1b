//! The way to a finding, in words.

use flow::definition::{Call, Definition};
use flow::event::JobStatus;
use flow::slip::Phase;

use crate::explore::{Found, Walk};
use crate::happening::What;
use crate::way::{Happening, Then};
use crate::world::World;

/// The sentences of the shortest way to a finding, and the number of its start.
pub(crate) fn story(world: &World, walk: &Walk<'_>, found: &Found) -> (Vec<String>, usize) {
    let mut happenings: Vec<&Happening> = found.last.iter().collect();
    let mut node = &walk.nodes[found.node as usize];
    loop {
        happenings.extend(&node.happening);
        let Some(parent) = node.parent else { break };
        node = &walk.nodes[parent as usize];
    }
    happenings.reverse();
    let mut told: Vec<(String, u32)> = Vec::new();
    let start = &world.starts[node.start];
    for step in &start.holding {
        let id = &world.definition.steps()[*step].id;
        told.push((format!("The `when` of {id} is taken to hold."), 1));
    }
    if !node.skipped.is_empty() {
        told.push((format!("{}.", passed_over(&node.skipped)), 1));
    }
    for happening in happenings {
        let sentence = sentence(world, happening);
        match told.last_mut() {
            Some((last, count)) if *last == sentence => *count += 1,
            Some(_) | None => told.push((sentence, 1)),
        }
    }
    let told = told.into_iter().map(|(sentence, count)| match count {
        1 => sentence,
        count => format!("{} ({count} times).", sentence.trim_end_matches('.')),
    });
    (told.collect(), node.start)
}

fn sentence(world: &World, happening: &Happening) -> String {
    let mut text = fact(world, happening);
    if happening.is_late {
        text.push_str("; meanwhile the job's deadline has passed");
    }
    if !happening.skipped.is_empty() {
        text.push_str(&format!("; {}", passed_over(&happening.skipped)));
    }
    match happening.then {
        Then::GoesOn => {}
        Then::TurnsBack => text.push_str(": the job turns back"),
        Then::Parks => text.push_str(": the job is parked"),
        Then::Ends(JobStatus::Succeeded) => text.push_str(": the job has succeeded"),
        Then::Ends(JobStatus::Cancelled) => text.push_str(": the job is cancelled"),
        Then::Ends(_) => text.push_str(": the job has failed"),
    }
    text.push('.');
    text
}

fn passed_over(skipped: &[String]) -> String {
    let verb = if skipped.len() == 1 { "is" } else { "are" };
    format!("{} {verb} skipped", skipped.join(" and "))
}

fn fact(world: &World, happening: &Happening) -> String {
    let id = &happening.step;
    let is_native = is_native(&world.definition, happening);
    let name = match happening.phase {
        Phase::Forward => id.clone(),
        Phase::Undo => format!("the undo of {id}"),
    };
    let effect = |done: bool| match (happening.phase, done) {
        (Phase::Forward, true) => "; it was done",
        (Phase::Forward, false) => "; it was not done",
        (Phase::Undo, true) => "; it was undone",
        (Phase::Undo, false) => "; it was not undone",
    };
    match &happening.what {
        What::Succeeds { .. } if is_native || happening.phase == Phase::Undo => format!("{name} succeeds"),
        What::Succeeds { output } => with_chosen(world, id, *output, format!("{name} answers 200")),
        What::Refused { status: Some(status) } => format!("{name} answers {status}"),
        What::Refused { status: None } => format!("{name} fails for good"),
        What::Named { status } => format!("{name} answers {status}, which `fail_on` takes for \"nothing was done\""),
        What::NoAnswer { done } => format!("{name} gives no answer{}", effect(*done)),
        What::Unreachable if is_native => format!("{name} fails, and may be tried again"),
        What::Unreachable => format!("{name} cannot be reached"),
        What::Redirected { done } => format!("{name} answers with a redirect{}", effect(*done)),
        What::OutputLost => format!("{name} is done, and its output is too large to be kept"),
        What::WorkerLost { done } => {
            format!("the worker stops during the call of {name}{}; another worker takes it over", effect(*done))
        }
        What::NobodyKnows => format!("nobody knows whether {name} was done"),
        What::SaidDone { .. } => format!("`verify` says that {name} was done"),
        What::SaidNotDone { late: false } => format!("`verify` says that {name} was not done"),
        What::SaidNotDone { late: true } => {
            format!("`verify` says that {name} was not done, while its call is under way; then it is done")
        }
        What::Unanswered => format!("`verify` of {name} gives no answer"),
        What::CannotTell => format!("`verify` of {name} cannot tell"),
        What::StepDeadlinePasses => format!("the deadline of {name} passes"),
        What::Unevaluable { message } => format!("{name} cannot be called, since {message}"),
        What::Rests => format!("{name} rests"),
        What::Slept => format!("{name} is over"),
        What::Signalled { output } if calls_back(&world.definition, id) => {
            with_chosen(world, id, *output, format!("the callback of {name} comes"))
        }
        What::Accepted { done } => format!("{name} answers 202{}", effect(*done)),
        What::CalledBackFailed { retryable: false } => format!("the callback of {name} says that it failed"),
        What::CalledBackFailed { retryable: true } => {
            format!("the callback of {name} says that it failed, and may be tried again")
        }
        What::NotCalledBack { done } => format!("no callback of {name} comes in time{}", effect(*done)),
        What::Polled { output } => match chosen(world, id, *output) {
            Some(chosen) => format!("the poll of {name} says that it is over, with {chosen}"),
            None => format!("the poll of {name} says that it is over"),
        },
        What::NotYet => format!("the poll of {name} says that it is not over"),
        What::PollRefused { done } => format!("the poll of {name} is refused{}", effect(*done)),
        What::PolledInVain { done } => {
            format!("the poll of {name} says for too long that it is not over{}", effect(*done))
        }
        What::Signalled { output } => with_chosen(world, id, *output, format!("the signal for {name} comes")),
        What::Rejected => format!("somebody rejects {name}"),
        What::WaitedInVain => format!("no signal comes for {name} in time"),
        What::SkippedAnew => format!("the `when` of {name} does not hold any more"),
        What::DeadlinePasses => "the job's deadline passes".to_owned(),
        What::DeadlineFound => format!("{name} is not called, since the deadline has passed"),
        What::Cancelled => format!("somebody cancels the job before {name} is called"),
        What::RuledDone { output } => with_chosen(world, id, *output, format!("an operator says that {name} was done")),
        What::RuledNotDone => format!("an operator says that {name} was not done"),
        What::RuledUndone => format!("an operator says that {name} was undone by hand"),
        What::Resumed => "an operator sends the job on".to_owned(),
    }
}

/// What was told, with the output where it makes a difference.
fn with_chosen(world: &World, step: &str, output: usize, told: String) -> String {
    match chosen(world, step, output) {
        Some(output) => format!("{told} with {output}"),
        None => told,
    }
}

fn calls_back(definition: &Definition, step: &str) -> bool {
    definition.step(step).is_some_and(|step| step.callback().is_some())
}

/// The output, where it makes a difference.
fn chosen<'w>(world: &'w World, step: &str, output: usize) -> Option<&'w serde_json::Value> {
    let outputs = world.domain.outputs.get(world.index_of(step)?)?;
    outputs.get(output).filter(|_| outputs.len() > 1)
}

fn is_native(definition: &Definition, happening: &Happening) -> bool {
    let action = definition.step(&happening.step).and_then(|step| step.action(happening.phase));
    action.is_some_and(|action| matches!(action.call, Call::Native(_)))
}
