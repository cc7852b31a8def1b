use store::acceptances::{Accepted, accept_batch, accept_batch_in, ensure_partitions};
use store::offsets::OffsetAdvance;
use store::{Role, idempotency, jobs, offsets, outbox};

use crate::database::{Database, acceptance, keyed, record};

#[tokio::test]
async fn a_batch_is_stored_with_its_records_in_order() {
    let database = Database::fresh().await;
    let pool = database.pool(Role::Ingest);
    let batch = [acceptance("a"), keyed("b", "key", "asked"), acceptance("c")];
    assert_eq!(accept_batch(&pool, &batch).await.unwrap(), [Accepted::New; 3]);
    assert_eq!(accept_batch(&pool, &[]).await.unwrap(), []);
    let values = ["a event", "a slip", "b event", "b slip", "c event", "c slip"];
    assert_eq!(database.outbox_values().await, values);
    for request in &batch {
        let stored = jobs::get(&pool, "acme", request.acceptance.job).await.unwrap().unwrap();
        assert_eq!(stored.acceptance.as_ref(), Some(&request.acceptance));
        assert_eq!(stored.projection, None);
        assert_eq!(jobs::get(&pool, "other", request.acceptance.job).await.unwrap(), None);
    }
    let headers: Vec<u8> = sqlx::query_scalar("select headers from outbox.messages limit 1")
        .fetch_one(&mut database.superuser().await)
        .await
        .unwrap();
    assert_eq!(events::Headers::read(headers).unwrap(), record("a event").headers);
}

#[tokio::test]
async fn a_key_that_is_known_writes_nothing_and_names_the_first_job() {
    let database = Database::fresh().await;
    let pool = database.pool(Role::Ingest);
    let first = keyed("first", "key", "asked");
    accept_batch(&pool, std::slice::from_ref(&first)).await.unwrap();
    let batch = [keyed("again", "key", "asked"), acceptance("new"), keyed("other", "key", "asked otherwise")];
    let job = first.acceptance.job;
    let replayed = |same_fingerprint| Accepted::Replayed { job, same_fingerprint };
    assert_eq!(accept_batch(&pool, &batch).await.unwrap(), [replayed(true), Accepted::New, replayed(false)]);
    assert_eq!(database.outbox_values().await, ["first event", "first slip", "new event", "new slip"]);
    assert_eq!(database.count("ingest.acceptances").await, 2);
    let holder = idempotency::find(&pool, "acme", "POST /orders", "key").await.unwrap().unwrap();
    assert_eq!((holder.job, holder.fingerprint.as_slice()), (job, b"asked".as_slice()));
    assert_eq!(idempotency::find(&pool, "other", "POST /orders", "key").await.unwrap(), None);
}

#[tokio::test]
async fn of_one_key_twice_in_a_batch_the_first_counts() {
    let database = Database::fresh().await;
    let pool = database.pool(Role::Ingest);
    let mut elsewhere = keyed("elsewhere", "key", "asked");
    elsewhere.acceptance.tenant = "other".to_owned();
    let batch = [keyed("a", "key", "asked"), keyed("b", "key", "asked"), keyed("c", "key", "otherwise"), elsewhere];
    let replayed = |same_fingerprint| Accepted::Replayed { job: batch[0].acceptance.job, same_fingerprint };
    let answers = [Accepted::New, replayed(true), replayed(false), Accepted::New];
    assert_eq!(accept_batch(&pool, &batch).await.unwrap(), answers);
    assert_eq!(database.outbox_values().await, ["a event", "a slip", "elsewhere event", "elsewhere slip"]);
}

#[tokio::test]
async fn the_same_batch_sent_again_after_an_unknown_outcome_is_stored_once() {
    let database = Database::fresh().await;
    let pool = database.pool(Role::Ingest);
    let batch = [acceptance("a"), keyed("b", "key", "asked")];
    for _ in 0..2 {
        assert_eq!(accept_batch(&pool, &batch).await.unwrap(), [Accepted::New; 2]);
    }
    assert_eq!(database.outbox_values().await, ["a event", "a slip", "b event", "b slip"]);
}

#[tokio::test]
async fn an_expired_key_is_taken_over_or_forgotten() {
    let database = Database::fresh().await;
    let pool = database.pool(Role::Ingest);
    let (old, other) = (keyed("old", "key", "asked"), keyed("other", "other key", "asked"));
    accept_batch(&pool, &[old, other]).await.unwrap();
    assert_eq!(idempotency::purge(&pool, 10).await.unwrap(), 0);
    database.run("update ingest.idempotency set expires_at = now()").await;
    assert_eq!(idempotency::find(&pool, "acme", "POST /orders", "key").await.unwrap(), None);
    let new = keyed("new", "key", "asked otherwise");
    assert_eq!(accept_batch(&pool, std::slice::from_ref(&new)).await.unwrap(), [Accepted::New]);
    let holder = idempotency::find(&pool, "acme", "POST /orders", "key").await.unwrap().unwrap();
    assert_eq!(holder.job, new.acceptance.job);
    assert_eq!(idempotency::purge(&pool, 10).await.unwrap(), 1);
}

