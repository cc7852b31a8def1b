use serde_json::{Value, json};

use super::schema::{How, narrowings, narrowings_within};
use super::*;

const ORDER: &str = r#"
flow: order
route: POST /orders
key: "{{ input.customer_id }}"
deadline: 15m
input:
  type: object
  additionalProperties: false
  required: [customer_id, qty]
  properties:
    customer_id: { type: string, maxLength: 64 }
    qty: { type: integer, minimum: 1, maximum: 100 }
    note: { type: string }
    lines: { type: array, items: { type: object, properties: { sku: { enum: [tea, cup] } } } }
steps:
  - id: reserve
    http: { method: POST, url: "http://shop/reservations", expose: true }
    timeout: 5s
    compensate: { http: { method: DELETE, url: "http://shop/reservations/1" } }
  - id: charge
    native: charge
result:
  tracking: "{{ steps.charge.output.tracking }}"
  parcel: { weight_g: "{{ steps.reserve.output.weight_g }}" }
"#;

fn parse(text: &str) -> Definition {
    let parsed = Definition::parse_yaml("test.yaml", text, &mut |_| Err("no references here".to_owned()));
    parsed.unwrap_or_else(|problems| panic!("{problems:?}\n{text}"))
}

/// The changes of the order flow when one text in it becomes another.
#[track_caller]
fn edited(from: &str, to: &str) -> Vec<Change> {
    assert!(ORDER.contains(from), "{from}");
    changes(&parse(ORDER), &parse(&ORDER.replace(from, to)))
}

fn told(changes: &[Change]) -> String {
    changes.iter().map(Change::to_string).collect::<Vec<_>>().join("\n")
}

/// This edit is breaking, at this place, and both sentences say these words.
#[track_caller]
fn breaks(from: &str, to: &str, place: &str, words: &str) {
    let changes = edited(from, to);
    let found = changes.iter().any(|change| {
        change.is_breaking && change.place == place && format!("{}; {}", change.what, change.why).contains(words)
    });
    assert!(found, "{from} -> {to}: no `{words}` at `{place}` in\n{}", told(&changes));
}

/// This edit is told with these words, and nothing of it is breaking.
#[track_caller]
fn is_fine(from: &str, to: &str, words: &str) {
    let changes = edited(from, to);
    assert!(!changes.iter().any(|change| change.is_breaking), "{from} -> {to}:\n{}", told(&changes));
    assert!(told(&changes).contains(words), "{from} -> {to}: no `{words}` in\n{}", told(&changes));
}

#[test]
fn an_input_that_was_taken_must_still_be_taken() {
    breaks("[customer_id, qty]", "[customer_id, qty, note]", "input /note", "required now; callers that leave it out");
    breaks("    note: { type: string }\n", "", "input /note", "no longer taken");
    breaks("maximum: 100", "maximum: 50", "input /qty", "`maximum`: 100 -> 50");
    breaks("minimum: 1,", "minimum: 2,", "input /qty", "`minimum`: 1 -> 2");
    breaks("note: { type: string }", "note: { type: integer }", "input /note", "`type`: \"string\" -> \"integer\"");
    breaks("note: { type: string }", "note: { type: string, pattern: x }", "input /note", "`pattern`: none -> \"x\"");
    breaks("note: { type: string }", "note: { type: string, not: { const: x } }", "input /note", "`not`");
    breaks("[tea, cup]", "[tea]", "input /lines/*/sku", "`enum`");
    breaks("maxLength: 64", "maxLength: 64, minLength: 1", "input /customer_id", "`minLength`: none -> 1");
}

#[test]
fn an_input_may_take_more() {
    is_fine("[customer_id, qty]", "[customer_id]", "input /qty: no longer required");
    is_fine("note: { type: string }", "note: { type: string }\n    tag: { type: string }", "input /tag: new");
    is_fine("maximum: 100", "maximum: 200", "`maximum`: 100 -> 200; more inputs are taken");
    is_fine(
        "note: { type: string }",
        "note: { type: [string, \"null\"] }",
        "`type`: \"string\" -> [\"string\",\"null\"]",
    );
    is_fine("qty: { type: integer", "qty: { type: number", "`type`: \"integer\" -> \"number\"");
    is_fine("[tea, cup]", "[tea, cup, pot]", "`enum`");
    is_fine("  additionalProperties: false\n", "", "other properties are taken now");
    is_fine("note: { type: string }", "note: { type: string, title: A note }", "only described differently");
}

