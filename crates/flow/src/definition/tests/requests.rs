use super::*;

#[test]
fn only_the_environment_may_say_where_a_request_goes() {
    let url = |url: &str| format!("flow: test\nsteps:\n  - id: a\n    http: {{ method: POST, url: \"{url}\" }}\n");
    for bad in [
        "{{ input.url }}/a",
        "{{ env.A }}{{ input.host }}/a",
        "{{ env.A }}.example.com/a",
        "{{ env.A ~ input.b }}/a",
        "https://{{ input.host }}/a",
        "https://example.com{{ input.a }}",
        "ftp://example.com/a",
        "/a",
        "",
        "{{ env.A }}/a/../b",
        "{{ env.A }}/a/%2E%2e/b",
        "{{ 'https://example.com' }}/a",
    ] {
        refused(&url(bad), &["test.yaml:4:32", "expressions only after the host"]);
    }
    for good in ["{{ env.A }}", "{{ env.A }}/a/{{ input.b }}?c={{ input.d }}", "https://example.com/{{ input.a }}"] {
        assert!(parse(&url(good)).is_ok(), "{good}");
    }
}

#[test]
fn headers_that_meanwhile_sets_are_refused() {
    let header = |name: &str| {
        format!(
            "flow: t\nsteps:\n- id: a\n  http: {{ method: GET, url: '{{{{ env.A }}}}', headers: {{ {name}: x }} }}\n"
        )
    };
    refused(&header("Idempotency-Key"), &["the header `idempotency-key` is set by Meanwhile"]);
    refused(&header("\"a b\""), &["`a b` is not a header's name"]);
    assert!(parse(&header("X-Api-Version")).is_ok());
}

#[test]
fn a_body_that_its_content_type_cannot_hold_is_refused() {
    let step = |content_type: &str, body: &str| {
        format!(
            "flow: t\nsteps:\n- id: a\n  http:\n    method: POST\n    url: '{{{{ env.A }}}}'\n    \
             headers: {{ Content-Type: {content_type} }}\n    body: {body}\n"
        )
    };
    for (content_type, body, why) in [
        ("text/plain", "{ a: 1 }", "`body` is a mapping, which cannot be sent as `text/plain`"),
        ("application/xml", "[1]", "`body` is a list"),
        ("application/octet-stream", "null", "`body` is null"),
        ("application/x-www-form-urlencoded", "[1]", "a mapping, or a text that is encoded already"),
        ("multipart/form-data", "{ a: 1 }", "bodies of several parts are not supported"),
        ("text/plain; charset=klingon", "x", "a charset that is known"),
    ] {
        refused(&step(content_type, body), &["test.yaml:8:5", why]);
    }
    for (content_type, body) in [
        ("application/x-www-form-urlencoded", "{ a: \"{{ input.a }}\" }"),
        ("text/plain", "\"{{ input.text }}\""),
        ("\"{{ input.type }}\"", "{ a: 1 }"),
        ("application/merge-patch+json", "{ a: 1 }"),
    ] {
        assert!(parse(&step(content_type, body)).is_ok(), "{content_type}");
    }
}

#[test]
fn the_ends_of_a_header_are_trimmed_and_a_line_break_within_is_refused() {
    let header = |value: &str| {
        format!(
            "flow: t\nsteps:\n- id: a\n  http:\n    method: GET\n    url: '{{{{ env.A }}}}'\n    headers:\n      \
             authorization: {value}"
        )
    };
    assert!(parse(&header(">\n        Bearer {{ secrets.T }}\n")).is_ok());
    assert!(parse(&header("\" x \\n\"\n")).is_ok());
    refused(
        &header("|\n        Bearer\n        {{ secrets.T }}\n"),
        &["would hold a control character", "test.yaml:9:9"],
    );
}
