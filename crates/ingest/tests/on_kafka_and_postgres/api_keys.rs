//! API keys as operators make, list and revoke them.

use axum::http::Method;
use ingest::auth::Scope;
use serde_json::Value;
use store::Role;
use test_kit::eventually;

use crate::credentials::{ask, ask_once_known, key, start};
use crate::stage::{INPUT, PATIENCE, ground};

const KEYS: &str = "/v1/keys";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_is_shown_once_opens_at_once_and_is_stored_as_a_hash() {
    let ground = ground().await;
    let ingest = start(&ground).await;
    let operator = key(&ground, "acme", &Scope::ALL).await;
    ask_once_known(&ingest, &operator, KEYS).await;
    let wish = r#"{"name":"shop","scopes":["jobs:submit","jobs:read"],"expires_in":"90d"}"#;
    let made = ask(&ingest, &operator, Method::POST, KEYS, wish).await;
    assert_eq!((made.status, made.header("cache-control")), (201, "no-store"), "{}", made.text);
    let (id, shop) = (made.json["id"].as_str().unwrap(), made.json["key"].as_str().unwrap());
    assert_eq!(made.json["tenant"], "acme");
    let job = ask(&ingest, shop, Method::POST, "/orders", INPUT).await.job();
    assert_eq!(ask(&ingest, shop, Method::GET, &format!("/v1/jobs/{job}"), "").await.status, 200);
    assert_eq!(
        ground.sql(&format!("select tenant, submitted_by from ingest.acceptances where job = '{job}'")),
        format!("acme|key:{id}")
    );
    let stored = ground.sql("select row_to_json(api_keys) from ingest.api_keys");
    assert!(!stored.contains(&shop[20..]), "{stored}");
    let listed = eventually(PATIENCE, "its use is noted", async || {
        let listed = ask(&ingest, &operator, Method::GET, KEYS, "").await;
        assert!(!listed.text.contains(&shop[20..]), "{}", listed.text);
        let keys = listed.json["keys"].as_array().unwrap().clone();
        keys.into_iter().find(|key| key["id"] == id && key["last_used_at"].is_string())
    })
    .await;
    assert_eq!(
        (&listed["status"], &listed["created_by"]),
        (&Value::from("valid"), &Value::from(format!("key:{}", &operator[3..19])))
    );
    for _ in 0..2 {
        assert_eq!(ask(&ingest, &operator, Method::DELETE, &format!("{KEYS}/{id}"), "").await.status, 204);
    }
    assert_eq!(ask(&ingest, shop, Method::GET, "/v1/jobs", "").await.status, 401);
    for unknown in ["0000000000000000", "x", "%00"] {
        let answer = ask(&ingest, &operator, Method::DELETE, &format!("{KEYS}/{unknown}"), "").await;
        assert_eq!((answer.status, answer.problem()), (404, "unknown-key"), "{unknown}: {}", answer.text);
    }
    ingest.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_ends_when_it_was_said_to() {
    let ground = ground().await;
    let ingest = start(&ground).await;
    let operator = key(&ground, "acme", &Scope::ALL).await;
    ask_once_known(&ingest, &operator, KEYS).await;
    let wish = r#"{"name":"short","scopes":["jobs:read"],"expires_in":"1s"}"#;
    let made = ask(&ingest, &operator, Method::POST, KEYS, wish).await;
    let short = made.json["key"].as_str().unwrap();
    let ended = async || (ask(&ingest, short, Method::GET, "/v1/jobs", "").await.status == 401).then_some(());
    eventually(PATIENCE, "it has ended", ended).await;
    let listed = ask(&ingest, &operator, Method::GET, KEYS, "").await;
    let status = |id: &Value| {
        listed.json["keys"].as_array().unwrap().iter().find(|key| key["id"] == *id).unwrap()["status"].clone()
    };
    assert_eq!(status(&made.json["id"]), "expired");
    ingest.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_that_cannot_be_made_is_refused_with_what_is_wrong_and_nothing_is_stored() {
    let ground = ground().await;
    let ingest = start(&ground).await;
    let operator = key(&ground, "acme", &[Scope::Operate, Scope::JobsRead]).await;
    ask_once_known(&ingest, &operator, KEYS).await;
    for (wish, status, problem, said) in [
        (r#"{"name":"","scopes":["jobs:read"]}"#, 422, "schema-violation", "/name"),
        (r#"{"name":"a","scopes":[]}"#, 422, "schema-violation", "/scopes"),
        (r#"{"name":"a","scopes":["jobs:read","admin"]}"#, 422, "schema-violation", "/scopes/1"),
        (r#"{"name":"a","scopes":["jobs:read","jobs:read"]}"#, 422, "schema-violation", "/scopes/1"),
        (r#"{"name":"a","scopes":["jobs:read"],"expires_in":"soon"}"#, 422, "schema-violation", "/expires_in"),
        (r#"{"name":"a","scopes":["jobs:read"],"tenant":"default"}"#, 400, "bad-request", "tenant"),
        // Nobody gives what they do not have.
        (r#"{"name":"a","scopes":["jobs:cancel"]}"#, 403, "forbidden", "jobs:cancel"),
    ] {
        let answer = ask(&ingest, &operator, Method::POST, KEYS, wish).await;
        assert_eq!((answer.status, answer.problem()), (status, problem), "{wish}: {}", answer.text);
        assert!(answer.text.contains(said), "{wish}: {}", answer.text);
    }
    assert_eq!(ground.sql("select count(*) from ingest.api_keys"), "1");
    ground.sql(
        "insert into ingest.api_keys (id, tenant, name, hash, scopes, created_by)
         select 'k' || n, 'acme', '', '', '{}', '' from generate_series(1, 999) n",
    );
    let wish = r#"{"name":"a","scopes":["jobs:read"]}"#;
    let full = ask(&ingest, &operator, Method::POST, KEYS, wish).await;
    assert_eq!((full.status, full.problem()), (409, "too-many-keys"), "{}", full.text);
    ground.sql("update ingest.api_keys set revoked_at = now() where id = 'k1'");
    assert_eq!(ask(&ingest, &operator, Method::POST, KEYS, wish).await.status, 201);
    ingest.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_open_to_a_tenant_that_is_disabled_until_it_is_enabled() {
    let ground = ground().await;
    let ingest = start(&ground).await;
    let pool = ground.pool(Role::Ingest);
    let (first, other) = (key(&ground, "acme", &Scope::ALL).await, key(&ground, "other", &Scope::ALL).await);
    for key in [&first, &other] {
        assert_eq!(ask_once_known(&ingest, key, "/v1/flows").await.status, 200);
    }
    store::tenants::disable(&pool, "acme", "a test").await.unwrap();
    let status = async |key: &str| ask(&ingest, key, Method::GET, "/v1/flows", "").await.status;
    eventually(PATIENCE, "its key is revoked", async || (status(&first).await == 401).then_some(())).await;
    let second = key(&ground, "acme", &Scope::ALL).await;
    let refused = ask_once_known(&ingest, &second, "/v1/flows").await;
    assert_eq!((refused.status, refused.problem()), (403, "forbidden"), "{}", refused.text);
    assert!(refused.text.contains("is disabled"), "{}", refused.text);
    assert_eq!(status(&other).await, 200);
    assert!(store::tenants::enable(&pool, "acme").await.unwrap());
    eventually(PATIENCE, "it is enabled", async || (status(&second).await == 200).then_some(())).await;
    ingest.stop().await;
}
