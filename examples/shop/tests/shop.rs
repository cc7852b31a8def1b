//! The shop keeps its promises: one effect per key, nothing after an undo, and books that add up.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use axum::http::StatusCode;
use serde_json::{Value, json};
use shop::{EntryState, Op, Outcome, PerService, Shop, State, Trade, audit};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::{CancellationToken, DropGuard};

struct Test {
    shop: Shop,
    _open: DropGuard,
}

struct Answer {
    status: StatusCode,
    head: String,
    body: Value,
}

impl Test {
    async fn start() -> Self {
        let shutdown = CancellationToken::new();
        let shop = Shop::start(PerService::any_port(), shutdown.clone()).await.unwrap();
        Self { shop, _open: shutdown.drop_guard() }
    }

    fn base(&self, trade: Trade) -> String {
        let PerService { inventory, payment, shipping } = self.shop.urls();
        match trade {
            Trade::Inventory => inventory,
            Trade::Payment => payment,
            Trade::Shipping => shipping,
        }
    }

    async fn call(&self, method: &str, trade: Trade, path: &str, key: &str, body: Option<Value>) -> Answer {
        let host = self.base(trade).replace("http://", "");
        let body = body.map(|body| body.to_string()).unwrap_or_default();
        let mut connection = TcpStream::connect(&host).await.unwrap();
        let request = format!(
            "{method} {path} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\nidempotency-key: \"{key}\"\r\n\
             traceparent: 00-trace-of-{key}-01\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        );
        connection.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        connection.read_to_string(&mut answer).await.unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        Answer { status, head: head.to_owned(), body: serde_json::from_str(body).unwrap_or_default() }
    }

    /// Asks for a reservation that is told of at this address.
    async fn reserve_later(&self, key: &str, progress: &str) -> Answer {
        let body = json!({ "order": key, "sku": "tea", "later": "after:10", "progress": progress });
        self.call("POST", Trade::Inventory, "/reservations", key, Some(body)).await
    }

    async fn reserve(&self, key: &str, order: &str, simulate: &str) -> Answer {
        let body = json!({ "order": order, "sku": "tea", "qty": 2, "simulate": simulate });
        self.call("POST", Trade::Inventory, "/reservations", key, Some(body)).await
    }

    async fn charge(&self, key: &str, order: &str, simulate: Value) -> Answer {
        let body = json!({ "order": order, "amount_cents": 250, "card": "4242", "simulate": simulate });
        self.call("POST", Trade::Payment, "/charges", key, Some(body)).await
    }

    async fn ship(&self, key: &str, order: &str) -> Answer {
        let body = json!({ "order": order, "address": "1 Main Street" });
        self.call("POST", Trade::Shipping, "/shipments", key, Some(body)).await
    }

    async fn refund(&self, id_or_key: &str) -> StatusCode {
        self.call("DELETE", Trade::Payment, &format!("/charges/{id_or_key}"), "undo", None).await.status
    }

    fn payment(&self) -> State {
        self.shop.states().payment
    }
}

fn complaints(test: &Test, outcomes: &[(&str, bool)]) -> Vec<String> {
    let outcome = |(order, succeeded): &(&str, bool)| Outcome { order: (*order).to_owned(), succeeded: *succeeded };
    let outcomes: Vec<Outcome> = outcomes.iter().map(outcome).collect();
    audit(&test.shop.states(), &outcomes).map_or_else(|error| error.complaints, |()| Vec::new())
}

#[tokio::test]
async fn the_same_key_gives_the_same_answer_and_no_second_effect() {
    let test = Test::start().await;
    let first = test.charge("k1", "o1", Value::Null).await;
    let again = test.charge("k1", "o1", Value::Null).await;
    assert_eq!((first.status.as_u16(), again.status.as_u16()), (201, 201));
    assert_eq!(first.body, again.body);
    assert!(again.head.contains("idempotent-replayed: true") && !first.head.contains("idempotent-replayed"));
    assert_eq!((test.payment().balance_cents, test.payment().calls["k1"].create), (250, 2));
    assert_eq!(test.charge("k1", "another order", Value::Null).await.status.as_u16(), 422);
}

#[tokio::test]
async fn whoever_pays_cash_twice_pays_twice_and_can_ask() {
    let test = Test::start().await;
    let pay = async |simulate: &str| {
        let body = json!({ "order": "o1", "amount_cents": 250, "simulate": simulate });
        test.call("POST", Trade::Payment, "/cash", "k", Some(body)).await.status.as_u16()
    };
    let paid = async |method| test.call(method, Trade::Payment, "/cash/o1", "k", None).await;
    assert_eq!(paid("GET").await.status.as_u16(), 404);
    assert_eq!((pay("timeout_before_effect:1").await, test.payment().balance_cents), (503, 0));
    assert_eq!((pay("timeout_before_effect:1").await, pay("").await), (201, 201));
    assert_eq!(test.payment().balance_cents, 500);
    assert_eq!(paid("GET").await.body["order"], "o1");
    let undone = [paid("DELETE").await, paid("DELETE").await, paid("DELETE").await];
    assert_eq!(undone.map(|answer| answer.status.as_u16()), [204, 204, 404]);
    assert_eq!((test.payment().balance_cents, paid("GET").await.status.as_u16()), (0, 404));
}

#[tokio::test]
async fn a_charge_is_refunded_once_by_its_id_or_by_its_key() {
    let test = Test::start().await;
    let id = test.charge("j:charge:1", "o1", Value::Null).await.body["id"].as_str().unwrap().to_owned();
    test.charge("j:charge:2", "o2", Value::Null).await;
    assert_eq!(test.refund(&id).await.as_u16(), 204);
    assert_eq!(test.refund(&id).await.as_u16(), 204);
    assert_eq!(test.refund("j%3Acharge%3A1").await.as_u16(), 204);
    assert_eq!(test.payment().balance_cents, 250);
    assert_eq!(test.refund("j:charge:2").await.as_u16(), 204);
    assert_eq!(test.payment().balance_cents, 0);
    assert!(test.payment().entries.iter().all(|entry| entry.state == EntryState::Undone));
}

#[tokio::test]
async fn a_create_that_comes_after_its_undo_is_stopped() {
    let test = Test::start().await;
    assert_eq!(test.refund("k1").await.as_u16(), 404);
    assert_eq!(test.charge("k1", "o1", Value::Null).await.status.as_u16(), 410);
    assert_eq!(test.payment().balance_cents, 0);
    test.charge("k2", "o2", Value::Null).await;
    assert_eq!(test.refund("k2").await.as_u16(), 204);
    assert_eq!(test.charge("k2", "o2", Value::Null).await.status.as_u16(), 410);
}

#[tokio::test]
async fn an_undo_overtakes_a_slow_create() {
    let test = Test::start().await;
    let slow = test.charge("k1", "o1", json!("slow:2000"));
    let undo = async {
        while !test.payment().calls.contains_key("k1") {
            tokio::task::yield_now().await;
        }
        test.refund("k1").await
    };
    let (slow, undo) = tokio::join!(slow, undo);
    assert_eq!((slow.status.as_u16(), undo.as_u16()), (410, 404));
    assert_eq!(test.payment().balance_cents, 0);
}

#[tokio::test]
async fn a_time_out_after_the_effect_leaves_the_effect() {
    let test = Test::start().await;
    let charge = test.charge("k1", "o1", json!("timeout_after_effect:60000"));
    let effect = async {
        while test.payment().balance_cents == 0 {
            tokio::task::yield_now().await;
        }
    };
    tokio::select! {
        _ = charge => panic!("it answered in time"),
        () = effect => {}
    }
    assert_eq!(complaints(&test, &[("o1", false)]), ["order o1 did not succeed, but has 1 standing charges"]);
    assert_eq!(test.refund("k1").await.as_u16(), 204);
    assert_eq!(complaints(&test, &[("o1", false)]), [""; 0]);
}

#[tokio::test]
async fn a_service_may_take_a_repetition_for_a_wrong_call() {
    let test = Test::start().await;
    for expected in [201, 409, 409] {
        assert_eq!(test.charge("k1", "o1", json!("once")).await.status.as_u16(), expected);
    }
    assert_eq!((test.payment().balance_cents, test.payment().entries.len()), (250, 1), "it was done once");
    assert_eq!(test.refund("k1").await.as_u16(), 204);
    assert_eq!(test.charge("k1", "o1", json!("once")).await.status.as_u16(), 410);
}

#[tokio::test]
async fn failures_can_be_asked_for() {
    let test = Test::start().await;
    assert_eq!(test.charge("k1", "o1", json!("declined")).await.status.as_u16(), 402);
    assert_eq!(test.refund("k1").await.as_u16(), 404);
    assert_eq!(test.reserve("k2", "o1", "out_of_stock").await.status.as_u16(), 409);
    assert_eq!(test.reserve("k2", "o1", "out_of_stock").await.status.as_u16(), 409);
    for expected in [503, 503, 201, 201] {
        assert_eq!(test.reserve("k3", "o1", "flaky").await.status.as_u16(), expected);
    }
    let busy = test.reserve("k4", "o2", "busy:7").await;
    assert!(busy.status.as_u16() == 503 && busy.head.contains("retry-after: 7"), "{}", busy.head);
    assert_eq!(test.reserve("k5", "o3", "error").await.status.as_u16(), 500);
    assert_eq!(test.reserve("k6", "o3", "status:418").await.status.as_u16(), 418);
    let unknown = test.reserve("k7", "o3", "flacky").await;
    assert_eq!(unknown.status.as_u16(), 422);
    assert!(unknown.head.contains("application/problem+json"));
}

#[tokio::test]
async fn an_undo_that_fails_can_be_mended() {
    let test = Test::start().await;
    test.charge("k1", "o1", json!("undo_error")).await;
    assert_eq!(test.refund("k1").await.as_u16(), 500);
    assert_eq!(test.call("POST", Trade::Payment, "/mend", "", None).await.status.as_u16(), 204);
    assert_eq!(test.refund("k1").await.as_u16(), 204);
}

#[tokio::test]
async fn the_log_tells_calls_and_effects_in_order_with_their_trace() {
    let test = Test::start().await;
    test.charge("k1", "o1", json!("flaky:1")).await;
    test.charge("k1", "o1", json!("flaky:1")).await;
    test.refund("k1").await;
    let lines = test.shop.log_after(Trade::Payment, 0);
    let ops: Vec<Op> = lines.iter().map(|line| line.op).collect();
    assert_eq!(ops, [Op::CreateCalled, Op::CreateCalled, Op::Created, Op::UndoCalled, Op::Undone]);
    assert_eq!(lines[2].traceparent, "00-trace-of-k1-01");
    let page = test.call("GET", Trade::Payment, "/log?after=3", "", None).await.body;
    assert_eq!((page["lines"].as_array().unwrap().len(), &page["next"]), (2, &json!(5)));
    assert_eq!(page["lines"][0]["op"], "undo-called");
}

#[tokio::test]
async fn the_audit_agrees_with_whole_orders_and_complains_about_halves() {
    let test = Test::start().await;
    for order in ["o1", "o2"] {
        test.reserve(&format!("{order}:reserve"), order, "").await;
        test.charge(&format!("{order}:charge"), order, Value::Null).await;
    }
    test.ship("o1:ship", "o1").await;
    assert_eq!(complaints(&test, &[("o1", true), ("o2", false)]).len(), 2);
    assert_eq!(complaints(&test, &[("o1", true), ("o2", true)]), ["order o2 succeeded, but has 0 standing shipments"]);
    assert_eq!(complaints(&test, &[("o1", true)]).len(), 2);
    test.charge("o1:charge again", "o1", Value::Null).await;
    assert!(complaints(&test, &[("o1", true), ("o2", true)])[0].contains("has 2 standing charges"));
    assert_eq!(test.shop.states().inventory.stock["tea"], 999_996);
}

#[tokio::test]
async fn the_state_is_served_as_it_is() {
    let test = Test::start().await;
    test.reserve("k1", "o1", "").await;
    let body = test.call("GET", Trade::Inventory, "/state", "", None).await.body;
    assert_eq!(serde_json::from_value::<State>(body).unwrap(), test.shop.states().inventory);
}

#[tokio::test]
async fn shipping_estimates_without_an_effect() {
    let test = Test::start().await;
    let answer = test.call("GET", Trade::Shipping, "/estimates/tea", "", None).await;
    assert_eq!((answer.status.as_u16(), &answer.body["days"]), (200, &json!(2)));
    assert!(test.shop.states().shipping.calls.is_empty());
}

#[tokio::test]
async fn a_request_that_makes_no_sense_is_refused() {
    let test = Test::start().await;
    assert_eq!(test.charge("", "o1", Value::Null).await.status.as_u16(), 400);
    let body = json!({ "order": "o1" });
    assert_eq!(test.call("POST", Trade::Payment, "/charges", "k", Some(body)).await.status.as_u16(), 422);
    let body = json!({ "order": "o1", "amount_cents": u64::MAX });
    assert_eq!(test.call("POST", Trade::Payment, "/charges", "k", Some(body)).await.status.as_u16(), 422);
    assert_eq!(test.payment().calls.len(), 0);
}

#[tokio::test]
async fn an_address_in_use_is_said_with_the_flag_to_change() {
    let test = Test::start().await;
    let taken = test.base(Trade::Payment).replace("http://", "");
    let listen = PerService { payment: taken.clone(), ..PerService::any_port() };
    let error = Shop::start(listen, CancellationToken::new()).await.unwrap_err().to_string();
    assert!(error.contains(&taken) && error.contains("--payment"), "{error}");
}

#[tokio::test]
async fn accepted_work_tells_how_far_it_is_and_is_done_though_nobody_hears_it() {
    let (test, listener) = (Test::start().await, TcpListener::bind("127.0.0.1:0").await.unwrap());
    let url = format!("http://{}/progress", listener.local_addr().unwrap());
    assert_eq!(test.reserve_later("told", &url).await.status, StatusCode::ACCEPTED);
    let (mut connection, _) = listener.accept().await.unwrap();
    let mut report = String::new();
    while !report.ends_with('}') {
        let mut bytes = [0; 1024];
        let length = connection.read(&mut bytes).await.unwrap();
        report.push_str(std::str::from_utf8(&bytes[..length]).unwrap());
    }
    let (head, body) = report.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("PUT /progress "), "{head}");
    let body: Value = serde_json::from_str(body).unwrap();
    assert_eq!(body, json!({ "percent": 50, "message": "it is on the shelf, the box is being packed" }));
    // No answer, and nobody who listens.
    drop((connection, listener));
    assert_eq!(test.reserve_later("untold", &url).await.status, StatusCode::ACCEPTED);
    while test.shop.states().inventory.entries.len() < 2 {
        tokio::task::yield_now().await;
    }
}
