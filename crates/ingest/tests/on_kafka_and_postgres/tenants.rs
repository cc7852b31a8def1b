//! What belongs to a tenant by its topic of commands, and what its credentials may use up.

use axum::http::Method;
use events::dead_letter::burial;
use events::headers::Headers;
use events::{Inbound, Record};
use ingest::auth::Scope;
use serde_json::json;
use test_kit::{Ground, eventually, metric};

use crate::credentials::{ask, ask_once_known, asking, key};
use crate::limits::{hold_to_quota, left};
use crate::stage::{INPUT, Ingest, PATIENCE, ground, jobs_stored};

fn command(topic: String, value: &serde_json::Value) -> Record {
    Record {
        topic,
        key: Some(b"one".to_vec()),
        value: Some(value.to_string().into_bytes()),
        headers: Headers::default(),
    }
}

/// An ingest that asks who calls, and that reads the commands of `acme` and `globex`.
async fn start(ground: &Ground, limits: &[&str]) -> Ingest {
    let tenants = ["acme", "globex"].map(str::to_owned);
    ground.create_commands(&tenants).await;
    let ingest = Ingest::start_asking_with(ground, asking(), |config| {
        config.commands_tenants = tenants.to_vec();
        config.flow_limits = limits.iter().map(ToString::to_string).collect();
    })
    .await;
    eventually(PATIENCE, "it is ready", async || (ingest.api.get("/readyz").await.status == 200).then_some(())).await;
    ingest
}

