//! The consequences of a changed OpenAPI document for clients that were written by the old one.

use std::fmt;

use flow::diff::schema::{How, Narrowing, narrowings_within};
use serde_json::{Map, Value};

/// One difference.
pub(crate) struct Change {
    pub(crate) is_breaking: bool,
    text: String,
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "  {:<8}  {}", if self.is_breaking { "breaking" } else { "fine" }, self.text)
    }
}

/// All differences; at least one where the documents are not the same.
pub(crate) fn diff(old: &Value, new: &Value) -> Vec<Change> {
    let mut diff = Diff { old, new, changes: Vec::new() };
    let (before, after) = (operations(old), operations(new));
    for (name, operation) in &before {
        match after.iter().find(|(other, _)| other == name) {
            Some((_, other)) => diff.operation(name, operation, other),
            None => diff.breaking(format!("{name}: gone")),
        }
    }
    for (name, _) in after.iter().filter(|(name, _)| !before.iter().any(|(other, _)| other == name)) {
        diff.fine(format!("{name}: new"));
    }
    if diff.changes.is_empty() && old != new {
        diff.fine("described differently".to_owned());
    }
    diff.changes.sort_by_key(|change| !change.is_breaking);
    diff.changes
}

/// `GET /healthz` and what is said of it.
fn operations(document: &Value) -> Vec<(String, &Value)> {
    let items = entries(&document["paths"]);
    let named = |path: &str, method: &str| format!("{} {path}", method.to_uppercase());
    let operations = items.flat_map(|(path, item)| entries(item).map(move |(method, it)| (named(path, method), it)));
    operations.collect()
}

fn entries(value: &Value) -> impl Iterator<Item = (&String, &Value)> {
    value.as_object().into_iter().flatten()
}

struct Diff<'a> {
    old: &'a Value,
    new: &'a Value,
    changes: Vec<Change>,
}

impl<'a> Diff<'a> {
    fn breaking(&mut self, text: String) {
        self.changes.push(Change { is_breaking: true, text });
    }

    fn fine(&mut self, text: String) {
        self.changes.push(Change { is_breaking: false, text });
    }

    fn operation(&mut self, name: &str, before: &'a Value, after: &'a Value) {
        self.parameters(name, before, after);
        let (asked, asks) = (&before["requestBody"], &after["requestBody"]);
        if asks["required"] == true && asked["required"] != true {
            self.breaking(format!("{name}: a body is required now"));
        }
        self.contents(&format!("{name} request"), asked, asks, true);
        let (old, new) = (self.old, self.new);
        for (status, response) in entries(&before["responses"]) {
            let place = format!("{name} {status}");
            match after["responses"].get(status) {
                None => self.breaking(format!("{place}: gone")),
                Some(other) => self.response(&place, resolved(old, response), resolved(new, other)),
            }
        }
        for (status, _) in entries(&after["responses"]).filter(|(status, _)| before["responses"].get(status).is_none())
        {
            self.fine(format!("{name} {status}: new"));
        }
    }

    fn parameters(&mut self, name: &str, before: &'a Value, after: &'a Value) {
        let (before, after) = (parameters(self.old, before), parameters(self.new, after));
        for (id, parameter) in &after {
            let place = format!("{name} {id}");
            let known = before.iter().find(|(other, _)| other == id).map(|(_, known)| *known);
            let was_required = known.is_some_and(|known| known["required"] == true);
            if parameter["required"] == true && !was_required {
                self.breaking(format!("{place}: required now"));
            } else if known.is_none() {
                self.fine(format!("{place}: new"));
            }
            if let Some(known) = known {
                self.schemas(&place, &known["schema"], &parameter["schema"], true);
            }
        }
        for (id, _) in before.iter().filter(|(id, _)| !after.iter().any(|(other, _)| other == id)) {
            self.breaking(format!("{name} {id}: gone, and ignored"));
        }
    }

    fn response(&mut self, place: &str, before: &'a Value, after: &'a Value) {
        for (header, _) in entries(&before["headers"]).filter(|(header, _)| after["headers"].get(header).is_none()) {
            self.breaking(format!("{place} {header}: gone"));
        }
        for (header, _) in entries(&after["headers"]).filter(|(header, _)| before["headers"].get(header).is_none()) {
            self.fine(format!("{place} {header}: new"));
        }
        self.contents(place, before, after, false);
    }

    fn contents(&mut self, place: &str, before: &'a Value, after: &'a Value, is_request: bool) {
        for (media_type, content) in entries(&before["content"]) {
            match after["content"].get(media_type) {
                None => self.breaking(format!("{place} {media_type}: gone")),
                Some(other) => self.schemas(place, &content["schema"], &other["schema"], is_request),
            }
        }
    }

    /// Requests: what was taken must be taken. Answers: what is told must have been told of.
    fn schemas(&mut self, place: &str, before: &Value, after: &Value, is_request: bool) {
        let (one, other) = ((self.old, before), (self.new, after));
        let (from, to) = if is_request { (one, other) } else { (other, one) };
        for Narrowing { pointer, how } in narrowings_within(from.0, from.1, to.0, to.1) {
            let (is_breaking, what) = match (how, is_request) {
                (How::Required, true) => (true, "required now".to_owned()),
                (How::Required, false) => (true, "no longer always there".to_owned()),
                (How::Declared, true) | (How::Undeclared, false) => (false, "new".to_owned()),
                (How::Undeclared, true) | (How::Declared, false) => (true, "gone".to_owned()),
                (How::Refused, true) => (true, "no longer taken".to_owned()),
                (How::Refused, false) => (true, "new, where nothing was to be".to_owned()),
                (How::Keyword { keyword, from, to }, _) => {
                    let (from, to) = if is_request { (from, to) } else { (to, from) };
                    let shown = |value: Option<Value>| value.map_or_else(|| "none".to_owned(), |it| it.to_string());
                    (true, format!("`{keyword}`: {} -> {}", shown(from), shown(to)))
                }
            };
            self.changes.push(Change { is_breaking, text: format!("{place} {pointer}: {what}") });
        }
    }
}

