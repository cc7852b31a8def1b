use events::lane::lost_worker_record;
use events::topic::Topics;
use events::wait::Question;
use store::lanes::{ReleaseMax, end, rest};
use store::workers::{LostReason, News, Notice, Released, ask_silent, next_due_ms, release_lost, take_in};
use store::{Pool, Role};

use crate::database::{Database, job};
use crate::lanes::{WORKER, lay, outcome, running, said, token, turn};

const LEASE_MS: u64 = 60_000;
const MAX: ReleaseMax = ReleaseMax { holds: 100, bytes: 1 << 20 };

async fn hear(pool: &Pool, news: &News) -> u64 {
    let mut tx = pool.begin().await.unwrap();
    let lost = take_in(&mut tx, news).await.unwrap();
    tx.commit().await.unwrap();
    lost
}

async fn alive(pool: &Pool, worker: &str) -> u64 {
    let mut news = News::default();
    news.alive(worker, LEASE_MS);
    hear(pool, &news).await
}

async fn heard(pool: &Pool, question: &Question) -> u64 {
    let mut news = News::default();
    news.question(question);
    hear(pool, &news).await
}

async fn ask(pool: &Pool) -> Vec<Question> {
    let mut tx = pool.begin().await.unwrap();
    let questions = ask_silent(&mut tx, 100).await.unwrap();
    tx.commit().await.unwrap();
    questions
}

/// Whatever is to be done later is to be done now.
async fn time_passes(database: &Database) {
    database.run("update orchestrator.workers set due_at = now() - interval '1 millisecond'").await;
}

const KEPT_MS: u64 = 60_000;

async fn release(pool: &Pool, max: ReleaseMax) -> Option<Released> {
    let topics = Topics::new("t");
    release_lost(pool, max, &Notice { topics: &topics, kept_ms: KEPT_MS }).await.unwrap()
}

/// What a lost worker is told.
fn told(worker: &str) -> String {
    String::from_utf8(lost_worker_record(&Topics::new("t"), worker).value.unwrap()).unwrap()
}

fn released(worker: &str, reason: LostReason, calls: u32, finished: Option<u32>) -> Option<Released> {
    Some(Released { worker: worker.to_owned(), reason, calls, finished })
}

/// A worker with one call, in lane `a`.
async fn one_call(database: &Database) -> (Pool, flow::id::TokenId) {
    let (pool, call) = (database.pool(Role::Orchestrator), token(job(), 2));
    lay(&pool, &[running(&call, WORKER, "a", "call")], &[]).await;
    alive(&pool, WORKER).await;
    (pool, call)
}

#[tokio::test]
async fn who_is_silent_through_two_questions_is_lost_and_its_calls_are_sent_with_what_waits_behind_them() {
    let database = Database::fresh().await;
    let (pool, call) = one_call(&database).await;
    lay(&pool, &[], &[turn(&call, 1, "a", "turn")]).await;
    let due_ms = next_due_ms(&pool).await.unwrap().unwrap();
    assert!((LEASE_MS / 2 - 10_000..=LEASE_MS / 2).contains(&due_ms), "{due_ms}");
    assert_eq!(ask(&pool).await, [], "it is not time");

    time_passes(&database).await;
    let first = ask(&pool).await.remove(0);
    assert_eq!((first.worker.as_str(), first.round), (WORKER, 1));
    assert_eq!(ask(&pool).await, [], "the question is under way");
    assert_eq!(heard(&pool, &first).await, 0);
    assert_eq!(ask(&pool).await, [], "half of the lease is still to come");
    time_passes(&database).await;
    let second = ask(&pool).await.remove(0);
    assert_eq!(second.round, 2);
    assert_eq!(release(&pool, MAX).await, None);
    assert_eq!(heard(&pool, &second).await, 1);

    assert_eq!(release(&pool, MAX).await, released(WORKER, LostReason::Silent, 1, Some(1)));
    assert_eq!(said(&database).await, ["call", "turn", &format!("free {call}#1"), &told(WORKER)]);
    let mut tx = pool.begin().await.unwrap();
    let late = end(&mut tx, &[outcome(&call, WORKER, "a", &["late"])]).await.unwrap();
    assert_eq!(late, [false], "who was lost has nothing more to say");
}

#[tokio::test]
async fn a_sign_of_life_takes_every_question_back_that_was_asked_before_it() {
    let database = Database::fresh().await;
    let (pool, _) = one_call(&database).await;
    time_passes(&database).await;
    let first = ask(&pool).await.remove(0);
    alive(&pool, WORKER).await;
    time_passes(&database).await;
    // Asked anew, while the first question is still on its way, behind the signs of life of an outage.
    let again = ask(&pool).await.remove(0);
    assert_eq!(again.round, 1);
    alive(&pool, WORKER).await;
    for old in [&first, &again] {
        assert_eq!(heard(&pool, old).await, 0);
        time_passes(&database).await;
        assert_eq!(ask(&pool).await.remove(0).round, 1, "nobody was silent through a question");
        alive(&pool, WORKER).await;
    }
    // Between the two rounds.
    time_passes(&database).await;
    let first = ask(&pool).await.remove(0);
    heard(&pool, &first).await;
    time_passes(&database).await;
    let second = ask(&pool).await.remove(0);
    alive(&pool, WORKER).await;
    assert_eq!(heard(&pool, &second).await, 0);
    assert_eq!(release(&pool, MAX).await, None);
    assert_eq!(database.count("orchestrator.holds").await, 1);
}

