//! Answers to a job's caller: as the flow forms them, or as its only service gave them.

use super::*;
use crate::answer::{Answer, Body, Content, content};
use crate::document::{Document, StoredDocument};
use crate::event::JobEvent;

const ONE: &str = "flow: one\nsteps:\n- { id: a, http: { method: POST, url: 'http://a/' } }\n";

fn answered(status: u16, headers: &[(&str, &str)], body: &[u8]) -> HttpAnswer {
    let content_type = headers.iter().find(|(name, _)| *name == "content-type").map(|(_, value)| (*value).to_owned());
    let headers = headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    HttpAnswer::Response { status, retry_after: None, content_type, headers, body: body.to_vec() }
}

/// The last event of a job whose step is answered so.
fn end(flow: &Definition, step: &str, answer: HttpAnswer) -> JobEvent {
    let at = slip_at(flow, step);
    let decision = advance(flow, &at, classify(flow, &at, answer, NOW_MS), NOW_MS);
    assert_eq!(decision.next, Next::End, "{decision:?}");
    decision.events.last().unwrap().clone()
}

fn served(event: &JobEvent) -> (u16, String, Vec<u8>) {
    let Content { media_type, payload } = content(event.answer.as_ref(), event.data.as_ref().unwrap());
    let bytes = payload.bytes().expect("they are here").to_vec();
    (event.answer.as_ref().map_or(200, |answer| answer.status), media_type, bytes)
}

#[test]
fn a_flow_of_one_call_answers_byte_for_byte_as_its_service_did() {
    let flow = flow(ONE);
    let json = "application/json";
    let big = b"{ \"id\" : 12345678901234567890123, \"x\" : 1.10 }\n";
    let compact = b"{\"id\":12345678901234567890123,\"x\":1.10}";
    for (content_type, body, is_carried) in [
        (json, &big[..], true),
        (json, compact, false),
        ("application/problem+json; charset=utf-8", b"{\"a\":null}", false),
        ("text/csv", b"a,b\r\n1,2\r\n", false),
        ("text/plain; charset=iso-8859-1", b"caf\xe9", false),
        ("text/html", b"\xef\xbb\xbf<p>", true),
        ("application/pdf", b"%PDF-1.7\x00\xff\xfe", false),
        ("application/octet-stream", b"{\"a\":1}", true),
        ("application/json", b"", true),
        ("application/json", b"\"text\"", false),
    ] {
        let event = end(&flow, "a", answered(201, &[("content-type", content_type)], body));
        assert_eq!(served(&event), (201, content_type.to_owned(), body.to_vec()), "{content_type}");
        let is_bytes = matches!(event.answer.unwrap().body, Body::Bytes(_));
        assert_eq!(is_bytes, is_carried, "{content_type}: only what does not follow from the result is carried");
    }
    let bare = end(&flow, "a", answered(200, &[], b"{\"a\":1}"));
    assert_eq!(served(&bare), (200, json.to_owned(), b"{\"a\":1}".to_vec()));
    assert_eq!(bare.data, Some(json!({ "a": 1 })), "the output is the result");
}

#[test]
fn of_its_services_headers_only_those_of_the_body_reach_the_caller() {
    let flow = flow(ONE);
    let long = "x".repeat(5_000);
    let headers = [
        ("content-type", "text/csv"),
        ("location", "/orders/7"),
        ("link", "<a>; rel=\"next\""),
        ("link", "<b>; rel=\"last\""),
        ("etag", "\"1\""),
        ("cache-control", &long),
        ("set-cookie", "session=1"),
        ("connection", "close"),
        ("content-length", "3"),
        ("content-encoding", "gzip"),
        ("strict-transport-security", "max-age=1"),
        ("access-control-allow-origin", "*"),
        ("x-internal", "1"),
    ];
    let answer = end(&flow, "a", answered(206, &headers, b"a,b")).answer.unwrap();
    let expected = [
        ("content-type", "text/csv"),
        ("etag", "\"1\""),
        ("link", "<a>; rel=\"next\", <b>; rel=\"last\""),
        ("location", "/orders/7"),
    ];
    assert_eq!(answer.headers, expected.map(|(name, value)| (name.to_owned(), value.to_owned())));
    assert_eq!(answer.status, 200, "nobody who waits for a job has asked for a part");
}

#[test]
fn a_step_that_was_not_answered_leaves_the_result_alone() {
    let skipped = flow(&ONE.replace("id: a,", "id: a, when: '{{ input.n > 9 }}',"));
    let end = start(&skipped, new_job(), NOW_MS).events.pop().unwrap();
    assert_eq!((end.kind, end.data, end.answer), (EventKind::JobSucceeded, Some(Value::Null), None));
    let fallen = flow(&ONE.replace("'http://a/' }", "'http://a/' }, fallback: { value: { none: true } }"));
    let event = advance(&fallen, &slip_at(&fallen, "a"), failed(false, Effect::Refused), NOW_MS).events.pop().unwrap();
    assert_eq!((event.kind, event.answer), (EventKind::JobSucceeded, None));
    assert_eq!(event.data, Some(json!({ "none": true })));
    let two = flow("flow: t\nsteps:\n- { id: a, native: f }\n- { id: b, http: { method: POST, url: 'http://a/' } }\n");
    let event = self::end(&two, "b", answered(201, &[], b"{}"));
    assert_eq!((event.data, event.answer), (Some(Value::Null), None), "of two steps none is the job's");
}

