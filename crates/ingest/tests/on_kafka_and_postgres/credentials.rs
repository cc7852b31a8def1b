//! An ingest that asks callers who they are: keys for tests, and what opens and what does not.

use axum::http::Method;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use ingest::auth::Scope;
use ingest::auth::api_key::{HashKey, draw, id_of};
use ingest::config::{DEFAULT, SECTION};
use ring::signature::{Ed25519KeyPair, KeyPair as _};
use serde_json::{Value, json};
use service_kit::config::{AuthMode, AuthSettings, Sources, load};
use service_kit::identity::Ids;
use store::Role;
use store::api_keys::{Created, NewKey, create};
use test_kit::{Ground, eventually};

use crate::dead_letters::bury;
use crate::modes::{self, BODY, JSON, LEGACY};
use crate::old_service::OldService;
use crate::stage::{Answer, INPUT, Ingest, PATIENCE, ground};
use crate::stream_client::Sse;

const SECRET: &str = "the secret of these tests, 32 bytes";

pub(crate) fn asking() -> AuthSettings {
    AuthSettings { mode: AuthMode::Required, keys_secret: SECRET.to_owned(), ..AuthSettings::default() }
}

/// A key of a tenant, made as `meanwhile keys create --bootstrap` makes it.
pub(crate) async fn key(ground: &Ground, tenant: &str, scopes: &[Scope]) -> String {
    let key = draw(&Ids::system());
    let scopes: Vec<&str> = scopes.iter().map(|scope| scope.as_str()).collect();
    let new = NewKey {
        id: id_of(&key).unwrap(),
        tenant,
        name: "a test",
        hash: &HashKey::new(SECRET).hash(&key),
        scopes: &scopes,
        created_by: "database",
        expires_at_ms: None,
    };
    assert_eq!(create(&ground.pool(Role::Ingest), new, 1_000).await.unwrap(), Created::Done);
    key
}

/// An ingest that asks, and that is ready.
pub(crate) async fn start(ground: &Ground) -> Ingest {
    let ingest = Ingest::start_asking(ground, asking()).await;
    eventually(PATIENCE, "it is ready", async || (ingest.api.get("/readyz").await.status == 200).then_some(())).await;
    ingest
}

/// Asks under a key.
pub(crate) async fn ask(ingest: &Ingest, key: &str, method: Method, path: &str, body: &str) -> Answer {
    let authorization = format!("Bearer {key}");
    let headers = [("authorization", authorization.as_str()), ("content-type", "application/json"), ("if-match", "*")];
    ingest.api.ask(method, path, &headers, body).await.unwrap()
}

/// The same once the instance knows the key.
pub(crate) async fn ask_once_known(ingest: &Ingest, key: &str, path: &str) -> Answer {
    let known = async || Some(ask(ingest, key, Method::GET, path, "").await).filter(|answer| answer.status != 401);
    eventually(PATIENCE, "the key is known", known).await
}

