//! The metrics of waiting work, while no worker runs too.

use std::time::Duration;

use bus::admin::Admin;
use events::wait::Wait;
use events::{slip_record, wait_record};
use flow::slip::{Hold, HoldReason};
use test_kit::{Ground, TEST_TRACE, eventually, measure, metric, prefix, sample_job, sample_slip};

use crate::stage::{PATIENCE, start, start_with};

async fn until_value(series: &str, wanted: impl Fn(f64) -> bool) {
    let mut last = None;
    let seen = eventually(PATIENCE, series, async || {
        last = metric(series);
        last.is_some_and(&wanted).then_some(())
    });
    seen.await;
}

async fn send_slips(ground: &Ground, queue: &str, slips: usize) {
    for _ in 0..slips {
        let slip = sample_slip(sample_job(), 1);
        let record = slip_record(&ground.topics, &ground.writers, queue, &slip, &TEST_TRACE).unwrap();
        ground.send(&record).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn slips_that_nobody_takes_are_counted_by_queue_and_the_oldest_grows_older() {
    measure();
    let ground = Ground::new().await;
    // Metrics are this process's, other tests' too: names that are nobody else's.
    let (busy, idle) = (prefix(), prefix());
    let (admin, group) = (Admin::new(&ground.bus).unwrap(), ground.topics.workers_group());
    for queue in [&busy, &idle] {
        admin.ensure_queue(&ground.topics, queue, &group, None).await.unwrap();
    }
    send_slips(&ground, &busy, 40).await;
    let running = start_with(&ground, |config| config.figures_interval_ms = 100);
    let (lag, age) = (
        |queue| format!("meanwhile_queue_lag{{queue=\"{queue}\"}}"),
        |queue| format!("meanwhile_queue_oldest_age_seconds{{queue=\"{queue}\"}}"),
    );
    until_value(&lag(&busy), |slips| slips == 40.0).await;
    until_value(&lag(&idle), |slips| slips == 0.0).await;
    let first = metric(&age(&busy)).unwrap();
    until_value(&age(&busy), |older| older > first).await;
    assert_eq!(metric(&age(&idle)), Some(0.0));
    send_slips(&ground, &busy, 2).await;
    until_value(&lag(&busy), |slips| slips == 42.0).await;
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn holds_are_counted_by_reason_with_those_that_there_are_none_of() {
    const PARKED: usize = 37;
    measure();
    let ground = Ground::new().await;
    // Orchestrators of other tests tell of theirs under the same name: this one does so more often.
    let running = start_with(&ground, |config| config.figures_interval_ms = 20);
    for _ in 0..PARKED {
        let (slip, queue) = (sample_slip(sample_job(), 2), "default".to_owned());
        let hold =
            Hold { slip, queue, reason: HoldReason::Attention, release_after_ms: None, signal: None, limit: None };
        let record = wait_record(&ground.topics, &ground.writers, &Wait::Hold(hold), &TEST_TRACE).unwrap();
        ground.send(&record).await;
    }
    until_value("meanwhile_holds{reason=\"attention\"}", |holds| holds == PARKED as f64).await;
    until_value("meanwhile_holds{reason=\"missing-step\"}", |holds| holds == 0.0).await;
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dead_letters_are_counted_with_their_class() {
    measure();
    let ground = Ground::new().await;
    let series = "meanwhile_dead_letters_total{role=\"orchestrator\",class=\"unreadable\"}";
    let before = metric(series).unwrap_or(0.0);
    let running = start(&ground);
    let topic = ground.topics.events();
    ground.send(&events::Record { topic, value: Some(b"no event".to_vec()), ..Default::default() }).await;
    until_value(series, |letters| letters > before).await;
    running.stop().await;
}

/// Kafka is away for longer than a look: what was counted stays, the age rises, and counting goes on afterwards.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_kafka_is_away_the_oldest_slip_still_grows_older() {
    measure();
    let mut kafka = test_kit::Kafka::start(test_kit::KafkaOptions::to_be_killed()).await.unwrap();
    let ground = Ground::on(&kafka.brokers(), &test_kit::registry().await, &test_kit::postgres_database().await).await;
    let (admin, queue) = (Admin::new(&ground.bus).unwrap(), prefix());
    let group = ground.topics.workers_group();
    admin.ensure_queue(&ground.topics, &queue, &group, None).await.unwrap();
    send_slips(&ground, &queue, 3).await;
    let running = start_with(&ground, |config| config.figures_interval_ms = 100);
    let (lag, age) = (
        format!("meanwhile_queue_lag{{queue=\"{queue}\"}}"),
        format!("meanwhile_queue_oldest_age_seconds{{queue=\"{queue}\"}}"),
    );
    until_value(&lag, |slips| slips == 3.0).await;
    kafka.kill9();
    running.until_missing("kafka").await;
    let first = metric(&age).unwrap();
    until_value(&age, |older| older > first + Duration::from_secs(1).as_secs_f64()).await;
    assert_eq!(metric(&lag), Some(3.0));
    kafka.restart().await.unwrap();
    send_slips(&ground, &queue, 1).await;
    until_value(&lag, |slips| slips == 4.0).await;
    running.stop().await;
}
