use super::completions::answer;
use super::*;
use crate::decide::{ClientAuth, TokenClient};

const GUARDED: &str = r#"
flow: guarded
steps:
  - id: make
    auth:
      oauth2:
        { token_url: "{{ env.A }}/token", client_id: "{{ env.ID }}", client_secret: "{{ secrets.S }}", scope: "a b" }
    http: { method: POST, url: "{{ env.A }}/make" }
    poll: { url: "{{ env.A }}/made", until: "{{ response.status == 200 }}" }
    compensate: { http: { method: DELETE, url: "{{ env.A }}/make" } }
  - id: once
    auth: { basic: { username: me, password: "{{ secrets.S }}" } }
    http: { method: POST, url: "{{ env.A }}/once" }
    idempotent: false
    verify: { http: { url: "{{ env.A }}/once" }, done_when: "{{ response.status == 200 }}" }
    compensate: { auth: { bearer: "{{ secrets.S }}" }, http: { method: DELETE, url: "{{ env.B }}/once" } }
"#;

fn surroundings(secret: &str) -> Env {
    let vars = [("A", "http://a"), ("B", "http://b"), ("ID", "me:too")];
    let text = |(name, value): (&str, &str)| (name.to_owned(), value.to_owned());
    Env { vars: vars.map(text).into(), secrets: [text(("S", secret))].into(), ..Env::default() }
}

#[track_caller]
fn call(slip: &Slip, secret: &str) -> HttpCall {
    match prepare(&flow(GUARDED), slip, &surroundings(secret), NOW_MS) {
        Prepared::Http(call) => call,
        other => panic!("{other:?}"),
    }
}

fn client() -> TokenClient {
    *call(&slip_at(&flow(GUARDED), "make"), "p%:\n").token_client.unwrap()
}

#[test]
fn credentials_go_with_every_request_of_a_step() {
    let definition = flow(GUARDED);
    let make = slip_at(&definition, "make");
    let expected = client();
    assert_eq!((expected.token_url.as_str(), expected.id.as_str()), ("http://a/token", "me:too"));
    assert_eq!((expected.secret.as_str(), expected.scope.as_deref()), ("p%:", Some("a b")));
    let polled =
        match advance(&definition, &make, classify(&definition, &make, answer(202, &json!({})), NOW_MS), NOW_MS) {
            Decision { next: Next::Hold(hold), .. } => hold.slip,
            other => panic!("{other:?}"),
        };
    let undo = Slip { phase: Phase::Undo, ..make };
    for slip in [&polled, &undo] {
        assert_eq!(call(slip, "p%:\n").token_client.as_deref(), Some(&expected));
    }
    assert_eq!(call(&polled, "p").method, "GET");
    let once = slip_at(&definition, "once");
    let of = |slip: &Slip| call(slip, "hunter2").headers;
    let header = |value: &str| [("authorization".to_owned(), value.to_owned())];
    assert_eq!(of(&once), header("Basic bWU6aHVudGVyMg=="));
    let undo = Slip { phase: Phase::Undo, ..once.clone() };
    assert_eq!(of(&undo), header("Bearer hunter2"), "an undo may have its own");
    let failed = classify(&definition, &once, HttpAnswer::TimedOut, NOW_MS);
    let asks = match advance(&definition, &lost(&definition, &once), failed, NOW_MS).next {
        Next::Hold(hold) => hold.slip,
        other => panic!("{other:?}"),
    };
    let asks = Slip { released: None, ..asks };
    assert!(asks_first(&definition, &asks), "{asks:?}");
    assert_eq!((call(&asks, "hunter2").method.as_str(), of(&asks)), ("GET", header("Basic bWU6aHVudGVyMg==").into()));
}

#[test]
fn a_secret_that_is_not_there_is_waited_for_and_one_that_no_header_can_hold_fails_the_step() {
    let definition = flow(GUARDED);
    let once = slip_at(&definition, "once");
    let missing = prepare(&definition, &once, &Env { secrets: [].into(), ..surroundings("") }, NOW_MS);
    assert!(matches!(&missing, Prepared::Missing(missing) if missing.what.contains("secrets.S")), "{missing:?}");
    let undo = Slip { phase: Phase::Undo, ..once };
    for secret in ["", "sesame\nopen", "sesame open", "sésame"] {
        let prepared = prepare(&definition, &undo, &surroundings(secret), NOW_MS);
        let Prepared::Outcome(Outcome::Failed { error, retryable: false, .. }) = prepared else {
            panic!("{prepared:?}")
        };
        assert!(error.message.contains("`bearer`") && !error.message.contains("same"), "{error:?}");
    }
}