/// Every operation: its method, its path, and whether it asks for credentials.
fn operations() -> Vec<(Method, String, bool)> {
    let document = ingest::openapi::document(&load(SECTION, DEFAULT, &Sources::default()).unwrap(), &[]);
    let mut all = Vec::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            let method = Method::from_bytes(method.to_uppercase().as_bytes()).unwrap();
            let is_open = operation["security"].as_array().is_some_and(Vec::is_empty);
            all.push((method, path.clone(), !is_open));
        }
    }
    all
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_credential_only_what_is_said_to_be_open_is() {
    let ground = ground().await;
    let ingest = start(&ground).await;
    let mut open = Vec::new();
    for (method, path, asks) in operations() {
        let address = path.replace("{name}", "not-found").replace(['{', '}'], "");
        let answer = ingest.api.ask(method.clone(), &address, &[], "").await.unwrap();
        assert_eq!(answer.status == 401, asks, "{method} {path}: {} {}", answer.status, answer.text);
        if asks {
            assert_eq!(answer.problem(), "unauthorized", "{path}");
            assert_eq!(answer.header("www-authenticate"), "Bearer realm=\"meanwhile\"", "{path}");
        } else if !path.starts_with("/schemas/") {
            open.push(path);
        }
    }
    open.sort();
    open.dedup();
    assert_eq!(
        open,
        [
            "/asyncapi.yaml",
            "/docs",
            "/healthz",
            "/metrics",
            "/openapi.json",
            "/problems",
            "/problems/{name}",
            "/readyz",
            "/v1/callbacks/{permit}",
            "/v1/flows/{flow}/webhook",
            "/v1/progress/{permit}"
        ]
    );
    assert_eq!(ingest.api.post("/orders", &[], INPUT).await.status, 401, "a flow's own address");
    assert_eq!(ingest.api.get("/nowhere").await.status, 401);
    // Nor with one that is none.
    for wrong in
        ["Basic bWU6bWU=", "Bearer", "Bearer mw_a_b", "Bearer a.b.c", &format!("Bearer {}", draw(&Ids::system()))]
    {
        let answer = ingest.api.get_with("/v1/flows", &[("authorization", wrong)]).await;
        assert_eq!((answer.status, answer.problem()), (401, "unauthorized"), "{wrong}: {}", answer.text);
        assert!(answer.header("www-authenticate").contains("error=\"invalid_token\""), "{wrong}");
    }
    assert_eq!(ground.sql("select count(*) from ingest.acceptances"), "0");
    ingest.stop().await;
}

