//! Holds: released once, at their time by Postgres' clock; parked jobs stay.

use std::collections::BTreeMap;

use events::wait::Wait;
use events::{decode_slip, slip_record, wait_record};
use flow::event::{EventKind, JobStatus};
use flow::id::JobId;
use flow::slip::{Hold, HoldReason};
use test_kit::{Ground, TEST_TRACE, sample_event, sample_job, sample_slip};

use crate::stage::{PATIENCE, start, start_with, start_zombie, until, until_taken_in};

async fn hold(ground: &Ground, job: JobId, reason: HoldReason, release_after_ms: Option<u64>) {
    let hold = Hold {
        slip: sample_slip(job, 2),
        queue: "default".to_owned(),
        reason,
        release_after_ms,
        signal: None,
        limit: None,
    };
    let record = wait_record(&ground.topics, &ground.writers, &Wait::Hold(hold), &TEST_TRACE).unwrap();
    ground.send(&record).await;
}

/// Keeps what is known of a hold only while it rests.
fn remember_holds(ground: &Ground) {
    ground.sql(
        "create table public.held (value bytea, release_at timestamptz);
         create function public.remember() returns trigger language plpgsql security definer as
            $$ begin insert into public.held values (new.value, new.release_at); return null; end $$;
         create trigger remember after insert on orchestrator.holds
            for each row execute function public.remember()",
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_hold_is_sent_on_once_and_not_before_its_time_however_many_orchestrators_there_are() {
    let mut ground = Ground::new().await;
    remember_holds(&ground);
    let all = [start_zombie(&mut ground), start(&ground), start(&ground)];
    let jobs: BTreeMap<JobId, u64> = (0..300).map(|number| (sample_job(), number * 5)).collect();
    for (job, release_after_ms) in &jobs {
        hold(&ground, *job, HoldReason::Backoff, Some(*release_after_ms)).await;
    }
    until(&ground, "select count(*) from public.held", "300").await;
    until(&ground, "select count(*) from orchestrator.holds", "0").await;
    let sent = ground.outbox(&ground.topics.steps("default"));
    assert_eq!(sent.len(), 300);
    for record in &sent {
        let slip = ground.reader.read(record.value.as_deref(), decode_slip).await.unwrap();
        assert!(jobs.contains_key(&slip.job));
        let wanted = slip_record(&ground.topics, &ground.writers, "default", &sample_slip(slip.job, 2), &TEST_TRACE);
        assert_eq!(record, &wanted.unwrap(), "the slip as it was held, with its trace");
    }
    let early = "select count(*) from outbox.messages join public.held using (value) where created_at < release_at";
    assert_eq!(ground.sql(early), "0");
    for running in all {
        running.stop().await;
    }
    assert_eq!(ground.outbox(&ground.topics.steps("default")).len(), 300);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_parked_job_stays_until_an_operator_decides() {
    let ground = Ground::new().await;
    let running = start(&ground);
    let (parked, nobody_has_it, other) = (sample_job(), sample_job(), sample_job());
    hold(&ground, parked, HoldReason::Attention, None).await;
    hold(&ground, nobody_has_it, HoldReason::MissingStep, None).await;
    hold(&ground, other, HoldReason::Backoff, Some(1)).await;
    until_taken_in(&ground, &ground.topics.waits(), 3).await;
    until(&ground, "select count(*) from outbox.messages", "1").await;
    assert_eq!(
        ground.sql("select string_agg(reason, ',' order by reason) from orchestrator.holds"),
        "attention,missing-step"
    );
    running.stop().await;
    // Nor does a restart send it on.
    let running = start(&ground);
    hold(&ground, sample_job(), HoldReason::Backoff, Some(1)).await;
    until(&ground, "select count(*) from outbox.messages", "2").await;
    assert_eq!(ground.sql("select count(*) from orchestrator.holds"), "2");
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hold_that_is_read_twice_rests_once() {
    let ground = Ground::new().await;
    let running = start(&ground);
    let job = sample_job();
    for _ in 0..3 {
        hold(&ground, job, HoldReason::Attention, None).await;
    }
    until_taken_in(&ground, &ground.topics.waits(), 3).await;
    assert_eq!(ground.sql("select count(*) from orchestrator.holds"), "1");
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn records_of_holds_are_deleted_once_they_are_taken_in_and_old_enough() {
    let ground = Ground::new().await;
    let (admin, waits) = (bus::admin::Admin::new(&ground.bus).unwrap(), ground.topics.waits());
    let topics = [waits.clone()];
    let kept = async || {
        let offsets = admin.offsets(&topics).await.ok()?;
        Some(offsets.values().map(|(start, end)| end - start).sum::<i64>())
    };
    let young = start(&ground);
    let parked = sample_job();
    hold(&ground, parked, HoldReason::Attention, None).await;
    for _ in 0..20 {
        hold(&ground, sample_job(), HoldReason::Backoff, Some(0)).await;
    }
    until_taken_in(&ground, &waits, 21).await;
    young.stop().await;
    // At each start one round is due.
    let young = start(&ground);
    hold(&ground, sample_job(), HoldReason::Backoff, Some(0)).await;
    until_taken_in(&ground, &waits, 22).await;
    assert_eq!(kept().await, Some(22), "too young to go");
    young.stop().await;
    let old = start_with(&ground, |config| config.keep_waits_h = 0);
    let gone = async || kept().await.filter(|records| *records < 22);
    test_kit::eventually(PATIENCE, "the records go", gone).await;
    until(&ground, "select count(*) from orchestrator.holds", "1").await;
    old.stop().await;
    // Read from where it was: nothing is missing, nothing comes twice.
    let last = start(&ground);
    hold(&ground, sample_job(), HoldReason::Backoff, Some(0)).await;
    until_taken_in(&ground, &waits, 23).await;
    until(&ground, "select count(*) from orchestrator.holds", "1").await;
    last.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_projection_that_is_behind_delays_no_token() {
    let ground = Ground::new().await;
    ground.sql(
        "create table public.blocked as select 1;
         create function public.wait() returns trigger language plpgsql security definer as
            $$ begin
                while exists (select from public.blocked) loop perform pg_sleep(0.05); end loop;
                return new;
            end $$;
         create trigger wait before insert on orchestrator.jobs for each row execute function public.wait()",
    );
    let running = start(&ground);
    ground.tell(&sample_event(sample_job(), EventKind::JobAccepted, JobStatus::Accepted, 0)).await;
    let waiting = "select count(*) from pg_stat_activity
                   where datname = current_database() and wait_event = 'PgSleep'";
    until(&ground, waiting, "1").await;
    hold(&ground, sample_job(), HoldReason::Backoff, Some(1)).await;
    until(&ground, "select count(*) from outbox.messages where topic like '%.steps.default'", "1").await;
    assert_eq!(ground.sql("select count(*) from orchestrator.jobs"), "0");
    ground.sql("truncate public.blocked");
    until_taken_in(&ground, &ground.topics.events(), 1).await;
    running.stop().await;
}