#[tokio::test]
async fn many_who_ask_at_once_with_one_key_get_one_job() {
    let database = Database::fresh().await;
    let pool = database.pool(Role::Ingest);
    for round in 0..20 {
        let key = format!("key {round}");
        let tasks: Vec<_> = (0..4)
            .map(|caller| {
                let (pool, key) = (pool.clone(), key.clone());
                tokio::spawn(async move {
                    let request = keyed(&format!("{caller}"), &key, "asked");
                    match accept_batch(&pool, std::slice::from_ref(&request)).await.unwrap()[0] {
                        Accepted::New => (true, request.acceptance.job),
                        Accepted::Replayed { job, same_fingerprint } => {
                            assert!(same_fingerprint);
                            (false, job)
                        }
                    }
                })
            })
            .collect();
        let mut answers = Vec::new();
        for task in tasks {
            answers.push(task.await.unwrap());
        }
        assert_eq!(answers.iter().filter(|(new, _)| *new).count(), 1, "{answers:?}");
        assert!(answers.iter().all(|(_, job)| *job == answers[0].1), "{answers:?}");
    }
    assert_eq!(database.count("ingest.acceptances").await, 20);
    assert_eq!(database.count("outbox.messages").await, 40);
}

#[tokio::test]
async fn batches_that_share_keys_in_other_orders_do_not_deadlock() {
    let database = Database::fresh().await;
    let pool = database.pool(Role::Ingest);
    for round in 0..10 {
        let tasks: Vec<_> = (0..4)
            .map(|caller| {
                let pool = pool.clone();
                tokio::spawn(async move {
                    let mut batch: Vec<_> = (0..50).map(|key| keyed("x", &format!("{round} {key}"), "asked")).collect();
                    if caller % 2 == 0 {
                        batch.reverse();
                    }
                    accept_batch(&pool, &batch).await.unwrap()
                })
            })
            .collect();
        for task in tasks {
            task.await.unwrap();
        }
    }
    assert_eq!(database.count("ingest.acceptances").await, 500);
}

#[tokio::test]
async fn a_row_that_cannot_be_stored_costs_the_batch_and_says_so() {
    let database = Database::fresh().await;
    let pool = database.pool(Role::Ingest);
    let mut bad = acceptance("bad");
    bad.acceptance.key = "a\0b".to_owned();
    let huge = keyed("huge", &unpredictable_text(20_000), "asked");
    for row in [bad, huge] {
        let error = accept_batch(&pool, &[acceptance("good"), row]).await.unwrap_err();
        assert!(error.is_row_error() && !error.is_unavailable(), "{error:?}");
    }
    assert_eq!(database.outbox_values().await, [""; 0]);
    assert_eq!(accept_batch(&pool, &[acceptance("good")]).await.unwrap(), [Accepted::New]);
}

/// Too much for an index entry, however well it is compressed.
fn unpredictable_text(characters: usize) -> String {
    let mut state = 1_u64;
    let next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        char::from(b'0' + u8::try_from(state >> 58).unwrap())
    };
    std::iter::repeat_with(next).take(characters).collect()
}

#[tokio::test]
async fn acceptances_and_the_position_they_came_from_commit_together_or_not_at_all() {
    let database = Database::fresh().await;
    let pool = database.pool(Role::Ingest);
    let advance = |expected, next| [OffsetAdvance { topic: "t.commands".to_owned(), partition: 0, expected, next }];
    let mut tx = pool.begin().await.unwrap();
    offsets::advance(&mut tx, &advance(None, 2)).await.unwrap();
    outbox::append(&mut tx, &[record("dead letter")]).await.unwrap();
    accept_batch_in(&mut tx, &[acceptance("a")]).await.unwrap();
    tx.commit().await.unwrap();

    // A zombie: it read the same records, and comes later.
    let mut tx = pool.begin().await.unwrap();
    accept_batch_in(&mut tx, &[acceptance("b")]).await.unwrap();
    offsets::advance(&mut tx, &advance(None, 1)).await.unwrap_err();
    drop(tx);
    assert_eq!(database.outbox_values().await, ["dead letter", "a event", "a slip"]);
}

#[tokio::test]
async fn days_have_their_partitions_and_what_finds_none_is_kept_too() {
    let database = Database::fresh().await;
    let pool = database.pool(Role::Ingest);
    let before = acceptance("before");
    accept_batch(&pool, std::slice::from_ref(&before)).await.unwrap();
    assert_eq!(database.count("ingest.acceptances_default").await, 1);
    assert_eq!(ensure_partitions(&pool, 3).await.unwrap(), 4);
    assert_eq!(ensure_partitions(&pool, 3).await.unwrap(), 0);
    assert_eq!(database.count("ingest.acceptances_default").await, 0, "a day takes its rows with it");
    let stored = jobs::get(&pool, "acme", before.acceptance.job).await.unwrap().unwrap();
    assert_eq!(stored.acceptance, Some(before.acceptance));

    let database = Database::fresh().await;
    let pool = database.pool(Role::Ingest);
    let crowd: Vec<_> = (0..5_001).map(|number| acceptance(&number.to_string())).collect();
    accept_batch(&pool, &crowd).await.unwrap();
    assert_eq!(ensure_partitions(&pool, 1).await.unwrap(), 1, "so many rows are not moved");
    assert_eq!(database.count("only ingest.acceptances_default").await, 5_001);

    let database = Database::fresh().await;
    let pool = database.pool(Role::Ingest);
    assert_eq!(ensure_partitions(&pool, 1).await.unwrap(), 2);
    let request = acceptance("after");
    accept_batch(&pool, std::slice::from_ref(&request)).await.unwrap();
    assert_eq!(database.count("ingest.acceptances_default").await, 0);
    assert!(jobs::get(&pool, "acme", request.acceptance.job).await.unwrap().is_some());
}