#[test]
fn a_client_says_who_it_is_as_the_standard_has_it() {
    let client = client();
    let request = client.request();
    // RFC 6749 section 2.3.1: both are form-encoded first.
    let authorization = request.headers.iter().find(|(name, _)| *name == "authorization").unwrap();
    assert_eq!(authorization.1, "Basic bWUlM0F0b286cCUyNSUzQQ==", "me%3Atoo:p%25%3A");
    assert_eq!(request.body, "grant_type=client_credentials&scope=a+b");
    let client = TokenClient { auth: ClientAuth::Body, audience: Some("https://x/".to_owned()), scope: None, ..client };
    let request = client.request();
    assert!(request.headers.iter().all(|(name, _)| *name != "authorization"));
    let expected = "grant_type=client_credentials&client_id=me%3Atoo&client_secret=p%25%3A&audience=https%3A%2F%2Fx%2F";
    assert_eq!(request.body, expected);
}

#[test]
fn a_token_endpoint_that_is_down_may_pass_and_a_refusal_does_not() {
    let issued = |status: u16, body: Value| client().issued(answer(status, &body));
    let token = issued(200, json!({ "access_token": "t1", "token_type": "bearer", "expires_in": 60 })).unwrap();
    assert_eq!((token.value.as_str(), token.lifetime_s), ("t1", 60));
    let lifetime_s = |body: Value| issued(200, body).unwrap().lifetime_s;
    assert_eq!(lifetime_s(json!({ "access_token": "t", "token_type": "Bearer", "expires_in": "7" })), 7);
    assert_eq!(lifetime_s(json!({ "access_token": "t", "token_type": "Bearer" })), 300);
    for (status, body, passing, word) in [
        (503, json!("hunter2"), true, "503"),
        (429, json!({}), true, "429"),
        (400, json!({ "error": "invalid_client", "error_description": "hunter2" }), false, "`invalid_client`"),
        (401, json!({ "error": "hunter2" }), false, "401; check the client's id"),
        (302, json!({}), false, "302"),
        (200, json!("hunter2"), false, "`access_token`"),
        (200, json!({ "access_token": "hunter2", "token_type": "mac" }), false, "`token_type`"),
        (200, json!({ "access_token": "hunter2\r\n", "token_type": "bearer" }), false, "no header can hold"),
    ] {
        let refused = issued(status, body).unwrap_err();
        assert_eq!(refused.passing, passing, "{refused:?}");
        assert!(refused.cause.starts_with("no access token from `a`: ") && refused.cause.contains(word), "{refused:?}");
        assert!(!refused.cause.contains("hunter2"), "{refused:?}");
    }
    for down in [HttpAnswer::TimedOut, HttpAnswer::ConnectFailed("no".to_owned())] {
        assert!(client().issued(down).unwrap_err().passing);
    }
}

#[test]
fn without_a_token_nothing_was_done_and_its_endpoint_counts_as_the_service() {
    let definition = flow(GUARDED);
    let make = slip_at(&definition, "make");
    for passing in [true, false] {
        let no_token = HttpAnswer::NoToken { cause: "no".to_owned(), passing, retry_after: Some("7".to_owned()) };
        assert_eq!(told_by(&no_token), if passing { Told::Failed } else { Told::Nothing });
        match classify(&definition, &make, no_token, NOW_MS) {
            Outcome::Failed { error, retryable, effect, retry_after_ms } => {
                assert_eq!((error.code.as_str(), retryable, effect), (code::NO_TOKEN, passing, Effect::Unsent));
                assert_eq!(retry_after_ms, Some(7_000));
            }
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn secrets_are_not_shown_by_debug() {
    let make = call(&slip_at(&flow(GUARDED), "make"), "hunter2");
    let once = call(&slip_at(&flow(GUARDED), "once"), "hunter2");
    for shown in [format!("{make:?}"), format!("{once:?}"), format!("{:?}", surroundings("hunter2"))] {
        assert!(!shown.contains("hunter2") && !shown.contains("bWU6"), "{shown}");
    }
}
