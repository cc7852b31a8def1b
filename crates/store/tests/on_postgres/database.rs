//! A migrated database of its own for each test, and examples to put into it.

use events::headers::Headers;
use events::record::Record;
use events::trace::TraceId;
use flow::event::{CarriedEvent, EventKind, JobEvent, JobStatus};
use flow::facts::JobFacts;
use flow::id::JobId;
use flow::slip::Phase;
use sqlx::PgConnection;
use store::acceptances::{Acceptance, Idempotency, NewAcceptance};
use store::{Pool, Role, Settings};
use uuid::Uuid;

pub(crate) struct Database {
    pub(crate) url: String,
}

impl Database {
    pub(crate) async fn fresh() -> Self {
        let url = test_kit::postgres_database().await;
        store::migrate(&url).await.unwrap();
        Self { url }
    }

    pub(crate) fn pool(&self, role: Role) -> Pool {
        Pool::open(&Settings::new(&self.url), role).unwrap()
    }

    /// As the superuser, for looking behind the scenes.
    pub(crate) async fn superuser(&self) -> PgConnection {
        use sqlx::Connection;
        PgConnection::connect(&self.url).await.unwrap()
    }

    pub(crate) async fn count(&self, from: &str) -> i64 {
        let query = sqlx::AssertSqlSafe(format!("select count(*) from {from}"));
        sqlx::query_scalar(query).fetch_one(&mut self.superuser().await).await.unwrap()
    }

    pub(crate) async fn run(&self, sql: &str) {
        sqlx::raw_sql(sqlx::AssertSqlSafe(sql.to_owned())).execute(&mut self.superuser().await).await.unwrap();
    }

    /// The values in the outbox, in the order in which a relay would send them.
    pub(crate) async fn outbox_values(&self) -> Vec<String> {
        sqlx::query_scalar("select convert_from(value, 'UTF8') from outbox.messages order by txid, seq")
            .fetch_all(&mut self.superuser().await)
            .await
            .unwrap()
    }
}

pub(crate) fn job() -> JobId {
    JobId::new(Uuid::now_v7())
}

pub(crate) fn record(value: &str) -> Record {
    Record {
        topic: "t.events".to_owned(),
        key: Some(b"key".to_vec()),
        value: Some(value.as_bytes().to_vec()),
        headers: Headers::from([("traceparent", Some("00-1-1-01")), ("null", None)]),
    }
}

/// An acceptance with two records, `<name> event` and `<name> slip`.
pub(crate) fn acceptance(name: &str) -> NewAcceptance {
    let acceptance = Acceptance {
        facts: JobFacts {
            job: job(),
            tenant: "acme".to_owned(),
            flow: "order".to_owned(),
            version: "v1".to_owned(),
            key: "customer-1".to_owned(),
            correlation_id: format!("correlation of {name}"),
            accepted_at_ms: 1_700_000_000_123,
            retry_of: Some(job()),
        },
        input: br#"{"b":1,"a":2}"#.to_vec(),
        deadline_ms: Some(1_700_000_900_123),
        steps_total: 3,
        trace_id: Some(TraceId::new(0x4bf9_2f35_77b3_4da6_a3ce_929d_0e0e_4736)),
    };
    let records = vec![record(&format!("{name} event")), record(&format!("{name} slip"))];
    let submitted_by = Some("key:k-1".to_owned());
    NewAcceptance { acceptance, idempotency: None, records, submitted_by, webhook: None }
}

/// The same with an idempotency key.
pub(crate) fn keyed(name: &str, key: &str, fingerprint: &str) -> NewAcceptance {
    let idempotency = Idempotency {
        scope: "POST /orders".to_owned(),
        key: key.to_owned(),
        fingerprint: fingerprint.as_bytes().to_vec(),
        retention_ms: 86_400_000,
    };
    NewAcceptance { idempotency: Some(idempotency), ..acceptance(name) }
}

pub(crate) fn event(job: JobId, kind: EventKind, status: JobStatus, hop: u32) -> JobEvent {
    JobEvent {
        facts: JobFacts {
            job,
            tenant: "acme".to_owned(),
            flow: "order".to_owned(),
            version: "v1".to_owned(),
            key: "customer-1".to_owned(),
            correlation_id: "correlation".to_owned(),
            accepted_at_ms: 1_700_000_000_000,
            retry_of: None,
        },
        kind,
        status,
        hop,
        index: 0,
        branch: String::new(),
        step: Some("reserve".to_owned()),
        phase: Phase::Forward,
        visit: 1,
        attempts: 1,
        at_ms: 1_700_000_000_000 + i64::from(hop),
        steps_total: 3,
        next_attempt_after_ms: None,
        data: Some(serde_json::json!({"z": 1, "a": "text"})),
        reason: None,
        signal: None,
        actor: None,
        answer: None,
        carried: CarriedEvent::default(),
    }
}