#[tokio::test]
async fn a_question_and_signs_of_life_of_one_batch_count_in_their_order() {
    let database = Database::fresh().await;
    let (pool, _) = one_call(&database).await;
    time_passes(&database).await;
    let first = ask(&pool).await.remove(0);
    let mut news = News::default();
    news.alive(WORKER, LEASE_MS);
    news.question(&first);
    hear(&pool, &news).await;
    time_passes(&database).await;
    let again = ask(&pool).await.remove(0);
    assert_eq!(again.round, 1);
    let mut news = News::default();
    news.question(&again);
    news.alive(WORKER, LEASE_MS);
    hear(&pool, &news).await;
    time_passes(&database).await;
    assert_eq!(ask(&pool).await.remove(0).round, 1);
}

#[tokio::test]
async fn a_question_that_never_comes_by_is_asked_again() {
    let database = Database::fresh().await;
    let (pool, _) = one_call(&database).await;
    time_passes(&database).await;
    let lost = ask(&pool).await.remove(0);
    time_passes(&database).await;
    let again = ask(&pool).await.remove(0);
    assert_eq!(again.round, 1);
    assert_ne!(again.at_ms, lost.at_ms);
    heard(&pool, &again).await;
    time_passes(&database).await;
    assert_eq!(ask(&pool).await.remove(0).round, 2);
}

#[tokio::test]
async fn a_later_start_of_an_instance_takes_its_calls_over_at_once_and_an_earlier_one_never_does() {
    let database = Database::fresh().await;
    let (pool, call) = one_call(&database).await;
    assert_eq!(alive(&pool, "host-1/0").await, 0, "an earlier start, heard of late");
    assert_eq!(alive(&pool, "host-10/9").await, 0, "another instance");
    assert_eq!(said(&database).await, [""; 0]);
    assert_eq!(alive(&pool, "host-1/2").await, 2);
    // What is decided is decided: it is only looked at again.
    assert_eq!(alive(&pool, WORKER).await, 1);
    database.run("delete from orchestrator.workers where worker = 'host-1/0'").await;
    assert_eq!(release(&pool, MAX).await, released(WORKER, LostReason::Restarted, 1, Some(1)));
    assert_eq!(said(&database).await[..2], ["call", &format!("free {call}#0")]);
}

#[tokio::test]
async fn who_has_no_calls_is_not_asked_but_forgotten() {
    let database = Database::fresh().await;
    let pool = database.pool(Role::Orchestrator);
    alive(&pool, WORKER).await;
    assert_eq!(database.count("orchestrator.workers").await, 1);
    time_passes(&database).await;
    assert_eq!(ask(&pool).await, []);
    assert_eq!(database.count("orchestrator.workers").await, 0);
    assert_eq!(next_due_ms(&pool).await.unwrap(), None);
}

/// Lost, with so many calls of so many bytes, each in a lane of its own.
async fn lost(database: &Database, calls: usize, bytes: usize) -> Pool {
    let pool = database.pool(Role::Orchestrator);
    // Random, so that Postgres does not make it smaller.
    let value = |call: usize| {
        let noise: String = test_kit::noise(bytes).iter().map(|byte| char::from(b'a' + byte % 26)).collect();
        format!("call {call} {noise}")
    };
    let holds: Vec<_> =
        (0..calls).map(|call| running(&token(job(), 2), WORKER, &format!("lane {call}"), &value(call))).collect();
    lay(&pool, &holds, &[]).await;
    alive(&pool, WORKER).await;
    alive(&pool, "host-1/2").await;
    pool
}

#[tokio::test]
async fn many_calls_of_a_lost_worker_are_sent_in_bounded_parts_and_it_is_told_after_the_last() {
    let database = Database::fresh().await;
    let pool = lost(&database, 25, 10).await;
    let max = ReleaseMax { holds: 10, ..MAX };
    for calls in [10, 10] {
        assert_eq!(release(&pool, max).await, released(WORKER, LostReason::Restarted, calls, None));
    }
    assert_eq!(database.count("outbox.messages where topic = 't.lanes'").await, 0);
    assert_eq!(release(&pool, max).await, released(WORKER, LostReason::Restarted, 5, Some(25)));
    assert_eq!(database.count("outbox.messages where topic = 't.lanes'").await, 1);
    assert_eq!(database.count("outbox.messages where value is not null").await, 26);
}