const RESPOND: &str = r#"
flow: respond
steps:
  - id: a
    http: { method: POST, url: "http://a/", keep_headers: [ETag, X-Total] }
  - { id: b, native: f }
respond:
  status: "{{ steps.a.status }}"
  headers: { location: "/orders/{{ steps.a.output.id }}", x-total: "{{ steps.a.headers.x_total | default('none') }}" }
  body: { id: "{{ steps.a.output.id }}", etag: "{{ steps.a.headers.etag }}" }
"#;

#[test]
fn a_flow_answers_with_what_its_steps_answered() {
    let flow = flow(RESPOND);
    let at = slip_at(&flow, "a");
    let headers = [("etag", "\"7\""), ("x-other", "1")];
    let outcome = classify(&flow, &at, answered(202, &headers, b"{\"id\":\"o-1\"}"), NOW_MS);
    let at = slip(&advance(&flow, &at, outcome, NOW_MS));
    assert_eq!(at.answers.len(), 1);
    assert_eq!((at.answers[0].status, at.answers[0].headers.len()), (202, 1), "what is not kept does not travel");
    let event = advance(&flow, &at, ok(Value::Null), NOW_MS).events.pop().unwrap();
    let body = json!({ "id": "o-1", "etag": "\"7\"" });
    let expected = [("location", "/orders/o-1"), ("x-total", "none")];
    let headers = expected.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec();
    assert_eq!(event.answer, Some(Answer { status: 202, headers, body: Body::OfResult }));
    assert_eq!(event.data, Some(body), "without a `result` the body is the result");
    // Done in another way, the step has no answer: the job has no `status` to answer with.
    let decision =
        advance(&flow, &slip(&advance(&flow, &slip_at(&flow, "a"), ok(json!({})), NOW_MS)), ok(json!(1)), NOW_MS);
    let event = decision.events.last().unwrap();
    let told = event.data.as_ref().unwrap()["message"].as_str().unwrap();
    assert_eq!(event.kind, EventKind::JobFailed);
    assert!(told.contains("`respond`: `status`: `steps.a.status` is missing"), "{told}");
}

#[test]
fn an_answer_that_cannot_be_given_fails_the_job_before_it_is_told_as_done() {
    let with = |respond: &str| flow(&format!("flow: t\nsteps:\n- {{ id: a, native: f }}\n{respond}\n"));
    let told = |respond: &str, output: Value| {
        let flow = with(respond);
        let event = advance(&flow, &slip_at(&flow, "a"), ok(output), NOW_MS).events.pop().unwrap();
        match event.kind {
            EventKind::JobSucceeded => "succeeded".to_owned(),
            _ => event.data.unwrap()["message"].as_str().unwrap().to_owned(),
        }
    };
    let status = "respond: { status: '{{ steps.a.output }}' }";
    assert_eq!(told(status, json!(201)), "succeeded");
    assert_eq!(told(status, json!("201")), "`respond`: `status`: \"201\" is no whole number from 200 to 599");
    assert_eq!(told(status, json!(100)), "`respond`: `status`: 100 is no whole number from 200 to 599");
    assert!(told(status, json!(304)).contains("304 answers a condition"));
    let header = "respond: { headers: { x-a: '{{ steps.a.output }}' } }";
    assert!(told(header, json!("a\r\nset-cookie: b")).contains("control character"));
    assert_eq!(told(header, json!("x".repeat(4_096))), "succeeded");
    assert!(told(header, json!("x".repeat(4_097))).contains("`x-a` has 4097 bytes, and may have 4096 at most"));
    let text = "respond: { headers: { content-type: text/csv }, body: '{{ steps.a.output }}' }";
    assert_eq!(told(text, json!("a,b")), "succeeded");
    assert!(told(text, json!({ "a": 1 })).contains("`respond`: `body`: `body` is a mapping, which cannot be sent"));
    let bare = "result: '{{ steps.a.output }}'\nrespond: { status: 204 }";
    assert_eq!(told(bare, json!({ "a": 1 })), "succeeded", "the result is kept, and not sent along");
    let dynamic = "result: 1\nrespond: { status: '{{ steps.a.output }}', body: 2 }";
    assert!(told(dynamic, json!(205)).contains("an answer with the status 205 has none"));
}