#[test]
fn a_property_that_is_new_and_required_is_told_once() {
    let edited = ORDER.replace("qty]", "qty, tag]").replace("    qty: {", "    tag: { type: string }\n    qty: {");
    let changes = changes(&parse(ORDER), &parse(&edited));
    assert_eq!(changes.iter().filter(|change| change.place == "input /tag").count(), 1, "{}", told(&changes));
}

#[test]
fn an_address_that_goes_or_moves_is_missed() {
    breaks("POST /orders", "POST /v2/orders", "route", "`POST /orders` is gone; its callers get 404 or 405");
    breaks("POST /orders", "PUT /orders", "route", "`POST /orders` is gone");
    breaks("route: POST /orders\n", "", "route", "`POST /v1/flows/order/jobs` stays");
    let (bare, order) = (parse(&ORDER.replace("route: POST /orders\n", "")), parse(ORDER));
    assert_eq!(told(&changes(&bare, &order)), "fine      route: `POST /orders` is new; one more address of the flow");
}

#[test]
fn an_answer_that_clients_know_cannot_change_unnoticed() {
    let respond = |respond: &str| format!("{ORDER}respond: {respond}\n");
    let between = |old: &str, new: &str| told(&changes(&parse(old), &parse(new)));
    let created = respond("{ status: 201, headers: { x-a: b }, body: { id: '{{ job.id }}' } }");
    let fine = respond("{ status: 201, headers: { x-a: b, x-c: d }, body: { id: '{{ job.id }}', n: 1 } }");
    assert!(changes(&parse(&created), &parse(&fine)).iter().all(|change| !change.is_breaking));
    assert!(between(ORDER, &created).contains("respond: new"));
    assert!(between(&created, ORDER).contains("respond: gone"));
    let other = created.replace("201", "200").replace("x-a: b", "x-b: b").replace("{ id: '", "{ key: '");
    let told = between(&created, &created.replace("201", "200"));
    assert!(told.contains("respond.status: 201 -> 200; clients decide by the status"), "{told}");
    for gone in ["respond.headers.x-a: gone", "respond.body.id: gone"] {
        assert!(between(&created, &other).contains(gone), "{gone}");
    }
    let one = "flow: t\nsteps:\n- { id: a, http: { method: GET, url: 'http://a/' } }\n";
    let two = format!("{one}- {{ id: b, native: f }}\n");
    assert!(between(one, &two).contains("result: gone; it was the answer of the flow's only step"));
    assert!(between(&two, one).contains("result: new; it is the answer of the flow's only step now"));
}

#[test]
fn a_result_may_gain_fields_and_not_lose_them() {
    breaks("  parcel: { weight_g: \"{{ steps.reserve.output.weight_g }}\" }\n", "", "result.parcel", "gone");
    breaks("weight_g: ", "weight_kg: ", "result.parcel.weight_g", "whoever reads it finds nothing");
    breaks("\"{{ steps.charge.output.tracking }}\"", "{ id: 1 }", "result.tracking", "another form");
    is_fine("output.tracking }}\"", "output.tracking_id }}\"", "result.tracking: ");
    is_fine("result:\n", "result:\n  extra: 1\n", "result.extra: new; readers may pass over it");
    let without = ORDER.split_once("result:").unwrap().0;
    assert!(changes(&parse(ORDER), &parse(without)).iter().any(|change| change.is_breaking));
    assert!(!changes(&parse(without), &parse(ORDER)).iter().any(|change| change.is_breaking));
}