#[tokio::test]
async fn who_was_lost_is_told_for_a_while_and_what_it_takes_late_is_sent_on_at_once() {
    let database = Database::fresh().await;
    let (pool, call) = one_call(&database).await;
    alive(&pool, "host-1/2").await;
    assert_eq!(release(&pool, MAX).await, released(WORKER, LostReason::Restarted, 1, Some(1)));
    let due_ms = next_due_ms(&pool).await.unwrap().unwrap();
    assert!(due_ms > 0, "its notice is kept");
    // It does not know yet, and takes another one.
    let late = token(job(), 2);
    lay(&pool, &[running(&late, WORKER, "b", "late")], &[]).await;
    assert_eq!(alive(&pool, WORKER).await, 1);
    assert_eq!(release(&pool, MAX).await, released(WORKER, LostReason::Restarted, 1, Some(1)));
    // It says that it lives, and has nothing.
    assert_eq!(alive(&pool, WORKER).await, 1);
    assert_eq!(release(&pool, MAX).await, released(WORKER, LostReason::Restarted, 0, Some(0)));
    assert_eq!(release(&pool, MAX).await, None);
    let freed = [format!("free {call}#0"), format!("free {late}#0")];
    let all = ["call", &freed[0], &told(WORKER), "late", &freed[1], &told(WORKER)];
    assert_eq!(said(&database).await, all);

    database.run("update orchestrator.workers set told_at = told_at - interval '1 hour', due_at = now()").await;
    assert_eq!(release(&pool, MAX).await, released(WORKER, LostReason::Restarted, 0, Some(0)));
    assert_eq!(database.count("outbox.messages where topic = 't.lanes' and value is null").await, 1);
    assert_eq!(database.count("orchestrator.workers where worker = 'host-1/1'").await, 0);
}

#[tokio::test]
async fn large_calls_are_sent_few_at_a_time_but_never_none() {
    let database = Database::fresh().await;
    let pool = lost(&database, 5, 100_000).await;
    let max = |bytes| ReleaseMax { holds: 10, bytes };
    assert_eq!(release(&pool, max(1)).await, released(WORKER, LostReason::Restarted, 1, None));
    assert_eq!(release(&pool, max(150_000)).await, released(WORKER, LostReason::Restarted, 2, None));
    assert_eq!(release(&pool, max(1_000_000)).await, released(WORKER, LostReason::Restarted, 2, Some(5)));
}

#[tokio::test]
async fn what_waits_behind_a_lost_call_counts_for_the_bytes() {
    let database = Database::fresh().await;
    let pool = database.pool(Role::Orchestrator);
    let mut calls = [token(job(), 2), token(job(), 2)];
    calls.sort();
    let large: String = test_kit::noise(100_000).iter().map(|byte| char::from(b'a' + byte % 26)).collect();
    let holds = [running(&calls[0], WORKER, "a", "call"), running(&calls[1], WORKER, "b", "other")];
    lay(&pool, &holds, &[turn(&calls[0], 1, "a", &large)]).await;
    alive(&pool, WORKER).await;
    alive(&pool, "host-1/2").await;
    let max = ReleaseMax { holds: 10, bytes: 50_000 };
    assert_eq!(release(&pool, max).await, released(WORKER, LostReason::Restarted, 1, None));
    assert_eq!(release(&pool, max).await, released(WORKER, LostReason::Restarted, 1, Some(2)));
}

#[tokio::test]
async fn a_call_that_somebody_has_locked_is_released_afterwards_with_the_turn_that_came_meanwhile() {
    let database = Database::fresh().await;
    let (pool, call) = one_call(&database).await;
    alive(&pool, "host-1/2").await;
    let mut resting = pool.begin().await.unwrap();
    rest(&mut resting, &[turn(&call, 1, "a", "turn")]).await.unwrap();
    assert_eq!(release(&pool, MAX).await, released(WORKER, LostReason::Restarted, 0, None));
    resting.commit().await.unwrap();
    time_passes(&database).await;
    assert_eq!(release(&pool, MAX).await, released(WORKER, LostReason::Restarted, 1, Some(1)));
    assert_eq!(said(&database).await[..3], ["call", "turn", &format!("free {call}#1")]);
}

#[tokio::test]
async fn a_lost_call_and_its_outcome_at_once_have_one_successor() {
    let database = Database::fresh().await;
    let pool = database.pool(Role::Orchestrator);
    for round in 0..40 {
        let (call, worker) = (token(job(), 2), format!("host-{round}/1"));
        lay(&pool, &[running(&call, &worker, "a", "call")], &[]).await;
        alive(&pool, &worker).await;
        alive(&pool, &format!("host-{round}/2")).await;
        let ending = {
            let (pool, outcomes) = (pool.clone(), [outcome(&call, &worker, "a", &["successor"])]);
            tokio::spawn(async move {
                let mut tx = pool.begin().await.unwrap();
                let applied = end(&mut tx, &outcomes).await.unwrap()[0];
                tx.commit().await.unwrap();
                applied
            })
        };
        let mut sent = 0;
        while let Some(released) = release(&pool, MAX).await {
            sent += released.calls;
            if released.finished.is_some() {
                break;
            }
        }
        let applied = ending.await.unwrap();
        assert_ne!(applied, sent == 1, "round {round}: {sent} sent");
    }
}
