//! Bodies of HTTP steps: written as their content type says, read as the answer says, and never too large to be undone.

use std::collections::BTreeSet;

use flow::event::JobStatus;
use serde_json::{Value, json};
use test_kit::{Answer, Receiver};
use workers::Workers;

use crate::stage::Stage;

const FLOW: &str = r#"
flow: shop
steps:
  - id: token
    http:
      method: POST
      url: "{{ env.SHOP_URL }}/token"
      headers: { content-type: application/x-www-form-urlencoded }
      body: { grant: client credentials, n: "{{ input.n }}" }
  - id: use
    http:
      method: POST
      url: "{{ env.SHOP_URL }}/use"
      body: { token: "{{ steps.token.output }}", n: "{{ input.n }}" }
"#;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_body_is_written_as_its_type_says_and_a_number_stays_as_it_was_written() {
    let receiver = Receiver::start().await;
    let mut stage = Stage::new(FLOW).await;
    stage.env.push(("SHOP_URL".to_owned(), receiver.url()));
    receiver.answer_with(|request| match request.uri.path() {
        "/token" => Answer { body: "1e5".into(), ..Answer::status(200) }.header("content-type", "text/plain"),
        _ => Answer::status(204),
    });
    let running = stage.work("a", Workers::builder().build());
    let number = "123456789012345678901234567890";
    stage.submit(serde_json::from_str(&format!(r#"{{"n":{number}}}"#)).unwrap()).await;
    assert_eq!(stage.ends().await[0].status, JobStatus::Succeeded);
    running.stop().await;
    let requests = receiver.requests();
    let bodies: Vec<&str> = requests.iter().map(|request| std::str::from_utf8(&request.body).unwrap()).collect();
    let expected = [format!("grant=client+credentials&n={number}"), format!(r#"{{"token":"1e5","n":{number}}}"#)];
    assert_eq!(bodies, expected);
    let types: Vec<&str> = requests.iter().map(|request| request.header("content-type")).collect();
    assert_eq!(types, ["application/x-www-form-urlencoded", "application/json"]);
    assert!(requests.iter().all(|request| request.header("user-agent").starts_with("meanwhile/")));
    stage.tokens().await;
}

/// The second step fails with a long message, which the slip of the undo carries.
fn flow_with_a_long_failure() -> String {
    let missing = "m".repeat(400);
    format!(
        r#"
flow: shop
steps:
  - id: reserve
    http: {{ method: POST, url: "{{{{ env.SHOP_URL }}}}/reserve", body: "{{{{ input.answer_bytes }}}}" }}
    compensate:
      http: {{ method: DELETE, url: "{{{{ env.SHOP_URL }}}}/reserve" }}
  - id: charge
    http: {{ method: POST, url: "{{{{ env.SHOP_URL }}}}/charge", body: "{{{{ input.{missing} }}}}" }}
"#
    )
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slip_that_just_fits_can_still_be_undone() {
    let receiver = Receiver::start().await;
    let mut stage = Stage::new(&flow_with_a_long_failure()).await;
    stage.env.push(("SHOP_URL".to_owned(), receiver.url()));
    receiver.answer_with(|request| match request.json() {
        Value::Number(bytes) => {
            Answer::json(200, &json!("x".repeat(usize::try_from(bytes.as_u64().unwrap()).unwrap())))
        }
        _ => Answer::status(204),
    });
    let running = stage.work("a", Workers::builder().build());
    let pad = "y".repeat(600_000);
    // The slip with the output has from 6 KiB less to a little more than a record may have. Each step is smaller than
    // what the failure adds.
    let sizes: Vec<u64> = (0..15).map(|step| 437_000 + step * 500).collect();
    for answer_bytes in &sizes {
        stage.submit(json!({ "pad": pad, "answer_bytes": answer_bytes })).await;
    }
    let ends = stage.ends().await;
    running.stop().await;
    assert!(ends.iter().all(|end| end.status == JobStatus::Failed));
    let failures = ends.iter().map(|end| end.data.as_ref().unwrap());
    let failures: BTreeSet<String> = failures.map(|data| format!("{} {}", data["step"], data["code"])).collect();
    let told: Vec<&str> = failures.iter().map(String::as_str).collect();
    assert_eq!(told, [r#""charge" "expression-failed""#, r#""reserve" "too-large""#]);
    let undone = receiver.requests().iter().filter(|request| request.method == "DELETE").count();
    assert_eq!(undone, sizes.len(), "each of them was undone");
    assert_eq!(stage.tokens().await.dead_letters, 0);
}
