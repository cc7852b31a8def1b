use events::header;
use events::lane::Freed;
use events::record::{Inbound, Record};
use events::wait::Outcome;
use flow::id::{JobId, TokenId};
use flow::slip::HoldReason;
use store::holds::{NewHold, insert, oldest_running_ms};
use store::lanes::{NewTurn, end, release_due, rest};
use store::{Pool, Role};

use crate::database::{Database, job, record};

pub(crate) const WORKER: &str = "host-1/1";

pub(crate) fn token(job: JobId, hop: u32) -> TokenId {
    TokenId { job, branch: String::new(), hop }
}

fn at_rest(token: &TokenId, reason: HoldReason, lane: &str, value: &str) -> NewHold {
    let record = Record { key: Some(lane.into()), ..record(value) };
    NewHold::new(token.clone(), reason, record)
}

pub(crate) fn running(token: &TokenId, worker: &str, lane: &str, value: &str) -> NewHold {
    NewHold { worker: Some(worker.to_owned()), ..at_rest(token, HoldReason::Running, lane, value) }
}

pub(crate) fn turn(behind: &TokenId, place: u32, lane: &str, value: &str) -> NewTurn {
    let hold = at_rest(&token(job(), 1), HoldReason::Turn, lane, value);
    NewTurn { hold: NewHold { place: Some(place), ..hold }, behind: behind.clone() }
}

pub(crate) fn outcome(token: &TokenId, worker: &str, lane: &str, values: &[&str]) -> Outcome {
    Outcome {
        token: token.clone(),
        tenant: "acme".to_owned(),
        lane: lane.to_owned(),
        worker: worker.to_owned(),
        records: values.iter().map(|value| record(value)).collect(),
    }
}

pub(crate) async fn lay(pool: &Pool, holds: &[NewHold], turns: &[NewTurn]) {
    let mut tx = pool.begin().await.unwrap();
    insert(&mut tx, holds).await.unwrap();
    rest(&mut tx, turns).await.unwrap();
    tx.commit().await.unwrap();
}

async fn finish(pool: &Pool, outcomes: &[Outcome]) -> Vec<bool> {
    let mut tx = pool.begin().await.unwrap();
    let applied = end(&mut tx, outcomes).await.unwrap();
    tx.commit().await.unwrap();
    applied
}

/// What the outbox says, in order: values, and `free <holder>#<turns>` for lanes.
pub(crate) async fn said(database: &Database) -> Vec<String> {
    let rows: Vec<(Option<Vec<u8>>, Vec<u8>)> =
        sqlx::query_as("select value, headers from outbox.messages order by txid, seq")
            .fetch_all(&mut database.superuser().await)
            .await
            .unwrap();
    let say = |(value, headers): (Option<Vec<u8>>, Vec<u8>)| match value {
        Some(value) => String::from_utf8(value).unwrap(),
        None => {
            let headers = events::Headers::read(headers).unwrap();
            let freed = Freed::read(&Inbound { headers, ..Inbound::default() }).unwrap();
            format!("free {}#{}", freed.holder, freed.turns)
        }
    };
    rows.into_iter().map(say).collect()
}

#[tokio::test]
async fn a_call_that_ends_sends_its_turns_in_order_then_frees_the_lane_then_sends_what_follows() {
    let database = Database::fresh().await;
    let pool = database.pool(Role::Orchestrator);
    let (call, other) = (token(job(), 2), token(job(), 7));
    let turns = [turn(&call, 2, "a", "second"), turn(&call, 1, "a", "first"), turn(&other, 1, "b", "of another lane")];
    lay(&pool, &[running(&call, WORKER, "a", "call"), running(&other, WORKER, "b", "other")], &turns).await;
    lay(&pool, &[], &[turn(&call, 3, "a", "third")]).await;
    assert_eq!(said(&database).await, [""; 0]);

    assert_eq!(finish(&pool, &[outcome(&call, WORKER, "a", &["event", "successor"])]).await, [true]);
    assert_eq!(said(&database).await, ["first", "second", "third", &format!("free {call}#3"), "event", "successor"]);
    assert_eq!(database.count("orchestrator.holds").await, 2, "the other lane is as it was");
    assert_eq!(database.count("outbox.messages where key <> 'a' and value is null").await, 0);
}

