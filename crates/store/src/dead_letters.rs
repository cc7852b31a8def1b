//! `orchestrator.dead_letters`: the place of each dead letter on its topic, and its reason. The record stays on Kafka.

use events::headers::Headers;

use crate::columns::signed;
use crate::{Error, Pool, Tx};

/// Rows forgotten by one statement.
pub const FORGOTTEN_MAX: i64 = 10_000;

/// One record of the dead-letters topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeadLetter {
    /// The dead-letters topic.
    pub topic: String,
    /// The partition there.
    pub partition: i32,
    /// The offset there.
    pub offset: i64,
    /// The place where the record failed, as far as its headers tell.
    pub original: Option<Original>,
    /// The kind of failure, a short stable word.
    pub class: String,
    /// The reason, for a person.
    pub reason: String,
    /// The tenant whose it is; none: the deployment's own, as far as the record tells.
    pub tenant: Option<String>,
    /// The flow and the step that it is about, where the record tells.
    pub flow: Option<String>,
    pub step: Option<String>,
    pub attempts: u32,
    /// The record's key.
    pub key: Option<Vec<u8>>,
    /// Its headers, as they were and with the failure's.
    pub headers: Headers,
    /// The size of its value.
    pub value_bytes: u32,
    /// The time at which it was put there, in milliseconds since the Unix epoch.
    pub at_ms: i64,
}

/// The place where a record failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Original {
    /// The topic.
    pub topic: String,
    /// The partition.
    pub partition: i32,
    /// The offset.
    pub offset: i64,
}

/// Notes dead letters as part of the caller's transaction, which also moves their offset (rule 3).
pub async fn index(tx: &mut Tx, letters: &[DeadLetter]) -> Result<(), Error> {
    if letters.is_empty() {
        return Ok(());
    }
    let originals = || letters.iter().map(|letter| letter.original.as_ref());
    sqlx::query!(
        r#"insert into orchestrator.dead_letters (
            topic, partition, "offset", original_topic, original_partition, original_offset,
            class, reason, flow, step, attempts, key, headers, value_bytes, at, tenant
         )
         select
            topic, partition, "offset", original_topic, original_partition, original_offset,
            class, reason, flow, step, attempts, key, headers, value_bytes, to_timestamp(at_ms / 1000.0),
            tenant
         from unnest(
            $1::text[], $2::integer[], $3::bigint[], $4::text[], $5::integer[], $6::bigint[],
            $7::text[], $8::text[], $9::text[], $10::text[], $11::integer[], $12::bytea[], $13::bytea[],
            $14::integer[], $15::bigint[], $16::text[]
         ) as letter (
            topic, partition, "offset", original_topic, original_partition, original_offset,
            class, reason, flow, step, attempts, key, headers, value_bytes, at_ms, tenant
         )
         on conflict (topic, partition, "offset") do nothing"#,
        &letters.iter().map(|letter| letter.topic.as_str()).collect::<Vec<_>>() as &[&str],
        &letters.iter().map(|letter| letter.partition).collect::<Vec<_>>(),
        &letters.iter().map(|letter| letter.offset).collect::<Vec<_>>(),
        &originals().map(|original| original.map(|o| o.topic.as_str())).collect::<Vec<_>>() as &[Option<&str>],
        &originals().map(|original| original.map(|o| o.partition)).collect::<Vec<_>>() as &[Option<i32>],
        &originals().map(|original| original.map(|o| o.offset)).collect::<Vec<_>>() as &[Option<i64>],
        &letters.iter().map(|letter| storable(&letter.class)).collect::<Vec<_>>(),
        &letters.iter().map(|letter| storable(&letter.reason)).collect::<Vec<_>>(),
        &letters.iter().map(|letter| letter.flow.as_deref().map(storable)).collect::<Vec<_>>() as &[Option<String>],
        &letters.iter().map(|letter| letter.step.as_deref().map(storable)).collect::<Vec<_>>() as &[Option<String>],
        &letters.iter().map(|letter| signed(letter.attempts)).collect::<Vec<_>>(),
        &letters.iter().map(|letter| letter.key.as_deref()).collect::<Vec<_>>() as &[Option<&[u8]>],
        &letters.iter().map(|letter| letter.headers.as_bytes().to_vec()).collect::<Vec<_>>(),
        &letters.iter().map(|letter| signed(letter.value_bytes)).collect::<Vec<_>>(),
        &letters.iter().map(|letter| letter.at_ms).collect::<Vec<_>>(),
        &letters.iter().map(|letter| letter.tenant.as_deref().map(storable)).collect::<Vec<_>>() as &[Option<String>],
    )
    .execute(tx.raw())
    .await?;
    Ok(())
}

/// Forgets the dead letters that are older than this; returns how many, [`FORGOTTEN_MAX`] at most.
pub async fn forget(pool: &Pool, older_than_ms: i64) -> Result<u64, Error> {
    let deleted = sqlx::query!(
        r#"delete from orchestrator.dead_letters where ctid = any (array(
            select ctid from orchestrator.dead_letters
            where at < now() - $1::bigint * interval '1 millisecond'
            order by at
            limit $2
         ))"#,
        older_than_ms,
        FORGOTTEN_MAX,
    )
    .execute(pool.raw())
    .await?;
    Ok(deleted.rows_affected())
}

/// Postgres' text holds no NUL, and what a failure quotes may.
fn storable(text: &str) -> String {
    text.replace('\0', "\u{fffd}")
}
