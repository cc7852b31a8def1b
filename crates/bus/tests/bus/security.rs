//! A broker that asks for a login over TLS: every way in, for every kind of client, and a clear error for every
//! refusal.

use std::collections::BTreeSet;
use std::time::Duration;

use bus::admin::Admin;
use bus::{Error, OffsetCommit, Producer, Settings, Table, TransactionalProducer};
use events::topic::Topics;
use serde_json::json;
use test_kit::{Answer, Authority, GuardedKafka, Login, Receiver, bearer_token, eventually};
use tokio::sync::OnceCell;

use crate::kit::{Cluster, LONG, Watched, blocking, committed_or_beginning, record, text};

static KAFKA: OnceCell<GuardedKafka> = OnceCell::const_new();

/// May do everything under every name.
const USER: &str = "alice";
/// Is known, and may do nothing.
const STRANGER: &str = "bob";

async fn guarded() -> &'static GuardedKafka {
    KAFKA
        .get_or_init(async || {
            let kafka = GuardedKafka::start(&[USER, STRANGER]).await.unwrap();
            for resource in ["--topic", "--group", "--transactional-id"] {
                let command = format!("kafka-acls --add --allow-principal User:{USER} --operation All {resource} *");
                kafka.grant(&command).await.unwrap();
            }
            kafka
        })
        .await
}

fn settings(brokers: &str, properties: impl IntoIterator<Item = (String, String)>) -> Settings {
    let settings = Settings { properties: properties.into_iter().collect(), ..Settings::new(brokers, "") };
    settings.check_properties().unwrap();
    settings
}

async fn by(login: Login, user: &str) -> Settings {
    let (brokers, properties) = guarded().await.login(login, user).unwrap();
    settings(&brokers, properties)
}

/// An issuer of tokens that asks for the client's secret, and settings for its client.
async fn by_token(answer: impl Fn(usize) -> Answer + Send + Sync + 'static) -> (Receiver, Settings) {
    let issuer = Receiver::start().await;
    let asked = std::sync::atomic::AtomicUsize::new(0);
    issuer.answer_with(move |request| {
        // client:the-secret
        match request.header("authorization") {
            "Basic Y2xpZW50OnRoZS1zZWNyZXQ=" => answer(asked.fetch_add(1, std::sync::atomic::Ordering::Relaxed)),
            _ => Answer::json(401, &json!({ "error": "invalid_client", "error_description": "who is this?" })),
        }
    });
    let kafka = guarded().await;
    let properties = [
        ("security.protocol", "sasl_ssl".to_owned()),
        ("ssl.ca.location", kafka.authority().certificate().display().to_string()),
        ("sasl.mechanism", "OAUTHBEARER".to_owned()),
        ("sasl.oauthbearer.token.endpoint.url", format!("{}/token", issuer.url())),
        ("sasl.oauthbearer.client.id", "client".to_owned()),
        ("sasl.oauthbearer.client.secret", "the-secret".to_owned()),
        ("sasl.oauthbearer.scope", "kafka".to_owned()),
    ];
    let settings = settings(&kafka.login_brokers(), properties.map(|(name, value)| (name.to_owned(), value)));
    (issuer, settings)
}

fn token(ends_in_s: i64) -> Answer {
    let token = bearer_token(USER, ends_in_s);
    Answer::json(200, &json!({ "access_token": token, "token_type": "bearer", "expires_in": ends_in_s }))
}

