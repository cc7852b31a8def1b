//! Endpoints that want so many deliveries a second, at most. No wall clock: the next time is set by hand.

use std::time::Duration;

use store::Role;
use store::webhooks::{self, Change, Leased};
use test_kit::{Ground, Receiver, eventually, sample_job};

use crate::stage::{PATIENCE, Registered, deliveries, ended, register, start, until};

async fn limit(endpoint: &Registered, url: &str, rate: i32) {
    let change = Change { url, description: "", events: &["*".to_owned()], rate: Some(rate) };
    let changed = webhooks::change(&endpoint.pool, "default", (endpoint.id, None), change).await.unwrap();
    assert_eq!(changed, webhooks::Changed::Done);
}

fn next_at(ground: &Ground, time: &str) {
    ground.sql(&format!(
        "insert into notifier.paces select id, {time} from ingest.webhook_endpoints where rate is not null
         on conflict (endpoint) do update set next_at = excluded.next_at"
    ));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_burst_to_an_endpoint_with_a_rate_waits_its_turn_and_delays_no_other() {
    const BURST: usize = 1_000;
    let (ground, slow, quick) = (Ground::new().await, Receiver::start().await, Receiver::start().await);
    let limited = register(&ground, &slow.url(), &["*"]).await;
    limit(&limited, &slow.url(), 1).await;
    let other = register(&ground, &quick.url(), &["*"]).await;
    next_at(&ground, "now() + interval '1 hour'");
    for _ in 0..BURST {
        ground.tell(&ended(sample_job())).await;
    }
    let running = start(&ground);
    until(&ground, other.id, "delivered", BURST).await;
    assert_eq!(slow.requests().len(), 0, "its time has not come");
    next_at(&ground, "now()");
    webhooks::tell(&limited.pool).await.unwrap();
    // It is woken for each by itself.
    until(&ground, limited.id, "delivered", 2).await;
    let made = deliveries(&ground, limited.id, "status").iter().filter(|status| *status == "delivered").count();
    assert!(made < BURST, "{made}");
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_rate_has_left_unused_counts_for_a_moment_and_notifiers_share_it() {
    let (ground, receiver) = (Ground::new().await, Receiver::start().await);
    let endpoint = register(&ground, &receiver.url(), &["*"]).await;
    limit(&endpoint, &receiver.url(), 30).await;
    let running = start(&ground);
    next_at(&ground, "now() + interval '1 hour'");
    for _ in 0..50 {
        ground.tell(&ended(sample_job())).await;
    }
    eventually(PATIENCE, "all are taken in", async || {
        (deliveries(&ground, endpoint.id, "id").len() == 50).then_some(())
    })
    .await;
    running.stop().await;
    let pool = ground.pool(Role::Notifier);
    let room = Leased { deliveries_max: 50, per_endpoint_max: 40, lease: Duration::from_secs(60), busy: vec![] };
    assert_eq!(webhooks::lease(&pool, &room).await.unwrap().len(), 0);
    let wait = webhooks::next_due(&pool).await.unwrap().unwrap();
    assert!(wait > Duration::from_secs(3_000), "{wait:?}");
    for unused in ["interval '1 hour'", "interval '100 milliseconds'"] {
        next_at(&ground, &format!("now() - {unused}"));
        // A tenth of a second of thirty, whatever the time before.
        assert_eq!(webhooks::lease(&pool, &room).await.unwrap().len(), 3, "{unused}");
        let used = ground.sql("select next_at > now() - interval '1 minute' from notifier.paces");
        assert_eq!(used, "t", "{unused}");
    }
    // The time of one delivery is never too short for one.
    limit(&endpoint, &receiver.url(), 3).await;
    next_at(&ground, "now() - interval '1 hour'");
    assert_eq!(webhooks::lease(&pool, &room).await.unwrap().len(), 1);
    // Without a rate all of the room is there.
    let change = Change { url: &receiver.url(), description: "", events: &["*".to_owned()], rate: None };
    webhooks::change(&endpoint.pool, "default", (endpoint.id, None), change).await.unwrap();
    assert_eq!(webhooks::lease(&pool, &room).await.unwrap().len(), 40);
}