#[tokio::test]
async fn an_outcome_is_applied_once_and_only_that_of_the_worker_that_has_the_call() {
    let database = Database::fresh().await;
    let pool = database.pool(Role::Orchestrator);
    let call = token(job(), 2);
    lay(&pool, &[running(&call, WORKER, "a", "call")], &[]).await;
    let of = |worker, value| outcome(&call, worker, "a", &[value]);
    assert_eq!(finish(&pool, &[of("host-1/0", "of an earlier start")]).await, [false]);
    let both = [of("host-2/1", "of another"), of(WORKER, "once"), of(WORKER, "again in the same batch")];
    assert_eq!(finish(&pool, &both).await, [false, true, false]);
    assert_eq!(finish(&pool, &[of(WORKER, "again")]).await, [false]);
    assert_eq!(said(&database).await, [&format!("free {call}#0"), "once"]);
}

#[tokio::test]
async fn a_worker_that_stops_hands_its_call_over_before_what_waits_behind_it() {
    let database = Database::fresh().await;
    let pool = database.pool(Role::Orchestrator);
    let call = token(job(), 2);
    lay(&pool, &[running(&call, WORKER, "a", "call")], &[turn(&call, 1, "a", "turn")]).await;
    assert_eq!(finish(&pool, &[outcome(&call, WORKER, "a", &[])]).await, [true]);
    assert_eq!(said(&database).await, ["call", "turn", &format!("free {call}#1")]);
}

#[tokio::test]
async fn what_holds_its_lane_until_a_time_is_sent_then_with_what_came_behind_it() {
    let database = Database::fresh().await;
    let pool = database.pool(Role::Orchestrator);
    let (room, unread, later) = (token(job(), 2), token(job(), 3), token(job(), 4));
    let until = |token, reason, lane, value: &str, ms| NewHold {
        release_after_ms: Some(ms),
        ..at_rest(token, reason, lane, value)
    };
    let holds = [
        until(&room, HoldReason::Room, "a", "room", 0),
        until(&unread, HoldReason::Unread, "b", "unread", 0),
        until(&later, HoldReason::Room, "c", "later", 3_600_000),
        until(&token(job(), 1), HoldReason::Backoff, "d", "alone", 0),
    ];
    let turns = [
        turn(&room, 2, "a", "second"),
        turn(&room, 1, "a", "first"),
        turn(&unread, 1, "b", "behind unread"),
        turn(&later, 1, "c", "behind later"),
    ];
    lay(&pool, &holds, &turns).await;
    assert_eq!(said(&database).await, [""; 0], "each waits behind what holds its lane");
    let released = release_due(&pool, 100).await.unwrap();
    assert_eq!(released.holds, 3);
    assert!(released.next_due_in_ms.unwrap() > 0);
    let said = said(&database).await;
    let place = |text: &str| said.iter().position(|line| line == text).unwrap_or_else(|| panic!("{text}: {said:?}"));
    let (free_a, free_b) = (format!("free {room}#2"), format!("free {unread}#1"));
    for lane in [&["room", "first", "second", &free_a][..], &["unread", "behind unread", &free_b], &["alone"]] {
        assert!(lane.is_sorted_by_key(|text| place(text)), "{lane:?} in {said:?}");
    }
    assert_eq!(said.len(), 8);
    assert_eq!(database.count("orchestrator.holds").await, 2);
    assert_eq!(release_due(&pool, 100).await.unwrap().holds, 0);
}

#[tokio::test]
async fn the_oldest_call_is_as_old_as_its_rest_and_nothing_else_is_counted() {
    let database = Database::fresh().await;
    let pool = database.pool(Role::Orchestrator);
    let call = token(job(), 2);
    lay(&pool, &[at_rest(&token(job(), 1), HoldReason::Attention, "a", "parked")], &[]).await;
    assert_eq!(oldest_running_ms(&pool).await.unwrap(), None);
    lay(&pool, &[running(&call, WORKER, "a", "call"), running(&token(job(), 2), WORKER, "b", "other")], &[]).await;
    let older = "update orchestrator.holds set held_at = now() - interval '1 hour' where key = 'a'";
    database.run(older).await;
    let age_ms = oldest_running_ms(&pool).await.unwrap().unwrap();
    assert!((3_600_000..3_700_000).contains(&age_ms), "{age_ms}");
}

