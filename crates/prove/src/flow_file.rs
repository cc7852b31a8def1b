//! A flow's file: its definition, and where its parts stand.

use std::collections::BTreeMap;

use flow::definition::{Content, Definition, Node, Place, Problem, ResolveRef, read_yaml};

/// A flow, and the places of its parts.
#[derive(Debug, Clone)]
pub struct FlowFile {
    /// The file's name, as it was given.
    pub name: String,
    /// The flow, with its calls made: a sandbox is proved and tested as the flow that it becomes.
    pub definition: Definition,
    /// By part: a step's id, or a key of the flow.
    places: BTreeMap<Part, Place>,
}

/// A part of a flow to which a finding points.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Part {
    Step(String),
    When(String),
    Compensation(String),
    Result,
}

impl FlowFile {
    /// Reads a flow file.
    ///
    /// # Errors
    /// Every problem that `flows lint` finds.
    pub fn parse(name: &str, text: &str, resolve_ref: &mut ResolveRef<'_>) -> Result<Self, Vec<Problem>> {
        let definition = Definition::parse_yaml(name, text, resolve_ref)?.for_real();
        let (_, root) = read_yaml(name, text)?;
        Ok(Self { name: name.to_owned(), definition, places: places(&root) })
    }

    /// The line and the column of a part, from 1.
    pub(crate) fn place(&self, part: &Part) -> Place {
        self.places.get(part).copied().unwrap_or_default()
    }
}

fn places(root: &Node) -> BTreeMap<Part, Place> {
    let mut places = BTreeMap::new();
    if let Some((place, _)) = entry(root, "result") {
        places.insert(Part::Result, place);
    }
    let Some((_, Node { content: Content::List(steps), .. })) = entry(root, "steps") else { return places };
    for step in steps {
        let Some((_, Node { content: Content::Text(id), .. })) = entry(step, "id") else { continue };
        places.insert(Part::Step(id.clone()), step.place);
        for (key, part) in [("when", Part::When(id.clone())), ("compensate", Part::Compensation(id.clone()))] {
            if let Some((place, _)) = entry(step, key) {
                places.insert(part, place);
            }
        }
    }
    places
}

fn entry<'n>(node: &'n Node, name: &str) -> Option<(Place, &'n Node)> {
    let Content::Map(entries) = &node.content else { return None };
    entries.iter().find(|(key, _)| key.text == name).map(|(key, node)| (key.place, node))
}
