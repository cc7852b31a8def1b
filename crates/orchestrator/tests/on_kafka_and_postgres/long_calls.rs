//! Long calls: an outcome counts once, what waits comes in order, and only who is silent loses its calls.

use events::header;
use events::lane::{Freed, LaneNews, turn_headers};
use events::wait::{Alive, Outcome, RunningCall, Turn, Unread, UnreadRest, Wait};
use events::{Inbound, Record, decode_slip, decode_wait, slip_record, wait_record};
use flow::slip::{Hold, HoldReason, Slip};
use test_kit::{Ground, TEST_TRACE, eventually, measure, metric, sample_job, sample_slip};

use crate::stage::{PATIENCE, refused, start, start_zombie, until, until_taken_in};

const WORKER: &str = "host-1/1";
/// So long that nobody is silent for it.
const LEASE_MS: u64 = 3_600_000;
/// So short that everybody is.
const SHORT_LEASE_MS: u64 = 200;

async fn say(ground: &Ground, wait: Wait) {
    let record = wait_record(&ground.topics, &ground.writers, &wait, &TEST_TRACE).unwrap();
    ground.send(&record).await;
}

/// A slip of this ordering key, as it rests at hop 2.
fn slip(key: &str) -> Slip {
    let mut slip = sample_slip(sample_job(), 2);
    key.clone_into(&mut slip.key);
    slip
}

fn hold(slip: &Slip, reason: HoldReason) -> Hold {
    Hold { slip: slip.clone(), queue: "default".to_owned(), reason, release_after_ms: None, signal: None, limit: None }
}

fn running(slip: &Slip, worker: &str, lease_ms: u64) -> Wait {
    let hold = hold(slip, HoldReason::Running);
    Wait::Running(RunningCall { hold, worker: worker.to_owned(), attempt: 1, lease_ms })
}

fn turn(slip: &Slip, behind: &Slip, place: u32) -> Wait {
    Wait::Turn(Turn { hold: hold(slip, HoldReason::Turn), behind: behind.token(), place })
}

/// Whose one record is `value` on the events topic.
fn outcome(ground: &Ground, slip: &Slip, worker: &str, value: &str) -> Wait {
    let record = Record { topic: ground.topics.events(), value: Some(value.into()), ..Record::default() };
    Wait::Outcome(Outcome {
        token: slip.token(),
        tenant: slip.tenant.clone(),
        lane: slip.record_key(),
        worker: worker.to_owned(),
        records: vec![record],
    })
}

fn alive(worker: &str, lease_ms: u64) -> Wait {
    Wait::Alive(Alive { worker: worker.to_owned(), lease_ms, at_ms: 1 })
}

/// What a steps topic gets, in order: for a slip its job and what it comes behind, for a freed lane its holder and
/// turns.
async fn queued(ground: &Ground) -> Vec<String> {
    let mut queued = Vec::new();
    for record in ground.outbox(&ground.topics.steps("default")) {
        let inbound = Inbound { headers: record.headers.clone(), ..Inbound::default() };
        if let Some(Freed { holder, turns }) = Freed::read(&inbound) {
            queued.push(format!("free {holder} {turns}"));
            continue;
        }
        let slip = ground.reader.read(record.value.as_deref(), decode_slip).await.unwrap();
        assert_eq!(record.key, Some(slip.record_key().into_bytes()));
        queued.push(format!("{} behind {}", slip.job, inbound.header_text(header::TURN).unwrap()));
    }
    queued
}

fn behind(slip: &Slip, holder: &Slip) -> String {
    format!("{} behind {}", slip.job, holder.token())
}

fn free(holder: &Slip, turns: u32) -> String {
    format!("free {} {turns}", holder.token())
}

/// The relay's part for one row of `waits`.
async fn relay_wait(ground: &Ground, row: usize) {
    ground.send(&ground.outbox(&ground.topics.waits())[row]).await;
}