#[test]
fn how_a_step_does_its_work_is_its_own() {
    is_fine("timeout: 5s", "timeout: 10s", "step reserve: `timeout`: 5s -> 10s; jobs under way stay on their version");
    is_fine("timeout: 5s", "timeout: 5s\n    settle: 0s", "step reserve: `settle`: 5s -> 0ms; jobs under way");
    is_fine("timeout: 5s", "timeout: 5s\n    cancel: abort", "step reserve: `cancel`: finish -> abort; jobs under way");
    is_fine("timeout: 5s", "retry: { attempts: 9, backoff: 1s..2m }\n    timeout: 5s", "9 attempts, 1s..2m");
    is_fine("http://shop/reservations\"", "http://shop/v2/reservations\"", "`http.url`");
    is_fine(
        "native: charge",
        "native: charge\n    queue: slow",
        "queue slow: new; its jobs wait until workers serve it",
    );
    is_fine("native: charge", "native: charge_card", "native charge_card: new; its jobs wait until workers know it");
    is_fine("native: charge", "native: charge\n  - { id: ship, native: charge }", "step ship: new");
    is_fine("native: charge", "native: charge\n    idempotent: false", "an operator decides");
    let no_result = ORDER.split_once("result:").unwrap().0;
    let conditional = no_result.replace("native: charge", "native: charge\n    when: \"{{ input.qty > 1 }}\"");
    let changed = changes(&parse(no_result), &parse(&conditional));
    assert!(told(&changed).starts_with("fine      step charge: `when`: none -> "), "{}", told(&changed));
    is_fine("reservations/1", "reservations/2", "step reserve compensate: `http.url`");
    is_fine("flow: order", "flow: order\nsummary: For people", "summary");
}

#[test]
fn what_followers_and_callers_hear_of_a_step_stays() {
    let without_result = ORDER.split_once("result:").unwrap().0;
    let renamed = changes(&parse(without_result), &parse(&without_result.replace("id: charge", "id: debit")));
    let wanted = "breaking  step charge: gone; status and events tell of it no more: who follows it waits in vain";
    assert_eq!(told(&renamed), format!("{wanted}\nfine      step debit: new; jobs under way stay on their version"));
    breaks(", expose: true", "", "step reserve", "callers of a failed job get 502");
    breaks("\n    compensate: { http", "\n    # { http", "step reserve compensate", "what the step did stays");
}

#[test]
fn how_a_job_may_end_is_known_to_its_callers() {
    breaks("deadline: 15m", "deadline: 10m", "deadline", "15m -> 10m; jobs that ended in time may now fail with 504");
    breaks("deadline: 15m", "on_failure: park", "on_failure", "waits for an operator");
    breaks("key: \"{{ input.customer_id }}\"\n", "", "key", "-> none; jobs are kept in order by something else");
    is_fine("deadline: 15m", "deadline: 1h", "15m -> 1h");
    is_fine("deadline: 15m\n", "", "15m -> none");
    breaks(
        "deadline: 15m",
        "deadline: 15m\nresult_ttl: 2d",
        "result_ttl",
        "none -> 2d; results that callers still got",
    );
    let kept = "deadline: 15m\nretention: 2d";
    breaks("deadline: 15m", kept, "retention", "none -> 2d; jobs that callers still found may now be unknown");
}

#[test]
fn a_flow_that_goes_breaks_and_one_that_comes_does_not() {
    let (order, other) = (parse(ORDER), parse(&ORDER.replace("flow: order", "flow: other")));
    let diffs = flows(std::slice::from_ref(&order), std::slice::from_ref(&other));
    assert_eq!(
        diffs.iter().map(|diff| (diff.flow.as_str(), diff.is_breaking())).collect::<Vec<_>>(),
        [("order", true), ("other", false)]
    );
    assert!(told(&diffs[0].changes).contains("`POST /orders` and `POST /v1/flows/order/jobs` get 404"), "{diffs:?}");
    assert!(flows(&[order.clone(), other.clone()], &[other, order]).is_empty(), "the order of files means nothing");
}

#[test]
fn breaking_changes_come_first_and_every_difference_of_versions_is_told() {
    let changes = edited("15m", "1h\nsummary: x\non_failure: park");
    assert_eq!(changes.iter().map(|change| change.is_breaking).collect::<Vec<_>>(), [true, false, false]);
    is_fine("deadline: 15m", "deadline: 900s", "written differently; it does the same");
    assert!(edited("deadline: 15m", "deadline: 15m # a comment").is_empty());
}

fn keywords(from: Value, to: Value) -> Vec<(String, How)> {
    narrowings(&from, &to).into_iter().map(|found| (found.pointer, found.how)).collect()
}