#[tokio::test]
async fn only_a_running_call_ends_by_an_outcome() {
    let database = Database::fresh().await;
    let pool = database.pool(Role::Orchestrator);
    let (call, parked) = (token(job(), 2), token(job(), 3));
    let behind = turn(&call, 1, "a", "turn");
    let waiting = behind.hold.token.clone();
    let attention = at_rest(&parked, HoldReason::Attention, "a", "parked");
    lay(&pool, &[running(&call, WORKER, "a", "call"), attention], &[behind]).await;
    let outcomes =
        [outcome(&waiting, WORKER, "a", &["of a turn"]), outcome(&parked, WORKER, "a", &["of a parked one"])];
    assert_eq!(finish(&pool, &outcomes).await, [false, false]);
    assert_eq!(said(&database).await, [""; 0]);
}

#[tokio::test]
async fn a_turn_that_comes_when_the_call_is_over_is_sent_at_once_and_frees_the_lane_again() {
    let database = Database::fresh().await;
    let pool = database.pool(Role::Orchestrator);
    let (call, other) = (token(job(), 2), token(job(), 2));
    lay(&pool, &[running(&other, WORKER, "b", "other")], &[]).await;
    lay(&pool, &[], &[turn(&call, 4, "a", "a4"), turn(&other, 1, "b", "b1"), turn(&call, 5, "a", "a5")]).await;
    assert_eq!(said(&database).await, ["a4", "a5", &format!("free {call}#5")]);
    assert_eq!(database.count("orchestrator.holds where reason = 'turn'").await, 1);
}

#[tokio::test]
async fn a_turn_and_the_end_of_the_call_before_it_may_come_at_once_and_strand_nobody() {
    let database = Database::fresh().await;
    let pool = database.pool(Role::Orchestrator);
    for round in 0..60 {
        let (call, lane) = (token(job(), 2), format!("lane {round}"));
        lay(&pool, &[running(&call, WORKER, &lane, "call")], &[]).await;
        let (turns, outcomes) = ([turn(&call, 1, &lane, "turn")], [outcome(&call, WORKER, &lane, &["successor"])]);
        let (mut resting, mut ending) = (pool.begin().await.unwrap(), pool.begin().await.unwrap());
        let behind_lock = "pg_stat_activity where wait_event_type = 'Lock' and datname = current_database()";
        if round % 2 == 0 {
            rest(&mut resting, &turns).await.unwrap();
            let ending = tokio::spawn(async move {
                end(&mut ending, &outcomes).await.unwrap();
                ending.commit().await.unwrap();
            });
            until(&database, &format!("{behind_lock} and query like 'delete%'")).await;
            resting.commit().await.unwrap();
            ending.await.unwrap();
        } else {
            end(&mut ending, &outcomes).await.unwrap();
            let resting = tokio::spawn(async move {
                rest(&mut resting, &turns).await.unwrap();
                resting.commit().await.unwrap();
            });
            until(&database, &format!("{behind_lock} and query like 'select topic%'")).await;
            ending.commit().await.unwrap();
            resting.await.unwrap();
        }
        let stranded = format!("orchestrator.holds where key = '{lane}'");
        assert_eq!(database.count(&stranded).await, 0, "round {round}");
        let sent = format!("outbox.messages where key = '{lane}' and value = 'turn'");
        assert_eq!(database.count(&sent).await, 1, "round {round}");
    }
}

/// Waits until there is one.
async fn until(database: &Database, from: &str) {
    let there = async || (database.count(from).await > 0).then_some(());
    test_kit::eventually(std::time::Duration::from_secs(30), from, there).await;
}

#[tokio::test]
async fn what_a_turn_waited_for_stands_in_its_record_as_it_was_given() {
    let database = Database::fresh().await;
    let pool = database.pool(Role::Orchestrator);
    let call = token(job(), 2);
    let mut behind = turn(&call, 1, "a", "turn");
    behind.hold.record.headers.push_text(header::TURN, &call);
    lay(&pool, &[running(&call, WORKER, "a", "call")], &[behind]).await;
    finish(&pool, &[outcome(&call, WORKER, "a", &[])]).await;
    let headers: Vec<u8> = sqlx::query_scalar("select headers from outbox.messages where value = 'turn'")
        .fetch_one(&mut database.superuser().await)
        .await
        .unwrap();
    let record = Record { headers: events::Headers::read(headers).unwrap(), ..Record::default() };
    assert_eq!(record.header(header::TURN), Some(call.to_string().as_bytes()));
}
