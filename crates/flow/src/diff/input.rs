//! The meaning of a change of the input's schema for callers.

use serde_json::Value;

use super::schema::{How, Narrowing, narrowings};
use super::{Change, shown};
use crate::definition::{Definition, Upload};

/// The meaning of a change of the documents that are taken.
pub(super) fn upload(old: &Definition, new: &Definition) -> Option<Change> {
    let (before, after) = match (old.upload(), new.upload()) {
        (before, after) if before == after => return None,
        (Some(before), Some(after)) => (before, after),
        (None, _) => return Some(Change::breaking("upload", "new", "callers that send JSON get 415")),
        (_, None) => return Some(Change::breaking("upload", "gone", "callers that send documents get 415")),
    };
    // A star at the place of a name is taken by the same star, and by one at the place of both.
    let lost: Vec<&str> = before.media_types.iter().map(String::as_str).filter(|known| !after.takes(known)).collect();
    let bytes = |upload: &Upload| upload.bytes_max.unwrap_or(u64::MAX);
    Some(if !lost.is_empty() {
        Change::breaking("upload", format!("without {}", lost.join(", ")), "callers that send such documents get 415")
    } else if bytes(after) < bytes(before) {
        Change::breaking("upload", "`max_bytes` is less", "callers that send larger documents get 413")
    } else {
        Change::fine("upload", "wider", "more documents are taken")
    })
}

/// Everything that callers may notice.
pub(super) fn changes(old: &Definition, new: &Definition) -> Vec<Change> {
    let (before, after) = match (old.input_schema(), new.input_schema()) {
        (None, None) => return Vec::new(),
        (None, Some(_)) => {
            return vec![Change::breaking("input", "a schema is new", "inputs that were taken unseen may get 422")];
        }
        (Some(_), None) => return vec![Change::fine("input", "the schema is gone", "any input is taken")],
        (Some(before), Some(after)) if before == after => return Vec::new(),
        (Some(before), Some(after)) => (before, after),
    };
    let narrower = narrowings(before, after);
    let mut changes: Vec<Change> = narrower.iter().filter_map(|found| narrowed(found, &narrower)).collect();
    let wider = narrowings(after, before);
    let same_place = |found: &&Narrowing| !narrower.iter().any(|other| is_same(found, other));
    changes.extend(wider.iter().filter(same_place).filter_map(widened));
    if changes.is_empty() {
        changes.push(Change::fine("input", "only described differently", "the same inputs are taken"));
    }
    changes
}

fn place(found: &Narrowing) -> String {
    if found.pointer.is_empty() { "input".to_owned() } else { format!("input {}", found.pointer) }
}

fn narrowed(found: &Narrowing, all: &[Narrowing]) -> Option<Change> {
    let place = place(found);
    Some(match &found.how {
        How::Required => Change::breaking(place, "required now", "callers that leave it out get 422"),
        How::Refused => Change::breaking(place, "no longer taken", "callers that send it get 422"),
        How::Undeclared => {
            Change::breaking(place, "no longer described", "what callers send there may be ignored without a word")
        }
        How::Declared => {
            let is_required = |other: &Narrowing| other.pointer == found.pointer && other.how == How::Required;
            if all.iter().any(is_required) {
                return None;
            }
            Change::fine(place, "new", "callers may leave it out")
        }
        How::Keyword { keyword, from, to } => {
            Change::breaking(place, said(keyword, from.as_ref(), to.as_ref()), "inputs that were taken may get 422")
        }
    })
}

/// The change for a narrowing from the new schema to the old one: its `from` is the new value.
fn widened(found: &Narrowing) -> Option<Change> {
    let place = place(found);
    match &found.how {
        How::Required => Some(Change::fine(place, "no longer required", "callers may go on sending it")),
        How::Keyword { keyword, from, to } => {
            Some(Change::fine(place, said(keyword, to.as_ref(), from.as_ref()), "more inputs are taken"))
        }
        How::Refused if found.pointer.ends_with("/*") => {
            Some(Change::fine(place, "other properties are taken now", "callers need not send any"))
        }
        How::Refused | How::Declared | How::Undeclared => None,
    }
}

fn is_same(one: &Narrowing, other: &Narrowing) -> bool {
    let keyword = |found: &Narrowing| match &found.how {
        How::Keyword { keyword, .. } => Some(keyword.clone()),
        How::Required | How::Declared | How::Undeclared | How::Refused => None,
    };
    one.pointer == other.pointer && keyword(one).is_some() && keyword(one) == keyword(other)
}

fn said(keyword: &str, from: Option<&Value>, to: Option<&Value>) -> String {
    format!("`{keyword}`: {} -> {}", shown(from), shown(to))
}
