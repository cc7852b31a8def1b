use super::*;
use crate::decide::Env;

fn flow(route: &str) -> Result<Definition, Vec<Problem>> {
    parse(&format!("flow: t\nroute: {route}\nsteps: [{{ id: one, native: one }}]\n"))
}

#[test]
fn a_route_is_an_address_or_says_its_terms_too() {
    let plain = flow("POST /orders").unwrap();
    assert_eq!((plain.route().unwrap().to_string(), plain.terms()), ("POST /orders".to_owned(), &Terms::default()));
    assert_eq!((plain.has_upstream(), plain.upstream(&Env::default())), (false, None));
    let whole = flow(
        "{ at: PUT /orders, answer: auto, hold: 1m, latency_budget: 5s, upstream: \"{{ env.OLD }}/orders\", \
         deprecation: { since: \"2026-01-01T00:00:00Z\", sunset: \"2026-02-01T00:00:00+01:00\", link: /docs/moved, \
         successor: /v1/flows/t/jobs, enforce: when_unused } }",
    )
    .unwrap();
    assert_eq!(whole.route().unwrap().to_string(), "PUT /orders");
    let Terms { answer, hold_ms, latency_budget_ms, deprecation } = whole.terms().clone();
    assert_eq!((answer, hold_ms, latency_budget_ms), (Some(Answers::Auto), Some(60_000), Some(5_000)));
    let end = deprecation.unwrap();
    assert_eq!((end.sunset_ms, end.enforce), (Some(1_769_900_400_000), Enforce::WhenUnused));
    let env = |url: &str| Env { vars: [("OLD".to_owned(), url.to_owned())].into(), ..Env::default() };
    assert_eq!(whole.upstream(&env("https://old.example.com/")).unwrap().unwrap(), "https://old.example.com/orders");
    assert!(whole.upstream(&Env::default()).unwrap().unwrap_err().contains("env.OLD"));
    assert!(whole.upstream(&env("old")).unwrap().is_err());
    // What was read from a file is read the same way from its document.
    assert_eq!(Definition::from_document(whole.document()).unwrap().terms(), whole.terms());
}

#[test]
fn terms_that_cannot_hold_are_refused() {
    for (route, told) in [
        ("{ answer: sync }", "has no `at`"),
        ("{ at: POST /v1/x }", "must not lie under `/v1`"),
        ("{ at: POST /x, answr: sync }", "did you mean `answer`?"),
        ("{ at: POST /x, answer: later }", "async, sync, auto"),
        ("{ at: POST /x, hold: 16m }", "too long"),
        ("{ at: POST /x, upstream: \"{{ input.url }}/x\" }", "only from `env.*`"),
        ("{ at: POST /x, upstream: \"{{ env.OLD }}/{{ input.id }}\" }", "`input` is not known here"),
        ("{ at: POST /x, upstream: \"{{ env.OLD }}/x?a=1\" }", "has a query of its own"),
        (
            "{ at: POST /x, deprecation: { since: \"2026-01-01T00:00:00Z\", link: \"<x>\" } }",
            "a path or an http(s) URL",
        ),
    ] {
        let problems = flow(route).unwrap_err().iter().map(ToString::to_string).collect::<Vec<_>>().join("\n");
        assert!(problems.contains(told), "{route}: {problems}");
    }
}
