use serde_json::{Value, json};

use super::*;

fn flow(route: &str) -> Definition {
    let text = format!("flow: order\nroute: {route}\nsteps: [{{ id: one, native: one }}]\n");
    Definition::parse_yaml("test.yaml", &text, &mut |_| Err("no references here".to_owned())).unwrap()
}

fn old() -> Definition {
    flow("{ at: POST /orders, upstream: \"{{ env.OLD }}/orders\", hold: 7s }")
}

fn flags(document: Value) -> Flags {
    Flags::read(&document).unwrap_or_else(|problems| panic!("{problems:?}"))
}

fn problems(document: Value) -> String {
    let problems = Flags::read(&document).unwrap_err();
    problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
}

fn durable(percent: u32) -> Flags {
    flags(json!({ "durable": { "percent": percent } }))
}

#[test]
fn a_share_of_the_values_is_in_and_stays_in_as_the_share_grows() {
    let flow = old();
    let values: Vec<String> = (0..10_000).map(|number| format!("customer-{number}")).collect();
    let is_in =
        |percent: u32, value: &str| Rules::of(&flow, &durable(percent)).execution(Some(value)) == Execution::Durable;
    for percent in [0, 1, 10, 25, 50, 99, 100] {
        let count = values.iter().filter(|value| is_in(percent, value)).count() as f64;
        // Five standard deviations of a fair draw.
        let (expected, spread) = (f64::from(percent) * 100.0, (f64::from(percent * (100 - percent))).sqrt());
        assert!((count - expected).abs() <= 5.0 * spread, "{percent} %: {count}");
    }
    for pair in [0, 1, 10, 25, 50, 99, 100].windows(2) {
        assert!(values.iter().all(|value| !is_in(pair[0], value) || is_in(pair[1], value)), "{pair:?}");
    }
}

#[test]
fn places_are_the_same_in_every_version_of_this_program() {
    assert_eq!(["alice", "bob", ""].map(|value| place("order", value)), PLACES);
    assert_ne!(place("order", "alice"), place("refund", "alice"));
}

/// `sha256("order\0alice")` and so on, its first eight bytes modulo 10,000, reckoned by another program.
const PLACES: [u32; 3] = [5505, 1991, 4913];

#[test]
fn lists_stand_over_the_share_and_deny_over_allow() {
    let flow = old();
    let document = json!({ "durable": { "percent": 0, "by": "tenant", "allow": ["a", "b"], "deny": ["b"] } });
    let flags = flags(document);
    let rules = Rules::of(&flow, &flags);
    assert!(rules.depends_on_value());
    let of = |value: Option<&str>| rules.execution(value);
    assert_eq!(
        [of(Some("a")), of(Some("b")), of(Some("c")), of(None)],
        [Execution::Durable, Execution::Proxy, Execution::Proxy, Execution::Proxy]
    );
    let whole = durable(100);
    assert_eq!(Rules::of(&flow, &whole).execution(None), Execution::Durable);
    assert!(!Rules::of(&flow, &whole).depends_on_value());
}

#[test]
fn without_flags_an_old_service_keeps_all_and_a_flow_without_one_has_nothing_to_decide() {
    let (none, old, new) = (Flags::default(), old(), flow("POST /orders"));
    assert_eq!(Rules::of(&old, &none).execution(Some("a")), Execution::Proxy);
    assert_eq!(Rules::of(&old, &none).answers(), Answers::Sync);
    assert_eq!(Rules::of(&new, &none).execution(None), Execution::Durable);
    // Flags outlive the version of a flow that had an old service.
    assert_eq!(Rules::of(&new, &durable(0)).execution(Some("a")), Execution::Durable);
    assert_eq!(Rules::of(&new, &none).answers(), Answers::Async);
}

