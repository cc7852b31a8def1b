//! Leases, and the time that an attempt tells.

use std::time::{Duration, SystemTime};

use store::Role;
use store::webhooks::{self, Leased, NewDelivery, Outcome};
use test_kit::{Ground, Receiver};
use uuid::Uuid;

use crate::stage::{Registered, deliveries, register, start, until};

async fn deliver(ground: &Ground, endpoint: &Registered, id: Uuid) {
    let mut tx = ground.pool(Role::Notifier).begin().await.unwrap();
    let new = NewDelivery {
        id,
        endpoint: endpoint.id,
        of_job: false,
        tenant: "default".to_owned(),
        job: None,
        kind: "job.failed".to_owned(),
        body: b"{}".to_vec(),
        traceparent: None,
    };
    webhooks::insert(&mut tx, &[new]).await.unwrap();
    tx.commit().await.unwrap();
}

fn outcome(delivery: Uuid, attempt: i32, error: Option<&'static str>) -> Outcome {
    let again_in_ms = error.map(|_| 3_600_000);
    let (status, detail, answer) = (Some(500), None, vec![]);
    Outcome { delivery, attempt, duration_ms: 1, status, error, detail, answer, again_in_ms }
}

#[tokio::test]
async fn a_leased_delivery_is_nobody_elses_until_its_lease_runs_out_and_then_its_first_holder_cannot_put_it_off() {
    let (ground, receiver) = (Ground::new().await, Receiver::start().await);
    let endpoint = register(&ground, &receiver.url(), &["*"]).await;
    let id = Uuid::now_v7();
    deliver(&ground, &endpoint, id).await;
    let pool = ground.pool(Role::Notifier);
    let room = Leased { deliveries_max: 9, per_endpoint_max: 9, lease: Duration::from_secs(3_600), busy: vec![] };
    let lease = async || webhooks::lease(&pool, &room).await.unwrap();
    let record = async |outcome: Outcome| {
        let mut tx = pool.begin().await.unwrap();
        webhooks::record(&mut tx, &[outcome]).await.unwrap();
        tx.commit().await.unwrap();
    };
    let first = lease().await;
    assert_eq!((first.len(), first[0].attempt), (1, 1));
    assert!(lease().await.is_empty(), "it is leased");
    let left = webhooks::next_due(&pool).await.unwrap().unwrap();
    assert!(left > Duration::from_secs(3_000), "{left:?}");
    ground.sql("update notifier.deliveries set due_at = now()");
    let second = lease().await;
    assert_eq!((second.len(), second[0].attempt, second[0].failures), (1, 2, 0));
    record(outcome(id, 1, Some("status"))).await;
    assert_eq!(deliveries(&ground, endpoint.id, "failures"), ["0"], "the second holder decides");
    assert_eq!(ground.sql("select count(*) from notifier.attempts"), "1", "and yet it is in the log");
    record(outcome(id, 1, None)).await;
    assert_eq!(deliveries(&ground, endpoint.id, "status"), ["delivered"], "what has arrived has arrived");
    record(outcome(id, 2, Some("status"))).await;
    assert_eq!(deliveries(&ground, endpoint.id, "status"), ["delivered"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_attempt_tells_its_own_time_however_old_its_delivery_is() {
    let (ground, receiver) = (Ground::new().await, Receiver::start().await);
    let endpoint = register(&ground, &receiver.url(), &["*"]).await;
    // Its id carries the time of a day ago.
    let day_ago_ms = SystemTime::UNIX_EPOCH.elapsed().unwrap().as_millis() - 86_400_000;
    deliver(&ground, &endpoint, Uuid::from_u128(day_ago_ms << 80 | 0x7cc0_b1f1_3f4d_5a6b_7c8d)).await;
    ground.sql("update notifier.deliveries set created_at = now() - interval '1 day', due_at = created_at");
    let began_s = SystemTime::UNIX_EPOCH.elapsed().unwrap().as_secs();
    let running = start(&ground);
    until(&ground, endpoint.id, "delivered", 1).await;
    let requests = receiver.requests();
    let told: u64 = requests[0].header("webhook-timestamp").parse().unwrap();
    assert!(told >= began_s, "{told} is before {began_s}");
    running.stop().await;
}