/// Every kind of client does its work: admin, plain and transactional producers, a member of a group, a table.
async fn does_everything(settings: Settings) {
    let admin = Admin::new(&settings).unwrap();
    let topics = Topics::new(test_kit::prefix());
    admin.create_topics(&topics, &BTreeSet::from(["q".to_owned()]), None).await.unwrap();
    let cluster = Cluster { settings, admin, topics };
    let topic = cluster.topic();
    Producer::new(&cluster.settings).unwrap().send(&record(&topic, "a")).await.unwrap();
    let mut watched = Watched::start(&cluster.settings, cluster.options(), committed_or_beginning);
    let first = watched.records(1).await.remove(0);
    assert_eq!(text(&first), "a");
    let (group, id) = (watched.control.group_metadata().unwrap(), format!("{}-id", cluster.topics.prefix()));
    let offset = OffsetCommit {
        topic: first.topic.clone(),
        partition: first.partition,
        next_offset: first.offset + 1,
        metadata: None,
    };
    let (settings, to) = (cluster.settings.clone(), topic.clone());
    blocking(move || {
        let mut producer = TransactionalProducer::new(&settings, &id, Duration::from_secs(10)).unwrap();
        producer.init(LONG).unwrap();
        producer.begin().unwrap();
        producer.send(&record(&to, "b")).unwrap();
        producer.send_offsets(&[offset], &group).unwrap();
        producer.commit().unwrap();
    })
    .await;
    assert_eq!(watched.values(1).await, ["b"]);
    watched.stop().await;
    let committed = cluster.admin.committed(&cluster.group(), std::slice::from_ref(&topic)).await.unwrap();
    assert_eq!(committed.len(), 1);
    let (mut records, _tail) = Table::load(&cluster.settings, &topic).await.unwrap();
    records.sort_by_key(text);
    assert_eq!(records.iter().map(text).collect::<Vec<_>>(), ["a", "b"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_user_with_a_password_does_everything() {
    does_everything(by(Login::Plain, USER).await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_user_by_scram_does_everything() {
    does_everything(by(Login::Scram256, USER).await).await;
    does_everything(by(Login::Scram512, USER).await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_user_with_a_certificate_does_everything() {
    does_everything(by(Login::Certificate, USER).await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_with_tokens_does_everything_and_renews_them_before_they_end() {
    let (issuer, settings) = by_token(|_| token(5)).await;
    does_everything(settings.clone()).await;
    let producer = Producer::new(&settings).unwrap();
    let topics = Topics::new(test_kit::prefix());
    let admin = Admin::new(&settings).unwrap();
    admin.create_topics(&topics, &BTreeSet::new(), None).await.unwrap();
    let record = record(&topics.events(), "a");
    producer.send(&record).await.unwrap();
    let before = issuer.requests().len();
    eventually(LONG, "each of three clients has renewed its token", async || {
        (issuer.requests().len() >= before + 6).then_some(())
    })
    .await;
    producer.send(&record).await.unwrap();
    let asked = issuer.requests().remove(0);
    assert_eq!(asked.body, "grant_type=client_credentials&scope=kafka");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_issuer_that_is_away_for_a_while_is_asked_again() {
    let (_issuer, settings) = by_token(|asked| if asked < 2 { Answer::status(503) } else { token(600) }).await;
    let admin = Admin::new(&settings).unwrap();
    eventually(LONG, "Kafka answers", async || admin.reachable(Duration::from_secs(2)).await.ok()).await;
}

/// Without waiting for anything to run out of time.
async fn refusal(settings: &Settings) -> String {
    let error = Admin::new(settings).unwrap().reachable(LONG).await.unwrap_err();
    let Error::Denied(reason) = error else { panic!("{error:?}") };
    let settings = settings.clone();
    let of_producer = blocking(move || {
        let mut producer = TransactionalProducer::new(&settings, "id", Duration::from_secs(10)).unwrap();
        producer.init(LONG).unwrap_err()
    });
    let of_producer = std::error::Error::source(&of_producer.await).unwrap().to_string();
    assert!(of_producer.starts_with("Kafka refuses this client: "), "{of_producer}");
    reason.to_string()
}

fn with(settings: Settings, name: &str, value: &str) -> Settings {
    let mut settings = settings;
    settings.properties.insert(name.to_owned(), value.to_owned());
    settings
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_password_is_told_at_once_and_is_not_shown() {
    for (login, said) in [(Login::Plain, "Invalid username or password"), (Login::Scram512, "invalid credentials")] {
        let told = refusal(&with(by(login, USER).await, "sasl.password", "hunter2")).await;
        assert!(told.contains("Authentication failed") && told.contains(said), "{told}");
        assert!(!told.contains("hunter2"), "{told}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_of_another_authority_is_refused() {
    let other = Authority::new("other").unwrap();
    let other = other.certificate();
    let told = refusal(&with(by(Login::Scram256, USER).await, "ssl.ca.location", other.to_str().unwrap())).await;
    assert!(told.contains("verify that ssl.ca.location is correctly configured"), "{told}");
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_that_have_ended_and_clients_that_the_issuer_does_not_know_are_told() {
    let (_issuer, settings) = by_token(|_| token(-60)).await;
    let told = refusal(&settings).await;
    assert!(told.contains("unexpired"), "{told}");
    let told = refusal(&with(settings, "sasl.oauthbearer.client.secret", "hunter2")).await;
    assert!(told.contains("who is this?") && !told.contains("hunter2"), "{told}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_user_without_rights_is_told_which_right_it_lacks() {
    let settings = by(Login::Scram256, STRANGER).await;
    let topics = Topics::new(test_kit::prefix());
    let admin = Admin::new(&by(Login::Scram256, USER).await).unwrap();
    admin.create_topics(&topics, &BTreeSet::new(), None).await.unwrap();
    let error = Producer::new(&settings).unwrap().send(&record(&topics.events(), "a")).await.unwrap_err();
    let told = std::error::Error::source(&error).unwrap().to_string();
    assert!(told.contains("Topic authorization failed"), "{told}");
    let refused = Admin::new(&settings).unwrap().create_topics(&topics, &BTreeSet::from(["q".to_owned()]), None).await;
    let told = std::error::Error::source(&refused.unwrap_err()).unwrap().to_string();
    assert!(told.contains("authorization failed"), "{told}");
}
