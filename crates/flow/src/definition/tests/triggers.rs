//! `on`: one trigger of a flow, its secrets by name, and what its records must be.

use super::*;

fn with(on: &str) -> String {
    format!("flow: t\non: {on}\nsteps:\n  - {{ id: one, native: one }}\n")
}

#[test]
fn a_webhook_names_its_secrets_and_the_headers_of_its_input() {
    let flow = parse(&with("{ webhook: { verify: github, secrets: [GITHUB, OLD_2], headers: [X-GitHub-Event] } }"));
    let flow = flow.unwrap();
    let webhook = flow.trigger().unwrap().webhook().unwrap();
    assert_eq!((webhook.verify, webhook.tolerance_ms), (Scheme::Github, None));
    assert_eq!(webhook.secrets, ["GITHUB", "OLD_2"]);
    let header = |name: &str| (name == "x-github-event").then(|| "push".to_owned());
    let input = webhook.input(json!({ "a": 1 }), header);
    assert_eq!(input, json!({ "headers": { "x-github-event": "push" }, "body": { "a": 1 } }));
    let plain = parse(&with("{ webhook: { verify: slack, secrets: [S] } }")).unwrap();
    let plain = plain.trigger().unwrap().webhook().unwrap();
    assert_eq!((plain.input(json!([1]), header), plain.tolerance_ms), (json!([1]), Some(300_000)));
    let again = Definition::from_document(flow.document()).unwrap();
    assert_eq!(again.trigger().unwrap().webhook().unwrap().secrets, ["GITHUB", "OLD_2"]);
}

#[test]
fn a_topics_records_are_filtered_and_have_ids_of_their_own() {
    let on = "{ topic: shop.orders, filter: \"{{ input.paid }}\", id: \"order {{ input.no }}\", format: avro }";
    let flow = parse(&with(on)).unwrap();
    let topic = flow.trigger().unwrap().topic().unwrap();
    assert_eq!((topic.name.as_str(), topic.format, topic.from), ("shop.orders", Format::Avro, ReadFrom::Applied));
    assert_eq!(topic.picks.takes(&json!({ "paid": true, "no": 7 })), Ok(true));
    assert_eq!(topic.picks.takes(&json!({ "paid": false })), Ok(false));
    assert!(topic.picks.takes(&json!({ "paid": 1 })).unwrap_err().contains("neither true nor false"));
    assert!(topic.picks.takes(&json!({})).unwrap_err().contains("input.paid"));
    assert_eq!(topic.picks.id(&json!({ "no": 7 })), Ok(Some("order 7".to_owned())));
    assert!(topic.picks.id(&json!({})).unwrap_err().contains("input.no"));
}

#[test]
fn what_is_no_trigger_is_refused_with_what_would_do() {
    for (on, said) in [
        ("{}", "`on` has 0 of `webhook`, `cron` and `topic`"),
        ("{ cron: \"0 6 * * *\", topic: t }", "`on` has 2 of"),
        ("{ topc: t }", "did you mean `topic`?"),
        ("{ topic: \"a b\" }", "`topic` cannot be `a b`"),
        ("{ topic: t, format: xml }", "`format` cannot be `xml`"),
        ("{ topic: t, filter: \"yes\" }", "`filter` is not an expression"),
        ("{ topic: t, filter: \"{{ env.A }}\" }", "`env` is not known here"),
        ("{ topic: t, timezone: UTC }", "`timezone` belongs to `cron`, not to `topic`"),
        ("{ webhook: { verify: github } }", "`webhook` has no `secrets`"),
        ("{ webhook: { verify: githb, secrets: [S] } }", "did you mean `github`?"),
        ("{ webhook: { verify: github, secrets: [] } }", "`secrets` has 0 entries"),
        (
            "{ webhook: { verify: github, secrets: [S], tolerance: 5m } }",
            "`tolerance` is not of use with `verify: github`",
        ),
        ("{ webhook: { verify: stripe, secrets: [S], id: \"{{ input.id }}\" } }", "`id` is not of use"),
        ("{ webhook: { verify: stripe, secrets: [S], tolerance: 2d } }", "`2d` is too long"),
        ("{ webhook: { verify: hmac, secrets: [S], headers: [\"a b\"] } }", "`a b` is no name of a header"),
    ] {
        refused(&with(on), &[said]);
    }
    refused(
        &format!("{}upload: {{ media_types: [a/b] }}\n", with("{ topic: t }")),
        &["a flow with `upload` has no `on`"],
    );
}

#[test]
fn a_secret_that_stands_in_the_flow_itself_is_refused_and_not_repeated() {
    let shown = problems(&with("{ webhook: { verify: standard, secrets: [whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw] } }"));
    assert!(shown.contains("this is not the name of a secret") && shown.contains("MEANWHILE_SECRET_GITHUB"), "{shown}");
    assert!(!shown.contains("MfKQ"), "{shown}");
}