/// `header If-None-Match` and what is said of it.
fn parameters<'a>(document: &'a Value, operation: &'a Value) -> Vec<(String, &'a Value)> {
    let list = operation["parameters"].as_array().into_iter().flatten().map(|it| resolved(document, it));
    let word = |parameter: &Value, member: &str| parameter[member].as_str().unwrap_or_default().to_owned();
    list.map(|parameter| (format!("{} {}", word(parameter, "in"), word(parameter, "name")), parameter)).collect()
}

fn resolved<'a>(document: &'a Value, value: &'a Value) -> &'a Value {
    let target = value["$ref"].as_str().and_then(|target| document.pointer(target.trim_start_matches('#')));
    target.unwrap_or(value)
}

/// The changes when this text of the document becomes another one, each as it is told.
fn edited(change: impl Fn(&mut Value)) -> Vec<String> {
    let old: Value = serde_json::from_str(include_str!("sample.json")).unwrap();
    let mut new = old.clone();
    change(&mut new);
    diff(&old, &new).iter().map(ToString::to_string).collect()
}

fn remove(value: &mut Value, name: &str) {
    let removed = value.as_object_mut().map(|members: &mut Map<String, Value>| members.shift_remove(name));
    assert!(removed.flatten().is_some(), "there is no {name}");
}

#[test]
fn what_a_client_relies_on_cannot_go_unnoticed() {
    type Case = (fn(&mut Value), &'static str);
    let cases: [Case; 12] = [
        (|it| remove(&mut it["paths"], "/jobs"), "POST /jobs: gone"),
        (|it| remove(&mut it["paths"]["/jobs/{job}"], "get"), "GET /jobs/{job}: gone"),
        (|it| remove(&mut it["paths"]["/jobs"]["post"]["responses"], "202"), "POST /jobs 202: gone"),
        (
            |it| remove(&mut it["components"]["responses"]["Accepted"]["headers"], "Location"),
            "POST /jobs 202 Location: gone",
        ),
        (|it| it["components"]["parameters"]["Key"]["required"] = true.into(), "POST /jobs header Key: required now"),
        (
            |it| it["paths"]["/jobs/{job}"]["get"]["parameters"] = Value::Null,
            "GET /jobs/{job} path job: gone, and ignored",
        ),
        (|it| remove(&mut it["components"]["schemas"]["Job"]["properties"], "note"), "GET /jobs/{job} 200 /note: gone"),
        (
            |it| it["components"]["schemas"]["Job"]["required"] = serde_json::json!(["status"]),
            "GET /jobs/{job} 200 /id: no longer always there",
        ),
        (
            |it| it["components"]["schemas"]["Job"]["properties"]["id"]["type"] = "integer".into(),
            "GET /jobs/{job} 200 /id: `type`: \"string\" -> \"integer\"",
        ),
        (
            |it| {
                it["components"]["schemas"]["Job"]["properties"]["status"]["enum"] =
                    serde_json::json!(["running", "lost"])
            },
            "GET /jobs/{job} 200 /status: `enum`: [\"running\"] -> [\"running\",\"lost\"]",
        ),
        (
            |it| it["components"]["schemas"]["Order"]["required"] = serde_json::json!(["sku", "qty"]),
            "POST /jobs request /qty: required now",
        ),
        (
            |it| it["components"]["schemas"]["Order"]["properties"]["qty"]["maximum"] = 5.into(),
            "POST /jobs request /qty: `maximum`: 9 -> 5",
        ),
    ];
    for (change, wanted) in cases {
        let told = edited(change);
        assert!(told.contains(&format!("  breaking  {wanted}")), "no `{wanted}` in\n{}", told.join("\n"));
    }
}

#[test]
fn what_a_client_may_pass_over_is_fine() {
    type Case = (fn(&mut Value), &'static str);
    let cases: [Case; 6] = [
        (|_| {}, ""),
        (|it| it["paths"]["/jobs"]["get"] = serde_json::json!({ "responses": {} }), "  fine      GET /jobs: new"),
        (
            |it| it["components"]["schemas"]["Job"]["properties"]["more"] = serde_json::json!({ "type": "string" }),
            "  fine      GET /jobs/{job} 200 /more: new",
        ),
        (
            |it| it["components"]["schemas"]["Order"]["properties"]["more"] = serde_json::json!({ "type": "string" }),
            "  fine      POST /jobs request /more: new",
        ),
        (
            |it| it["paths"]["/jobs"]["post"]["responses"]["503"] = serde_json::json!({ "description": "x" }),
            "  fine      POST /jobs 503: new",
        ),
        (|it| it["info"]["title"] = "Other".into(), "  fine      described differently"),
    ];
    for (change, wanted) in cases {
        assert_eq!(edited(change).join("\n"), wanted);
    }
}
