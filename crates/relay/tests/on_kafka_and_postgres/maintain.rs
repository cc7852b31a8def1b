//! Partitions of the outbox are made ahead, and dropped once delivered.

use relay::Relay;
use relay::maintain::Maintenance;
use relay::seam::Seams;
use service_kit::{Clock, Readiness};
use store::reader::Way;
use test_kit::psql;

use crate::stage::{Stage, WITHIN, either_way};

either_way!(a_partition_is_dropped_only_after_its_rows_were_delivered,);

async fn a_partition_is_dropped_only_after_its_rows_were_delivered(way: Way) {
    let mut stage = Stage::by(way).await;
    stage.config.partitions_interval_s = 1;
    stage.config.idle_position_interval_ms = 200;
    // An hour that ended two hours ago, with a row in it.
    let hour = "date_trunc('hour', now(), 'UTC') - interval '3 hours'";
    let index = psql(&stage.database_url, &format!("select (extract(epoch from {hour}) / 3600)::bigint")).unwrap();
    let bound = |hours: &str| format!("to_timestamp(({index} + {hours}) * 3600.0)");
    let at = |hours: &str| psql(&stage.database_url, &format!("select quote_literal({})", bound(hours))).unwrap();
    let (from, to) = (at("0"), at("1"));
    let create = format!(
        "create table outbox.messages_p{index} partition of outbox.messages for values from ({from}) to ({to});
         alter table outbox.messages_p{index} owner to meanwhile_relay;
         insert into outbox.messages (created_at, topic, key, value, headers)
         values ({from}, '{}', 'k0', '0', '')",
        stage.topics.steps("default"),
    );
    psql(&stage.database_url, &create).unwrap();
    let exists = || psql(&stage.database_url, &format!("select to_regclass('outbox.messages_p{index}')")).unwrap();

    let readiness = Readiness::new(Clock::system(), "relay");
    let idle = Relay::new(stage.settings(Seams::default()), readiness, Clock::system()).unwrap();
    let mut maintenance = Maintenance::default();
    for _ in 0..3 {
        idle.maintain_once(&mut maintenance).await.unwrap();
    }
    assert_ne!(exists(), "", "nothing was delivered yet");
    let ahead =
        psql(&stage.database_url, "select count(*) from pg_inherits where inhparent = 'outbox.messages'::regclass");
    assert!(ahead.unwrap().parse::<u32>().unwrap() > stage.config.partitions_ahead_h);

    let mut relay = stage.start();
    relay.relayed(1).await;
    // The partition with the last row stays, where the table is polled.
    stage.commit([1]).await;
    relay.relayed(2).await;
    test_kit::eventually(WITHIN, "the partition is dropped", async || exists().is_empty().then_some(())).await;
    stage.assert_once_in_order(2).await;
    stage.commit(2..3).await;
    relay.relayed(3).await;
    relay.stop().await;
}