#[test]
fn a_body_beside_a_result_is_carried_only_where_it_differs() {
    let with = |body: &str| {
        flow(&format!("flow: t\nsteps:\n- {{ id: a, native: f }}\nresult: 1\nrespond: {{ body: {body} }}\n"))
    };
    let end = |flow: &Definition| advance(flow, &slip_at(flow, "a"), ok(Value::Null), NOW_MS).events.pop().unwrap();
    assert_eq!(end(&with("1")).answer.unwrap().body, Body::OfResult);
    assert_eq!(end(&with("2")).answer.unwrap().body, Body::Value(json!(2)));
    assert_eq!(end(&with("2")).data, Some(json!(1)));
}

#[test]
fn a_document_goes_from_step_to_step_and_to_the_caller_as_its_bytes() {
    let text = r#"
flow: letters
steps:
  - { id: a, http: { method: GET, url: "http://a/" } }
  - { id: b, http: { method: POST, url: "http://b/", body: "{{ steps.a.output }}" } }
respond: { body: "{{ steps.a.output }}" }
"#;
    let pdf = b"%PDF-1.7\r\n\x00\xff";
    let flow_of = |text: &str| {
        let flow = flow(text);
        let at = slip_at(&flow, "a");
        let outcome = classify(&flow, &at, answered(200, &[("content-type", "application/pdf")], pdf), NOW_MS);
        let at = slip(&advance(&flow, &at, outcome, NOW_MS));
        (flow, at)
    };
    let (flow, at) = flow_of(text);
    assert_eq!(Document::of(at.done[0].output.as_ref().unwrap()).unwrap().bytes(), pdf);
    let Prepared::Http(call) = prepare(&flow, &at, &env(), NOW_MS) else { panic!("no call") };
    assert_eq!(call.body.as_ref().and_then(Payload::bytes), Some(&pdf[..]));
    assert_eq!(call.headers, [("content-type".to_owned(), "application/pdf".to_owned())]);
    let event = advance(&flow, &at, ok(Value::Null), NOW_MS).events.pop().unwrap();
    assert_eq!(served(&event), (200, "application/pdf".to_owned(), pdf.to_vec()));

    let typed = text.replace(
        "body: \"{{ steps.a.output }}\" } }",
        "headers: { content-type: x/y }, body: '{{ steps.a.output }}' } }",
    );
    let (flow, at) = flow_of(&typed);
    let Prepared::Http(call) = prepare(&flow, &at, &env(), NOW_MS) else { panic!("no call") };
    assert_eq!(call.headers, [("content-type".to_owned(), "x/y".to_owned())], "the flow's own word wins");
    let within = text.replace("body: \"{{ steps.a.output }}\" } }", "body: ['{{ steps.a.output }}'] } }");
    let (flow, at) = flow_of(&within);
    let Prepared::Http(call) = prepare(&flow, &at, &env(), NOW_MS) else { panic!("no call") };
    assert!(call.body.unwrap().bytes().unwrap().starts_with(b"[{\"$document\":{"), "within a value it is JSON");
}

#[test]
fn a_document_in_the_store_is_an_output_that_follows_from_itself() {
    let document = StoredDocument::new("application/pdf", 7, "0".repeat(64), "a-1".to_owned());
    let headers = vec![("content-type".to_owned(), "application/pdf".to_owned())];
    let kept = HttpAnswer::Kept { status: 201, retry_after: None, headers, document: document.clone() };
    let flow = flow(ONE);
    let event = end(&flow, "a", kept.clone());
    let answer = event.answer.unwrap();
    assert_eq!((answer.status, &answer.body), (201, &Body::OfResult));
    assert_eq!(StoredDocument::of(&event.data.unwrap()), Some(document.clone()));
    for (passing, sent, effect) in [(true, true, Effect::Unknown), (false, false, Effect::Unsent)] {
        let answer = HttpAnswer::StoreFailed { cause: "it is down".to_owned(), passing, sent };
        assert_eq!(told_by(&answer), Told::Nothing, "it is not the downstream's failure");
        let outcome = classify(&flow, &slip_at(&flow, "a"), answer, NOW_MS);
        let Outcome::Failed { error, retryable, effect: told, .. } = outcome else { panic!("{outcome:?}") };
        assert_eq!((error.code.as_str(), retryable, told), (code::DOCUMENT_STORE, passing, effect));
    }
    assert_eq!(told_by(&kept), Told::Answered);

    let two = "flow: two\nsteps:\n- { id: a, http: { method: POST, url: 'http://a/' } }\n\
               - { id: b, http: { method: PUT, url: 'http://b/', body: '{{ steps.a.output }}' } }\n";
    let flow = super::flow(two);
    let at = slip_at(&flow, "a");
    let at = slip(&advance(&flow, &at, classify(&flow, &at, kept, NOW_MS), NOW_MS));
    let Prepared::Http(call) = prepare(&flow, &at, &env(), NOW_MS) else { panic!("no call") };
    assert_eq!((call.body, call.headers.len()), (Some(Payload::Stored(document)), 1));
}