/// The relay's part for `waits`: sends what the outbox has for it beyond the first `sent` rows. Returns how many it
/// has.
async fn relay_waits(ground: &Ground, sent: usize) -> usize {
    let rows = ground.outbox(&ground.topics.waits());
    for record in &rows[sent..] {
        ground.send(record).await;
    }
    rows.len()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_batch_with_a_call_its_turns_and_its_end_means_the_same_as_one_record_after_the_other() {
    for in_one_batch in [true, false] {
        let ground = Ground::new().await;
        let (call, first, second, late) = (slip("k"), slip("k"), slip("k"), slip("k"));
        let next = slip("k");
        let records = [
            running(&call, WORKER, LEASE_MS),
            turn(&first, &call, 1),
            turn(&second, &call, 2),
            outcome(&ground, &call, WORKER, "once"),
            turn(&late, &call, 3),
            running(&next, WORKER, LEASE_MS),
            outcome(&ground, &call, WORKER, "again"),
        ];
        let count = records.len();
        // Whoever is started before reads them one by one.
        let early = (!in_one_batch).then(|| start(&ground));
        for (index, record) in records.into_iter().enumerate() {
            say(&ground, record).await;
            if !in_one_batch {
                until_taken_in(&ground, &ground.topics.waits(), index + 1).await;
            }
        }
        let running = early.unwrap_or_else(|| start(&ground));
        until_taken_in(&ground, &ground.topics.waits(), count).await;
        assert_eq!(
            queued(&ground).await,
            [behind(&first, &call), behind(&second, &call), free(&call, 2), behind(&late, &call), free(&call, 3)],
            "in one batch: {in_one_batch}"
        );
        let events: Vec<_> = ground.outbox(&ground.topics.events()).into_iter().map(|event| event.value).collect();
        assert_eq!(events, [Some(b"once".to_vec())]);
        // The successor comes behind the word that the lane is free.
        let order = "select string_agg(split_part(topic, '.', 2) || case when value is null then '-' else '' end, ','
                     order by txid, seq) from outbox.messages";
        assert_eq!(ground.sql(order), "steps,steps,steps-,events,steps,steps-");
        assert_eq!(ground.sql("select job from orchestrator.holds"), next.job.to_string());
        assert!(refused(&ground).is_empty());
        running.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_outcome_of_a_worker_that_does_not_have_the_call_is_refused_and_counted() {
    measure();
    let ground = Ground::new().await;
    let running_one = start(&ground);
    let call = slip("k");
    say(&ground, running(&call, WORKER, LEASE_MS)).await;
    let before = metric("meanwhile_outcomes_refused_total").unwrap_or_default();
    say(&ground, outcome(&ground, &call, "host-2/1", "of another")).await;
    until_taken_in(&ground, &ground.topics.waits(), 2).await;
    let counted = async || (metric("meanwhile_outcomes_refused_total")? > before).then_some(());
    eventually(PATIENCE, "it is counted", counted).await;
    assert_eq!(ground.sql("select count(*) from outbox.messages"), "0");
    assert_eq!(ground.sql("select job from orchestrator.holds"), call.job.to_string());
    running_one.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_is_silent_through_two_questions_loses_its_calls_once_however_many_orchestrators_there_are() {
    let mut ground = Ground::new().await;
    let all = [start_zombie(&mut ground), start(&ground), start(&ground)];
    let (call, other, waiting) = (slip("a"), slip("b"), slip("a"));
    say(&ground, running(&call, WORKER, SHORT_LEASE_MS)).await;
    say(&ground, turn(&waiting, &call, 1)).await;
    say(&ground, running(&other, WORKER, SHORT_LEASE_MS)).await;
    let mut relayed = 0;
    for round in 1..=2 {
        let rows = format!("select count(*) from outbox.messages where topic = '{}'", ground.topics.waits());
        until(&ground, &rows, &round.to_string()).await;
        assert_eq!(ground.sql("select count(*) from orchestrator.holds"), "3", "before question {round} is heard");
        relayed = relay_waits(&ground, relayed).await;
    }
    until(&ground, "select count(*) from orchestrator.workers where told_at is null", "0").await;
    assert_eq!(ground.sql("select count(*) from orchestrator.holds"), "0");
    let queued = queued(&ground).await;
    let of_lane = |slip: &Slip, others: &[&Slip]| {
        let wanted = |line: &&String| [slip].iter().chain(others).any(|slip| line.contains(&slip.job.to_string()));
        queued.iter().filter(wanted).cloned().collect::<Vec<_>>()
    };
    assert_eq!(of_lane(&call, &[&waiting]), [behind(&call, &call), behind(&waiting, &call), free(&call, 1)]);
    assert_eq!(of_lane(&other, &[]), [behind(&other, &other), free(&other, 0)]);
    assert_eq!(queued.len(), 5);
    let told = ground.outbox(&ground.topics.lanes()).remove(0);
    let told = Inbound { key: told.key, value: told.value, ..Inbound::default() };
    assert_eq!(events::lane::read(&told).unwrap(), Some(LaneNews::Lost(WORKER.to_owned())));
    // What it has to say afterwards counts no more.
    say(&ground, outcome(&ground, &call, WORKER, "late")).await;
    until_taken_in(&ground, &ground.topics.waits(), 6).await;
    assert!(ground.outbox(&ground.topics.events()).is_empty());
    for running in all {
        running.stop().await;
    }
}

/// Waits for a question beyond the first `asked`, and reads the last one.
async fn question(ground: &Ground, asked: usize) -> events::wait::Question {
    let row = async || ground.outbox(&ground.topics.waits()).into_iter().nth(asked);
    let record = eventually(PATIENCE, "a question", row).await;
    match ground.reader.read(record.value.as_deref(), decode_wait).await.unwrap() {
        Wait::Question(question) => question,
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_says_that_it_lives_before_the_second_question_keeps_its_calls() {
    let ground = Ground::new().await;
    let running_one = start(&ground);
    let call = slip("k");
    say(&ground, running(&call, WORKER, SHORT_LEASE_MS)).await;
    assert_eq!(question(&ground, 0).await.round, 1);
    relay_wait(&ground, 0).await;
    assert_eq!(question(&ground, 1).await.round, 2);
    say(&ground, alive(WORKER, SHORT_LEASE_MS)).await;
    // By itself: on a slow machine the next question is there already.
    relay_wait(&ground, 1).await;
    // It begins anew, with the first question.
    assert_eq!(question(&ground, 2).await.round, 1);
    until_taken_in(&ground, &ground.topics.waits(), 4).await;
    assert_eq!(ground.sql("select job from orchestrator.holds"), call.job.to_string());
    assert!(queued(&ground).await.is_empty());
    running_one.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn signs_of_life_that_lie_behind_an_outage_are_no_silence() {
    let ground = Ground::new().await;
    let before = start(&ground);
    let call = slip("k");
    say(&ground, running(&call, WORKER, SHORT_LEASE_MS)).await;
    until_taken_in(&ground, &ground.topics.waits(), 1).await;
    assert_eq!(question(&ground, 0).await.round, 1);
    before.stop().await;
    // The worker lives; nobody reads.
    for _ in 0..200 {
        say(&ground, alive(WORKER, LEASE_MS)).await;
    }
    let asked = ground.outbox(&ground.topics.waits()).len();
    relay_waits(&ground, 0).await;
    let after = start(&ground);
    until_taken_in(&ground, &ground.topics.waits(), 201 + asked).await;
    assert_eq!(ground.sql("select round, lost_reason is null from orchestrator.workers"), "0|t");
    assert_eq!(ground.sql("select job from orchestrator.holds"), call.job.to_string());
    after.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_start_of_an_instance_gives_the_calls_of_the_earlier_one_to_others_at_once() {
    let ground = Ground::new().await;
    let running_one = start(&ground);
    let (call, of_another) = (slip("a"), slip("b"));
    say(&ground, running(&call, WORKER, LEASE_MS)).await;
    say(&ground, running(&of_another, "host-2/1", LEASE_MS)).await;
    until_taken_in(&ground, &ground.topics.waits(), 2).await;
    say(&ground, alive("host-1/2", LEASE_MS)).await;
    let others = "select string_agg(worker, ',' order by worker) from orchestrator.workers where told_at is null";
    until(&ground, others, "host-1/2,host-2/1").await;
    assert_eq!(queued(&ground).await, [behind(&call, &call), free(&call, 0)]);
    assert_eq!(ground.sql("select job from orchestrator.holds"), of_another.job.to_string());
    running_one.stop().await;
}

/// Whatever a lost worker still takes is not forgotten.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_that_is_taken_in_after_its_worker_was_lost_is_sent_to_others_at_once() {
    let ground = Ground::new().await;
    let running_one = start(&ground);
    say(&ground, running(&slip("a"), WORKER, SHORT_LEASE_MS)).await;
    let mut relayed = 0;
    for _ in 0..2 {
        question(&ground, relayed).await;
        relayed = relay_waits(&ground, relayed).await;
    }
    until(&ground, "select count(*) from orchestrator.holds", "0").await;
    // Nobody asks it any more.
    say(&ground, running(&slip("b"), WORKER, LEASE_MS)).await;
    until_taken_in(&ground, &ground.topics.waits(), 4).await;
    until(&ground, "select count(*) from orchestrator.holds", "0").await;
    assert_eq!(queued(&ground).await.len(), 4);
    assert_eq!(ground.outbox(&ground.topics.waits()).len(), 2);
    running_one.stop().await;
}

fn unread(ground: &Ground, slip: &Slip, rest: UnreadRest) -> Wait {
    let mut record = slip_record(&ground.topics, &ground.writers, "default", slip, &TEST_TRACE).unwrap();
    // It has waited before.
    record.headers.append(&turn_headers(&sample_slip(sample_job(), 9).token(), 7));
    let read_at = format!("{}/0/1", record.topic);
    Wait::Unread(Unread { token: slip.token(), lane: slip.record_key(), read_at, record, rest })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slip_that_waits_for_room_or_to_be_read_is_sent_again_before_those_behind_it() {
    let ground = Ground::new().await;
    let running_one = start(&ground);
    let [room, behind_room, unread_one, behind_unread, unread_turn] = ["a", "a", "b", "b", "b"].map(slip);
    let rest = Hold { release_after_ms: Some(1_500), ..hold(&room, HoldReason::Room) };
    say(&ground, Wait::Hold(rest)).await;
    say(&ground, turn(&behind_room, &room, 1)).await;
    say(&ground, unread(&ground, &unread_one, UnreadRest::Until(1_500))).await;
    say(&ground, turn(&behind_unread, &unread_one, 1)).await;
    say(&ground, unread(&ground, &unread_turn, UnreadRest::Behind(unread_one.token(), 2))).await;
    until(&ground, "select count(*) from outbox.messages", "7").await;
    let queued = queued(&ground).await;
    let of_lane = |key: &str| queued.iter().filter(|line| line.starts_with(key)).cloned().collect::<Vec<_>>();
    let lines = [
        behind(&room, &room),
        behind(&behind_room, &room),
        free(&room, 1),
        behind(&unread_one, &unread_one),
        behind(&behind_unread, &unread_one),
        behind(&unread_turn, &unread_one),
        free(&unread_one, 2),
    ];
    assert!(lines[..3].is_sorted_by_key(|line| queued.iter().position(|queued| queued == line)), "{queued:?}");
    assert!(lines[3..].is_sorted_by_key(|line| queued.iter().position(|queued| queued == line)), "{queued:?}");
    assert!(lines.iter().all(|line| of_lane(line).len() == 1), "{queued:?}");
    assert_eq!(ground.sql("select count(*) from orchestrator.holds"), "0");
    running_one.stop().await;
}