#[test]
fn references_are_followed_also_where_they_lead_in_circles() {
    let tree = |kind: &str| {
        json!({
            "$ref": "#/$defs/node",
            "$defs": { "node": {
                "type": "object",
                "properties": {
                    "name": { "type": kind },
                    "children": { "type": "array", "items": { "$ref": "#/$defs/node" } }
                }
            } }
        })
    };
    assert!(keywords(tree("string"), tree("string")).is_empty());
    let found = keywords(tree("string"), tree("integer"));
    assert_eq!(found.iter().map(|(pointer, _)| pointer.as_str()).collect::<Vec<_>>(), ["/name"]);
    let (document, schema) = (
        json!({ "components": { "schemas": { "A": { "type": "string" } } } }),
        json!({
            "$ref": "#/components/schemas/A"
        }),
    );
    assert!(narrowings_within(&document, &schema, &json!({}), &json!({ "type": "string" })).is_empty());
}

#[test]
fn true_takes_everything_and_false_nothing() {
    assert!(keywords(json!({ "type": "string" }), json!(true)).is_empty());
    assert!(keywords(json!({ "type": "string" }), json!({})).is_empty());
    assert!(keywords(json!(false), json!({ "type": "string" })).is_empty());
    assert_eq!(keywords(json!({}), json!(false)), [(String::new(), How::Refused)]);
    assert_eq!(keywords(json!({ "const": 1 }), json!({ "type": "number" })), []);
    assert_eq!(keywords(json!(true), json!({ "type": "number" })).len(), 1);
}

#[test]
fn what_cannot_be_compared_must_be_the_same() {
    let one_of = |kind: &str| json!({ "oneOf": [{ "type": kind }, { "type": "null" }] });
    assert!(keywords(one_of("string"), one_of("string")).is_empty());
    assert_eq!(keywords(one_of("string"), one_of("integer")).len(), 1);
    let refers = |kind: &str| json!({ "not": { "$ref": "#/$defs/x" }, "$defs": { "x": { "type": kind } } });
    assert!(keywords(refers("string"), refers("string")).is_empty());
    assert_eq!(keywords(refers("string"), refers("integer")).len(), 1);
    let described = |text: &str| {
        json!({
            "oneOf": [{ "title": text, "$ref": "#/$defs/x", "properties": { "title": { "const": "kept" } } }],
            "$defs": { "x": { "type": "object", "description": text, "examples": [text] }, "other": { "const": text } },
        })
    };
    assert!(keywords(described("one"), described("two")).is_empty(), "nothing of it refuses a value");
    let mut other = described("one");
    other["oneOf"][0]["properties"]["title"]["const"] = json!("changed");
    assert_eq!(keywords(described("one"), other).len(), 1, "a property is no annotation, whatever its name");
    assert_eq!(keywords(json!({}), json!({ "allOf": [{ "minLength": 2 }] })).len(), 1);
    assert!(keywords(json!({ "anyOf": [{ "minLength": 2 }] }), json!({ "anyOf": [{ "minLength": 1 }] })).is_empty());
}

#[test]
fn the_terms_of_an_address_are_part_of_what_callers_see() {
    let route = "route: POST /orders";
    breaks(route, "route: { at: POST /orders, answer: sync }", "route", "answers async -> sync");
    breaks(route, "route: { at: POST /orders, upstream: \"{{ env.OLD }}/orders\" }", "route", "an old service stands");
    breaks(route, "route: { at: POST /orders, hold: 1s }", "route", "hold 30s -> 1s");
    assert!(!edited(route, "route: { at: POST /orders, hold: 1m }")[0].is_breaking);
}

#[test]
fn another_trigger_is_fine_unless_senders_are_refused_by_it() {
    let with = |on: &str| {
        let text = ORDER.replace("flow: order", &format!("flow: order\n{on}"));
        Definition::parse_yaml("test.yaml", &text, &mut |_| Err("none".to_owned())).unwrap()
    };
    let (none, topic) = (with(""), with("on: { topic: t }"));
    let github = with("on: { webhook: { verify: github, secrets: [A] } }");
    let rotated = with("on: { webhook: { verify: github, secrets: [A, B] } }");
    let stripe = with("on: { webhook: { verify: stripe, secrets: [A] } }");
    let breaks = |old: &Definition, new: &Definition| {
        let changes = changes(old, new);
        assert_eq!((changes.len(), changes[0].place.as_str()), (1, "on"), "{changes:?}");
        changes[0].is_breaking
    };
    assert!(!breaks(&none, &github) && !breaks(&none, &topic) && !breaks(&github, &rotated));
    assert!(breaks(&github, &none) && breaks(&github, &stripe) && breaks(&github, &topic));
}
