use super::*;

fn step(auth: &str, more: &str) -> String {
    format!("flow: t\nsteps:\n- id: a\n  auth: {auth}\n  http: {{ method: POST, url: 'http://a/' }}\n{more}")
}

const BEARER: &str = "{ bearer: '{{ secrets.T }}' }";

#[test]
fn credentials_are_one_kind_and_never_stand_in_a_flow() {
    let login = "token_url: '{{ env.LOGIN }}/token', client_id: me, client_secret";
    for good in [
        BEARER,
        "{ basic: { username: '{{ env.USER }}', password: '{{ secrets.P }}' } }",
        &format!("{{ oauth2: {{ {login}: '{{{{ secrets.S }}}}', scope: 'a b', audience: x, client_auth: post }} }}"),
    ] {
        assert!(parse(&step(good, "")).is_ok(), "{good}: {}", problems(&step(good, "")));
    }
    for (bad, why) in [
        ("{ bearer: abc }", "`bearer` is not one of the worker's secrets"),
        ("{ bearer: '{{ env.TOKEN }}' }", "MEANWHILE_SECRET_NAME"),
        ("{ bearer: '{{ input.token }}' }", "`input` is not known here: credentials depend on the deployment"),
        ("{ bearer: '{{ secrets.A }}{{ steps.a.output }}' }", "`steps` is not known here"),
        ("{ basic: { username: me, password: hunter2 } }", "`password` is not one of the worker's secrets"),
        ("{ basic: { username: me } }", "`basic` has no `password`"),
        ("{ basic: { user: me, password: '{{ secrets.P }}' } }", "unknown key `user`"),
        (&format!("{{ oauth2: {{ {login}: s3cret }} }}"), "`client_secret` is not one of the worker's secrets"),
        ("{ oauth2: { client_id: me, client_secret: '{{ secrets.S }}' } }", "`oauth2` has no `token_url`"),
        (
            &format!("{{ oauth2: {{ {login}: '{{{{ secrets.S }}}}', client_auth: jwt }} }}"),
            "`client_auth` cannot be `jwt`",
        ),
        ("{ oauth2: { token_url: '{{ input.a }}', client_id: a, client_secret: '{{ secrets.S }}' } }", "`env"),
        ("{}", "exactly one way"),
        ("{ bearer: '{{ secrets.T }}', basic: { username: a, password: '{{ secrets.P }}' } }", "exactly one way"),
        ("{ bearrer: '{{ secrets.T }}' }", "did you mean `bearer`?"),
    ] {
        refused(&step(bad, ""), &["test.yaml:4:", why]);
    }
}

#[test]
fn a_step_with_credentials_sends_no_other_ones() {
    let with_header = "headers: { Authorization: x }";
    let undo = "  compensate: { http: { method: DELETE, url: 'http://a/', headers: { authorization: x } } }\n";
    let poll = "  poll: { url: 'http://a/', headers: { authorization: x }, until: '{{ response.status == 200 }}' }\n";
    for flow in [
        step(BEARER, "").replace("url: 'http://a/'", &format!("url: 'http://a/', {with_header}")),
        step(BEARER, undo),
        step(BEARER, poll),
    ] {
        refused(&flow, &["only one of them can be sent"]);
    }
    let native = format!("flow: t\nsteps:\n- id: a\n  auth: {BEARER}\n  native: f\n");
    refused(&native, &["test.yaml:4:3", "a native step has no `auth`"]);
    refused(&format!("flow: t\nsteps:\n- id: a\n  auth: {BEARER}\n  sleep: 1s\n"), &["test.yaml:4:3", "`auth`"]);
}
