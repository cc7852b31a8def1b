use events::headers::Headers;
use store::dead_letters::{DeadLetter, Original, forget, index};
use store::letters::{Choice, counts, list};
use store::{Pool, Role};

use crate::database::Database;

/// As operators see them.
async fn newest(pool: &Pool, letters_max: u32) -> Result<Vec<DeadLetter>, store::Error> {
    let choice = Choice { topic: "t.dead-letters".to_owned(), ..Choice::default() };
    let letters = list(pool, &choice, None, letters_max).await?;
    Ok(letters.into_iter().map(|letter| letter.letter).collect())
}

#[tokio::test]
async fn a_dead_letter_is_found_by_where_it_lies_and_noted_once() {
    let database = Database::fresh().await;
    let pool = database.pool(Role::Orchestrator);
    let letter = DeadLetter {
        topic: "t.dead-letters".to_owned(),
        partition: 2,
        offset: 5,
        original: Some(Original { topic: "t.commands".to_owned(), partition: 0, offset: 17 }),
        class: "bad-json".to_owned(),
        reason: "expected a value at line 1 column 1".to_owned(),
        tenant: None,
        flow: Some("order".to_owned()),
        step: Some("charge".to_owned()),
        attempts: 1,
        key: Some(vec![0, 255]),
        headers: Headers::from([("a", Some([1])), ("b", None)]),
        value_bytes: 9,
        at_ms: 1_700_000_000_000,
    };
    let bare = DeadLetter {
        offset: 6,
        original: None,
        flow: None,
        step: None,
        reason: "holds a NUL: \0".to_owned(),
        key: None,
        headers: Headers::default(),
        at_ms: 1_600_000_000_000,
        ..letter.clone()
    };
    for _ in 0..2 {
        let mut tx = pool.begin().await.unwrap();
        index(&mut tx, &[letter.clone(), bare.clone()]).await.unwrap();
        tx.commit().await.unwrap();
    }
    let reader = database.pool(Role::Ingest);
    let bare = DeadLetter { reason: "holds a NUL: \u{fffd}".to_owned(), ..bare };
    assert_eq!(newest(&reader, 10).await.unwrap(), [letter.clone(), bare]);
    assert_eq!(newest(&reader, 1).await.unwrap(), std::slice::from_ref(&letter));
    let of = async |flow: Option<&str>, step: Option<&str>| {
        let topic = "t.dead-letters".to_owned();
        let choice =
            Choice { topic, flow: flow.map(str::to_owned), step: step.map(str::to_owned), ..Choice::default() };
        let counted: u64 = counts(&reader, &choice).await.unwrap().iter().map(|(_, count)| count).sum();
        (list(&reader, &choice, None, 10).await.unwrap().len(), counted)
    };
    assert_eq!([of(Some("order"), None).await, of(None, Some("charge")).await], [(1, 1); 2]);
    assert_eq!([of(Some("other"), None).await, of(Some("order"), Some("ship")).await], [(0, 0); 2]);
    let now_ms = "select (extract(epoch from now()) * 1000)::bigint";
    let now_ms: i64 = sqlx::query_scalar(now_ms).fetch_one(&mut database.superuser().await).await.unwrap();
    let age_ms = |at_ms: i64| now_ms - at_ms;
    assert_eq!(forget(&pool, age_ms(1_500_000_000_000)).await.unwrap(), 0);
    assert_eq!(forget(&pool, age_ms(1_650_000_000_000)).await.unwrap(), 1);
    assert_eq!(newest(&reader, 10).await.unwrap(), [letter]);
}
