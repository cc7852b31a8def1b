//! Findings that need no walk: `flows lint` names them.

use flow::definition::{Call, Hint, Problem};
use flow::slip::Phase;

use crate::domain::Domain;
use crate::flow_file::{FlowFile, Part};
use crate::happening::{has_effect, says_nothing};

/// What a proof would find, as far as one look at each step tells.
pub fn hints(file: &FlowFile) -> Vec<Hint> {
    let mut hints = misread_refusals(file);
    hints.extend(constant_conditions(file));
    hints
}

fn misread_refusals(file: &FlowFile) -> Vec<Hint> {
    let mut hints = Vec::new();
    for step in file.definition.steps().iter().filter(|step| has_effect(step)) {
        let Some(Call::Http(http)) = step.action(Phase::Forward).map(|action| &action.call) else { continue };
        if let Some(status) = http.fail_on.iter().find(|status| says_nothing(**status)) {
            let message = format!(
                "`fail_on` of `{}` takes {status} for \"nothing was done\", also when an earlier attempt was done",
                step.id
            );
            let help = format!("leave {status} out, and the step is undone where its outcome is unknown");
            hints.push(hint(file, &Part::Step(step.id.clone()), message, help));
        }
    }
    hints
}

fn constant_conditions(file: &FlowFile) -> Vec<Hint> {
    let domain = Domain::of(file, &[], &[]);
    let mut hints = Vec::new();
    for condition in domain.conditions.iter().filter(|_| domain.is_exhaustive) {
        let Some(value) = condition.constant(&domain.inputs) else { continue };
        let id = &file.definition.steps()[condition.step].id;
        let message = match value {
            true => format!("the `when` of `{id}` holds for every input"),
            false => format!("the `when` of `{id}` holds for no input: the step never runs"),
        };
        hints.push(hint(file, &Part::When(id.clone()), message, "correct it, or take it out".to_owned()));
    }
    hints
}

fn hint(file: &FlowFile, part: &Part, message: String, help: String) -> Hint {
    let place = file.place(part);
    let (file, line, column) = (file.name.clone(), place.line, place.column);
    Hint(Problem { file, line, column, message, expected: None, hint: Some(help) })
}