/// A job of `default` with all that can be found of it, by the names of the parameters of paths.
async fn belongings(ground: &Ground, ingest: &Ingest, owner: &str) -> Vec<(&'static str, String)> {
    let job = ask(ingest, owner, Method::POST, "/v1/flows/order/jobs", INPUT).await.job();
    let endpoint =
        ask(ingest, owner, Method::POST, "/v1/webhooks/endpoints", r#"{"url":"https://example.com/"}"#).await;
    assert_eq!(endpoint.status, 201, "{}", endpoint.text);
    let endpoint = endpoint.json["id"].as_str().unwrap().to_owned();
    let delivery = "0190a6f2-7c1e-7cc0-b1f1-3f4d5a6b7c8d";
    ground.sql(&format!(
        r#"insert into notifier.deliveries (id, endpoint, tenant, job, type, body)
           values ('{delivery}', '{endpoint}', 'default', '{job}', 'job.succeeded',
                   '{{"type":"job.succeeded","timestamp":"2027-01-05T09:30:00Z","data":{{}}}}')"#
    ));
    let letter = bury(ground, "unreadable", "{", 0, 1_800_000_000_000).await;
    vec![
        ("/v1/jobs/{job}", job),
        ("/v1/webhooks/endpoints/{id}", endpoint),
        ("/v1/webhooks/deliveries/{id}", format!("msg_{}", delivery.replace('-', ""))),
        ("/v1/dead-letters/{id}", letter),
        ("/v1/keys/{id}", owner[3..19].to_owned()),
    ]
}

/// Lists, and orders to all that is chosen, have no id in their paths: they tell nothing of it, and do nothing to it.
async fn lists_tell_nothing(ingest: &Ingest, other: &str, belongings: &[(&str, String)]) {
    for list in [
        "/v1/jobs",
        "/v1/dead-letters",
        "/v1/webhooks/endpoints",
        "/v1/webhooks/deliveries",
        "/v1/keys",
        "/v1/audit",
        "/v1/audit?action=job.submit",
        "/v1/events",
        "/v1/flows/order/stats",
        "/v1/flows/order/callers",
    ] {
        let answer = ask(ingest, other, Method::GET, list, "").await;
        assert_eq!(answer.status, 200, "{list}: {}", answer.text);
        for (_, id) in belongings {
            // Of the audit log, what this tenant itself has asked for in vain is its own.
            assert!(!answer.text.contains(id.as_str()) || list == "/v1/audit", "{list} tells {id}: {}", answer.text);
        }
    }
    for path in ["/v1/jobs:cancel", "/v1/jobs:retry"] {
        let answer = ask(ingest, other, Method::POST, path, r#"{"flow":"order"}"#).await;
        assert_eq!((answer.status, &answer.json["done"]), (200, &Value::from(0)), "{path}: {}", answer.text);
    }
    let redriven = ask(ingest, other, Method::POST, "/v1/dead-letters:redrive", r#"{"class":"unreadable"}"#).await;
    assert_eq!((redriven.status, &redriven.json["chosen"]), (200, &Value::from(0)), "{}", redriven.text);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_another_tenants_does_not_exist_at_any_route() {
    let ground = ground().await;
    let ingest = start(&ground).await;
    let owner = key(&ground, "default", &Scope::ALL).await;
    let other = key(&ground, "other", &Scope::ALL).await;
    for key in [&owner, &other] {
        assert_eq!(ask_once_known(&ingest, key, "/v1/jobs").await.status, 200);
    }
    let belongings = belongings(&ground, &ingest, &owner).await;
    let mut walked = Vec::new();
    for (method, path, _) in operations().into_iter().filter(|(_, _, asks)| *asks) {
        let Some((beginning, id)) = belongings.iter().find(|(beginning, _)| path.starts_with(beginning)) else {
            continue;
        };
        let (_, parameter) = beginning.rsplit_once('/').unwrap();
        let mut address = path.replace(parameter, id).replace("{name}", "approval");
        let body = match (method.as_str(), path.as_str()) {
            ("PUT", "/v1/webhooks/endpoints/{id}") => r#"{"url":"https://example.com/"}"#,
            ("POST", "/v1/webhooks/endpoints/{id}/recover") => r#"{"since":"2026-01-05T09:30:00Z"}"#,
            ("DELETE", "/v1/dead-letters/{id}") => {
                address.push_str("?reason=a%20test");
                ""
            }
            ("GET" | "DELETE", _) => "",
            _ => "{}",
        };
        let answer = ask(&ingest, &other, method.clone(), &address, body).await;
        assert_eq!(answer.status, 404, "{method} {address}: {}", answer.text);
        if method == Method::GET {
            // Its owner finds it there, so the address is a right one.
            let found = ask(&ingest, &owner, method.clone(), &address, "").await;
            let is_there = found.status < 300 || ["not-finished", "no-public-key"].contains(&found.problem());
            assert!(is_there, "{method} {address}: {}", found.text);
        }
        walked.push(format!("{method} {path}"));
    }
    assert!(walked.len() >= 20, "{walked:?}");
    lists_tell_nothing(&ingest, &other, &belongings).await;
    let letters = ask(&ingest, &other, Method::GET, "/v1/dead-letters", "").await;
    assert_eq!(letters.json["counts"], json!({}), "nor are they counted: {}", letters.text);
    let audit = ask(&ingest, &other, Method::GET, "/v1/audit", "").await;
    assert!(!audit.text.contains(&format!("key:{}", &owner[3..19])), "the owner's own deeds: {}", audit.text);
    // The same idempotency key is another one.
    let keyed = async |key: &str| {
        let authorization = format!("Bearer {key}");
        let headers = [("authorization", authorization.as_str()), ("idempotency-key", "\"one\"")];
        ingest.api.order(&headers, INPUT).await.job()
    };
    assert_ne!(keyed(&owner).await, keyed(&other).await);
    // All is as it was.
    let job = &belongings[0].1;
    assert_eq!(ask(&ingest, &owner, Method::GET, &format!("/v1/jobs/{job}"), "").await.json["status"], "accepted");
    assert_eq!(ask(&ingest, &owner, Method::GET, "/v1/dead-letters", "").await.json["counts"]["unreadable"], 1);
    assert_eq!(
        ask(&ingest, &owner, Method::GET, "/v1/webhooks/endpoints", "").await.json["endpoints"]
            .as_array()
            .unwrap()
            .len(),
        1
    );
    ingest.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_all_tenants_share_is_changed_by_the_deployments_own_operators_alone() {
    let ground = ground().await;
    let ingest = start(&ground).await;
    let other = key(&ground, "other", &Scope::ALL).await;
    ask_once_known(&ingest, &other, "/v1/flows").await;
    for (method, path, body) in [
        (Method::PUT, "/v1/flags/order", r#"{"flags":{},"reason":"a test"}"#),
        (Method::POST, "/v1/flags/order/rollback", r#"{"to":0,"reason":"a test"}"#),
        (Method::PUT, "/v1/breakers/payment", r#"{"state":"open"}"#),
    ] {
        let answer = ask(&ingest, &other, method, path, body).await;
        assert_eq!((answer.status, answer.problem()), (403, "forbidden"), "{path}: {}", answer.text);
    }
    assert_eq!(ask(&ingest, &other, Method::GET, "/v1/flags", "").await.status, 200);
    ingest.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_opens_what_its_scopes_say() {
    let ground = ground().await;
    let ingest = start(&ground).await;
    let mut keys = Vec::new();
    for scope in Scope::ALL {
        keys.push((scope, key(&ground, "default", &[scope]).await));
    }
    for (_, key) in &keys {
        ask_once_known(&ingest, key, "/v1/flows").await;
    }
    let submitter = &keys.iter().find(|(scope, _)| *scope == Scope::JobsSubmit).unwrap().1;
    ask(&ingest, submitter, Method::POST, "/orders", INPUT).await.job();
    for (method, path, body, needed) in [
        (Method::POST, "/v1/flows/order/jobs", INPUT, Scope::JobsSubmit),
        (Method::GET, "/v1/jobs", "", Scope::JobsRead),
        (Method::GET, "/v1/events", "", Scope::JobsRead),
        (Method::GET, "/v1/flows/order/stats", "", Scope::JobsRead),
        (Method::POST, "/v1/jobs:cancel", r#"{"flow":"plain"}"#, Scope::JobsCancel),
        (Method::POST, "/v1/jobs:retry", r#"{"flow":"plain"}"#, Scope::Operate),
        (Method::GET, "/v1/dead-letters", "", Scope::Operate),
        (Method::GET, "/v1/keys", "", Scope::Operate),
        (Method::GET, "/v1/audit", "", Scope::Operate),
    ] {
        for (scope, key) in &keys {
            let answer = ask(&ingest, key, method.clone(), path, body).await;
            if *scope == needed {
                assert!(answer.status < 300, "{method} {path}: {}", answer.text);
                continue;
            }
            assert_eq!((answer.status, answer.problem()), (403, "forbidden"), "{method} {path} by {scope:?}");
            let wanted = format!("error=\"insufficient_scope\", scope=\"{}\"", needed.as_str());
            assert!(answer.header("www-authenticate").ends_with(&wanted), "{path}: {:?}", answer.headers);
        }
    }
    ingest.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_that_is_revoked_opens_nothing_at_any_instance_and_ends_its_streams() {
    let ground = ground().await;
    let (one, two) = (start(&ground).await, start(&ground).await);
    let operator = key(&ground, "default", &Scope::ALL).await;
    let leaked = key(&ground, "default", &[Scope::JobsRead]).await;
    for ingest in [&one, &two] {
        ask_once_known(ingest, &operator, "/v1/flows").await;
        assert_eq!(ask_once_known(ingest, &leaked, "/v1/jobs").await.status, 200);
    }
    let bearer = format!("Bearer {leaked}");
    let mut stream =
        Sse::of(two.api.stream("/v1/events", &[("accept", "text/event-stream"), ("authorization", &bearer)]).await);
    let revoked = ask(&one, &operator, Method::DELETE, &format!("/v1/keys/{}", &leaked[3..19]), "").await;
    assert_eq!(revoked.status, 204, "{}", revoked.text);
    assert_eq!(ask(&one, &leaked, Method::GET, "/v1/jobs", "").await.status, 401, "here it is known already");
    let refused = async || (ask(&two, &leaked, Method::GET, "/v1/jobs", "").await.status == 401).then_some(());
    let begun = std::time::Instant::now();
    eventually(PATIENCE, "the other instance knows it", refused).await;
    println!("the other instance refused the key after {:?}", begun.elapsed());
    loop {
        let message = stream.next().await.expect("the stream says why it ends");
        if message.name.as_deref() == Some("error") {
            assert_eq!(message.json()["reason"], "unauthorized");
            break;
        }
    }
    assert_eq!(stream.next().await, None);
    one.stop().await;
    two.stop().await;
}

/// A token of an issuer whose one key is in a file.
fn token(signer: &Ed25519KeyPair, tenant: &str, scope: &str) -> String {
    let part = |value: Value| BASE64.encode(value.to_string());
    let claims = json!({
        "iss": "https://login.example.com", "aud": "meanwhile", "exp": 4_000_000_000_u64, "sub": "ada",
        "tenant": tenant, "scope": scope,
    });
    let signed = format!("{}.{}", part(json!({ "alg": "EdDSA", "kid": "one" })), part(claims));
    format!("{signed}.{}", BASE64.encode(signer.sign(signed.as_bytes())))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_of_the_issuer_names_tenant_scopes_and_subject() {
    let ground = ground().await;
    let signer = Ed25519KeyPair::from_seed_unchecked(&[7; 32]).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let jwks = folder.path().join("jwks.json");
    let x = BASE64.encode(signer.public_key());
    std::fs::write(&jwks, json!({ "keys": [{ "kty": "OKP", "crv": "Ed25519", "kid": "one", "x": x }] }).to_string())
        .unwrap();
    let settings = AuthSettings {
        issuer: "https://login.example.com".to_owned(),
        audience: "meanwhile".to_owned(),
        jwks: jwks.to_str().unwrap().to_owned(),
        tenant_claim: "tenant".to_owned(),
        ..asking()
    };
    let ingest = Ingest::start_asking(&ground, settings).await;
    eventually(PATIENCE, "it is ready", async || (ingest.api.get("/readyz").await.status == 200).then_some(())).await;
    let acme = token(&signer, "acme", "jobs:submit jobs:read");
    let job = ask(&ingest, &acme, Method::POST, "/orders", INPUT).await.job();
    let stored = ground.sql(&format!("select tenant, submitted_by from ingest.acceptances where job = '{job}'"));
    assert_eq!(stored, "acme|token:ada");
    let path = format!("/v1/jobs/{job}");
    assert_eq!(ask(&ingest, &acme, Method::GET, &path, "").await.status, 200);
    assert_eq!(ask(&ingest, &acme, Method::GET, "/v1/audit", "").await.status, 403);
    assert_eq!(ask(&ingest, &token(&signer, "other", "jobs:read"), Method::GET, &path, "").await.status, 404);
    let forger = Ed25519KeyPair::from_seed_unchecked(&[8; 32]).unwrap();
    let forged = ask(&ingest, &token(&forger, "acme", "jobs:read"), Method::GET, &path, "").await;
    assert_eq!((forged.status, forged.problem()), (401, "unauthorized"), "{}", forged.text);
    ingest.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_old_service_never_sees_a_key_of_ours() {
    let (ground, old) = (ground().await, OldService::start().await);
    ground.apply(LEGACY).await;
    let env = vec![("OLD_URL".to_owned(), old.url.clone())];
    let ingest = Ingest::start_asking_in(&ground, env, asking()).await;
    let key = key(&ground, "default", &[Scope::JobsSubmit]).await;
    let bearer = format!("Bearer {key}");
    let asked = async || {
        let headers = [JSON, ("authorization", bearer.as_str())];
        (modes::ask(&ingest, "/legacy", &headers, BODY).await.status() == 200).then_some(())
    };
    eventually(PATIENCE, "the old service answers", asked).await;
    let seen = old.seen().pop().unwrap();
    assert!(!seen.headers.contains_key("authorization"), "{:?}", seen.headers);
    let reader = crate::credentials::key(&ground, "default", &[Scope::JobsRead]).await;
    ask_once_known(&ingest, &reader, "/v1/jobs").await;
    assert_eq!(ask(&ingest, &reader, Method::POST, "/legacy", BODY).await.status, 403);
    assert!(old.seen().is_empty(), "nor a request that may not be made");
    ingest.stop().await;
}