#[test]
fn a_caller_that_asked_for_nothing_gets_no_202_where_answers_are_synchronous() {
    let flow = old();
    let form = |answer: &str, asking: Asking<'_>| {
        let document = json!({ "answer": answer, "latency_budget": "1s", "async_clients": ["app/2"] });
        let flags = flags(document);
        Rules::of(&flow, &flags).form(asking)
    };
    let plain = Asking::default();
    let prefers = Asking { respond_async: true, ..plain };
    let waits = Asking { waits: true, ..plain };
    let known = Asking { caller: "app/2", ..plain };
    for asking in [plain, prefers, waits, known] {
        assert_eq!(form("async", asking), Form::AsAsked);
    }
    assert_eq!(
        [plain, prefers, waits, known].map(|asking| form("sync", asking)),
        [Form::Owed(7_000), Form::AsAsked, Form::AsAsked, Form::AsAsked]
    );
    let long = |asking| Asking { expected_ms: Some(1_001.0), ..asking };
    assert_eq!([plain, long(plain)].map(|asking| form("auto", asking)), [Form::Owed(7_000); 2]);
    assert_eq!([prefers, known].map(|asking| form("auto", asking)), [Form::Within(1_000); 2]);
    assert_eq!([long(prefers), long(known), waits].map(|asking| form("auto", asking)), [Form::AsAsked; 3]);
}

#[test]
fn flags_stand_over_what_the_flow_says() {
    let flow = flow("{ at: POST /orders, answer: auto, hold: 7s, deprecation: { since: \"2026-01-01T00:00:00Z\" } }");
    let none = Flags::default();
    assert_eq!((Rules::of(&flow, &none).answers(), Rules::of(&flow, &none).hold_ms()), (Answers::Auto, 7_000));
    assert_eq!(Rules::of(&flow, &none).deprecation().unwrap().since_ms, 1_767_225_600_000);
    let over = flags(json!({ "answer": "sync", "hold": "9s",
        "deprecation": { "since": "2026-01-02T00:00:00Z", "sunset": "2026-03-01T00:00:00Z", "enforce": "always" } }));
    assert_eq!((Rules::of(&flow, &over).answers(), Rules::of(&flow, &over).hold_ms()), (Answers::Sync, 9_000));
    assert_eq!(Rules::of(&flow, &over).deprecation().unwrap().since_ms, 1_767_312_000_000);
}

#[test]
fn what_is_no_flag_is_told_with_what_it_could_be() {
    for (document, told) in [
        (json!([]), "a mapping with durable"),
        (json!({ "durabel": { "percent": 1 } }), "did you mean `durable`?"),
        (json!({ "durable": {} }), "has no `percent`"),
        (json!({ "durable": { "percent": 100.01 } }), "a number from 0 to 100"),
        (json!({ "durable": { "percent": 0.001 } }), "at most two decimals"),
        (json!({ "durable": { "percent": "25" } }), "a number from 0 to 100"),
        (json!({ "durable": { "percent": 1, "by": "header:" } }), "header:<name>"),
        (json!({ "durable": { "percent": 1, "allow": ["a\nb"] } }), "in one line"),
        (json!({ "durable": { "percent": 1, "allow": vec!["a"; 1_001] } }), "more than 1000 names"),
        (json!({ "answer": "sometimes" }), "async, sync, auto"),
        (json!({ "hold": "16m" }), "too long"),
        (json!({ "hold": 30 }), "`hold` is `30`"),
        (json!({ "deprecation": { "since": "soon" } }), "an instant"),
        (json!({ "deprecation": { "since": "2026-01-01T00:00:00Z", "enforce": "always" } }), "no `sunset`"),
        (
            json!({ "deprecation": { "since": "2026-01-02T00:00:00Z", "sunset": "2026-01-01T00:00:00Z" } }),
            "`sunset` is earlier than `since`",
        ),
    ] {
        let found = problems(document.clone());
        assert!(found.contains(told), "{document}: {found}");
    }
    let read = flags(json!({ "durable": { "percent": 12.5, "by": "header:X-Customer" } })).durable.unwrap();
    assert_eq!((read.basis_points, read.by), (1_250, By::Header("x-customer".to_owned())));
}