async fn keys_of(ground: &Ground, ingest: &Ingest) -> [String; 2] {
    let keys = [key(ground, "acme", &Scope::ALL).await, key(ground, "globex", &Scope::ALL).await];
    for key in &keys {
        ask_once_known(ingest, key, "/v1/jobs").await;
    }
    keys
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_topic_of_commands_makes_jobs_of_its_tenant_whatever_its_records_say() {
    let ground = ground().await;
    let ingest = start(&ground, &[]).await;
    let [acme, globex] = keys_of(&ground, &ingest).await;
    let topics = &ground.topics;
    let order = json!({ "flow": "plain", "id": "one", "input": { "n": 1 } });
    for topic in [topics.commands(), topics.commands_of("acme"), topics.commands_of("globex")] {
        ground.send(&command(topic.clone(), &order)).await;
        ground.send(&command(topic, &order)).await;
    }
    ground.send(&command(topics.commands_of("acme"), &json!({ "flow": "plain", "tenant": "globex" }))).await;
    eventually(PATIENCE, "three jobs", async || (jobs_stored(&ground) >= 3).then_some(())).await;
    let letters = eventually(PATIENCE, "a dead letter", async || {
        Some(ground.outbox(&topics.dead_letters())).filter(|letters| !letters.is_empty())
    });
    let Record { topic, key, value, headers } = letters.await.remove(0);
    let letter = burial(&Inbound { topic, key, value, headers, ..Inbound::default() }).unwrap();
    assert_eq!(
        (letter.topic.as_str(), letter.failure.class.as_str()),
        (&*topics.commands_of("acme"), "invalid-command")
    );
    assert!(letter.failure.reason.contains("tenant"), "{}", letter.failure.reason);
    // One key of idempotency is three in three tenants.
    let stored =
        ground.sql("select string_agg(tenant || ' ' || submitted_by, ', ' order by tenant) from ingest.acceptances");
    assert_eq!(stored, "acme commands, default commands, globex commands");
    let job = ground.sql("select job from ingest.acceptances where tenant = 'acme'");
    let path = format!("/v1/jobs/{job}");
    assert_eq!(ask(&ingest, &acme, Method::GET, &path, "").await.status, 200);
    let other = ask(&ingest, &globex, Method::GET, &path, "").await;
    assert_eq!((other.status, other.problem()), (404, "unknown-job"), "{}", other.text);
    // Over HTTP the same key is the same job.
    let bearer = format!("Bearer {acme}");
    let headers = [("authorization", bearer.as_str()), ("idempotency-key", "one")];
    let replayed = ingest.api.post("/v1/flows/plain/jobs", &headers, r#"{"n":1}"#).await;
    assert_eq!((replayed.job(), replayed.header("idempotent-replayed")), (job, "true"));
    ingest.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn commands_that_wait_for_the_allowance_of_their_tenant_hold_up_no_other_tenants() {
    let ground = ground().await;
    let waits = r#"meanwhile_commands_waits_total{flow="plain"}"#;
    let before = metric(waits).unwrap_or(0.0);
    let ingest = start(&ground, &["plain requests=2/1h"]).await;
    let order = |n: u32| json!({ "flow": "plain", "input": { "n": n } });
    for n in 0..5 {
        ground.send(&command(ground.topics.commands_of("acme"), &order(n))).await;
    }
    eventually(PATIENCE, "commands wait", async || metric(waits).filter(|waits| *waits > before)).await;
    ground.send(&command(ground.topics.commands_of("globex"), &order(7))).await;
    ground.send(&command(ground.topics.commands(), &order(8))).await;
    eventually(PATIENCE, "the others' jobs", async || (jobs_stored(&ground) >= 4).then_some(())).await;
    let stored = ground.sql("select string_agg(tenant, ' ' order by tenant) from ingest.acceptances");
    assert_eq!(stored, "acme acme default globex");
    ingest.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_tenant_has_its_own_quotas_by_its_key_and_no_header_chooses_another() {
    let ground = ground().await;
    let ingest = start(&ground, &["order requests=2/1h", "plain bytes=600000/1h jobs=2"]).await;
    let [acme, globex] = keys_of(&ground, &ingest).await;
    let order = async |key: &str| ask(&ingest, key, Method::POST, "/orders", INPUT).await;
    assert_eq!(left(&order(&acme).await, "requests"), 1);
    assert_eq!(left(&order(&acme).await, "requests"), 0);
    hold_to_quota(&order(&acme).await, "requests");
    let bearer = format!("Bearer {acme}");
    for name in ["x-tenant", "tenant", "meanwhile-tenant", "x-tenant-id", "x-forwarded-user"] {
        let headers = [("authorization", bearer.as_str()), (name, "globex")];
        hold_to_quota(&ingest.api.order(&headers, INPUT).await, "requests");
    }
    let first = order(&globex).await;
    assert_eq!((first.status, left(&first, "requests")), (202, 1), "{}", first.text);

    let large = json!({ "text": "x".repeat(400_000) }).to_string();
    let plain = async |key: &str, body: &str| ask(&ingest, key, Method::POST, "/v1/flows/plain/jobs", body).await;
    let taken = plain(&acme, &large).await;
    assert_eq!((taken.status, left(&taken, "jobs")), (202, 1), "{}", taken.text);
    hold_to_quota(&plain(&acme, &large).await, "bytes");
    assert_eq!(plain(&globex, &large).await.status, 202);
    assert_eq!(plain(&acme, "{}").await.status, 202);
    hold_to_quota(&plain(&acme, "{}").await, "jobs");
    let second = plain(&globex, "{}").await;
    assert_eq!((second.status, left(&second, "jobs")), (202, 0), "{}", second.text);
    let stored = ground.sql("select tenant || ' ' || count(*) from ingest.acceptances group by tenant order by tenant");
    assert_eq!(stored, "acme 4\nglobex 3");
    ingest.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_address_that_shows_wrong_credentials_is_not_heard_for_a_while_and_others_are() {
    let ground = ground().await;
    let settings = service_kit::config::AuthSettings { wrong_per_minute: 5, ..asking() };
    let ingest = Ingest::start_asking_with(&ground, settings, |config| {
        config.trusted_proxies = vec!["127.0.0.1".to_owned()];
    })
    .await;
    eventually(PATIENCE, "it is ready", async || (ingest.api.get("/readyz").await.status == 200).then_some(())).await;
    let [used, unused] =
        [key(&ground, "acme", &[Scope::JobsRead]).await, key(&ground, "acme", &[Scope::JobsRead]).await];
    let from = async |address: &str, key: &str| {
        let (bearer, forwarded) = (format!("Bearer {key}"), format!("for={address}"));
        let headers = [("authorization", bearer.as_str()), ("forwarded", forwarded.as_str())];
        ingest.api.get_with("/v1/jobs", &headers).await
    };
    for key in [&used, &unused] {
        // From elsewhere: keys that are made in the database are known a little later, and count as wrong before.
        let known = async || (ask(&ingest, key, Method::GET, "/v1/jobs", "").await.status == 200).then_some(());
        eventually(PATIENCE, "the key is known", known).await;
    }
    assert_eq!(from("192.0.2.1", &used).await.status, 200);
    // None of them is the key by chance.
    let (beginning, end) = (&used[..used.len() - 2], if used.ends_with('z') { 'y' } else { 'z' });
    for n in 0..5 {
        let wrong = from("192.0.2.1", &format!("{beginning}{n}{end}")).await;
        assert_eq!((wrong.status, wrong.problem()), (401, "unauthorized"), "{n}: {}", wrong.text);
    }
    for guess in ["mw_a_b", "a.b.c", &unused] {
        let unheard = from("192.0.2.1", guess).await;
        assert_eq!((unheard.status, unheard.problem()), (429, "quota-exceeded"), "{guess}: {}", unheard.text);
        assert_eq!(unheard.json["violated-policies"], json!(["credentials"]));
        let after_s: u64 = unheard.header("retry-after").parse().unwrap();
        assert!((1..=12).contains(&after_s), "{after_s}");
        assert!(!unheard.text.contains("mw_"), "{}", unheard.text);
    }
    assert_eq!(from("192.0.2.1", &used).await.status, 200, "whoever was right there goes on");
    assert_eq!(from("192.0.2.2", &unused).await.status, 200, "and so does another address");
    let without = ingest.api.get_with("/v1/jobs", &[("forwarded", "for=192.0.2.1")]).await;
    assert_eq!(without.status, 401, "no credential is no guess");
    ingest.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_revoked_key_is_refused_elsewhere_by_the_database_s_word_alone() {
    let ground = ground().await;
    // Nobody looks for changes within the hour: only the notification tells.
    let start = async || Ingest::start_asking_with(&ground, asking(), |config| config.flags_look_s = 3_600).await;
    let (one, two) = (start().await, start().await);
    for ingest in [&one, &two] {
        let ready = async || (ingest.api.get("/readyz").await.status == 200).then_some(());
        eventually(PATIENCE, "it is ready", ready).await;
    }
    let operator = key(&ground, "acme", &Scope::ALL).await;
    ask_once_known(&one, &operator, "/v1/jobs").await;
    let mut took = Vec::new();
    for _ in 0..30 {
        let leaked = key(&ground, "acme", &[Scope::JobsRead]).await;
        ask_once_known(&two, &leaked, "/v1/jobs").await;
        let revoked = ask(&one, &operator, Method::DELETE, &format!("/v1/keys/{}", &leaked[3..19]), "").await;
        let answered = std::time::Instant::now();
        assert_eq!(revoked.status, 204, "{}", revoked.text);
        let refused = async || {
            while ask(&two, &leaked, Method::GET, "/v1/jobs", "").await.status != 401 {}
        };
        tokio::time::timeout(PATIENCE, refused()).await.expect("the other instance refuses it");
        took.push(answered.elapsed());
    }
    took.sort();
    println!("a revoked key at the other instance, after the answer: median {:?}, longest {:?}", took[15], took[29]);
    one.stop().await;
    two.stop().await;
}
