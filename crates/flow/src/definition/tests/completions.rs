use super::*;

fn told(step: &str) -> Vec<String> {
    let text = format!("flow: t\nsteps:\n  - id: s\n{step}");
    match parse(&text) {
        Ok(_) => Vec::new(),
        Err(problems) => problems.iter().map(|problem| format!("{}: {}", problem.line, problem.message)).collect(),
    }
}

const TOLD: &str = "    http: { method: POST, url: 'http://x/a', body: { to: '{{ callback.url }}' } }\n";
const PLAIN: &str = "    http: { method: POST, url: 'http://x/a' }\n";

#[test]
fn a_step_ends_by_its_callback_or_by_its_poll() {
    let poll = "    poll: { url: 'http://x/{{ response.body.id }}', every: 5s, until: '{{ response.status == 200 }}', \
                timeout: 1h }\n";
    let undo = "{ method: DELETE, url: 'http://x' }";
    let told_undo = "{ method: DELETE, url: 'http://x/{{ callback.url }}' }";
    for (step, problems) in [
        (format!("{TOLD}    callback: {{ timeout: 1h }}\n"), vec![]),
        (format!("{PLAIN}{poll}"), vec![]),
        (format!("{PLAIN}{poll}    idempotent: false\n"), vec![]),
        (format!("{PLAIN}    callback: {{ timeout: 1h }}\n"), vec!["5: the request does not tell where to call back"]),
        (format!("{TOLD}    callback: {{}}\n"), vec!["5: `callback` has no `timeout`"]),
        (TOLD.to_owned(), vec!["4: `callback` is not known here: only the request of a step with `callback` has it"]),
        (
            format!("{TOLD}    callback: {{ timeout: 1h }}\n{poll}"),
            vec!["6: a step ends by its `callback` or by its `poll`, not by both"],
        ),
        ("    native: f\n    callback: { timeout: 1h }\n".to_owned(), vec!["5: a native step has no `callback`"]),
        (
            "    sleep: 1s\n    callback: { timeout: 1h }\n".to_owned(),
            vec!["5: a `sleep` has no `callback`: nothing is called"],
        ),
        (
            format!("{PLAIN}    compensate:\n      http: {undo}\n      callback: {{ timeout: 1h }}\n"),
            vec!["7: unknown key `callback` in `compensate`"],
        ),
        (
            format!("{TOLD}    callback: {{ timeout: 1h }}\n    compensate: {{ http: {told_undo} }}\n"),
            vec!["6: `callback` is not known here: only the request of a step with `callback` has it"],
        ),
    ] {
        assert_eq!(told(&step), problems, "{step}");
    }
}

#[test]
fn a_poll_says_how_often_until_what_and_for_how_long() {
    for (poll, problem) in [
        ("url: 'http://x', every: 99ms, until: '{{ true }}', timeout: 1h", "`every`: `99ms` is too short"),
        ("url: 'http://x', every: 1s, until: 'done', timeout: 1h", "`until` is not an expression"),
        ("url: 'http://x', every: 1s, until: '{{ response.stat }}', timeout: 1h", "`response` has no `stat`"),
        ("url: 'http://x', every: 1s, until: '{{ env.A }}', timeout: 1h", "`env` is not known here"),
        ("url: '{{ response.body.url }}/x', until: '{{ true }}'", "the base of a URL may come only from"),
        ("url: '{{ input.url }}', until: '{{ true }}'", "the base of a URL may come only from"),
        ("url: '{{ response.headers.locatoin }}', until: '{{ true }}'", "`response.headers` has no `locatoin`"),
        ("url: '{{ response.headers }}', until: '{{ true }}'", "`response.headers` must be followed by a field"),
        ("url: 'http://x', until: '{{ response.headers.location }}'", "`response` has no `headers`"),
    ] {
        let found = told(&format!("{PLAIN}    poll: {{ {poll} }}\n"));
        assert!(found.len() == 1 && found[0].contains(problem), "{poll}: {found:?}");
    }
    for poll in [
        "url: '{{ response.headers.location }}', until: '{{ response.status == 200 }}'",
        "url: '{{ response.body.links.self }}', every: 1s, until: '{{ true }}', timeout: 1h",
        "url: '{{ env.A }}/x', until: '{{ true }}', headers: { x: '{{ response.headers.operation_location }}' }",
    ] {
        assert_eq!(told(&format!("{PLAIN}    poll: {{ {poll} }}\n")), Vec::<String>::new(), "{poll}");
    }
}

#[test]
fn the_published_schema_names_their_keys() {
    let language: Value = serde_json::from_str(LANGUAGE).unwrap();
    for (name, keys) in [("callback", key::CALLBACK), ("poll", key::POLL)] {
        let known = language["$defs"][name]["properties"].as_object().unwrap();
        assert_eq!(known.keys().collect::<Vec<_>>(), keys, "{name}");
    }
}

#[test]
fn only_the_request_of_a_step_tells_where_to_report_progress() {
    let plain = "{ method: DELETE, url: 'http://x/a' }";
    let asked = "{ method: DELETE, url: 'http://x/{{ progress.url }}' }";
    let unknown = "`progress` is not known here: only the request of a step has it";
    for (step, expected) in [
        (format!("    http: {asked}\n"), vec![]),
        (format!("    http: {plain}\n    compensate: {{ http: {asked} }}\n"), vec![format!("5: {unknown}")]),
        ("    native: f\n    with: { to: '{{ progress.url }}' }\n".to_owned(), vec![format!("5: {unknown}")]),
        (
            format!(
                "    http: {asked}\n    idempotent: false\n    \
                 verify: {{ http: {{ url: 'http://x/{{{{ progress.url }}}}' }}, \
                 done_when: '{{{{ response.status == 200 }}}}' }}\n"
            ),
            vec![format!("6: {unknown}")],
        ),
        (
            "    http: { method: PUT, url: 'http://x', body: '{{ progress.uri }}' }\n".to_owned(),
            vec!["4: `progress` has no `uri`".to_owned()],
        ),
    ] {
        assert_eq!(told(&step), expected, "{step}");
    }
}
