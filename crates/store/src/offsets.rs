//! `<schema>.offsets`: the next offset of each partition that a service reads. It moves in the transaction that holds
//! the effect (docs/rules.md, rule 3), and only from the expected value, so that a zombie cannot write.

pub use events::place::{OffsetAdvance, TopicPartition};

use crate::{Error, Pool, Role, Tx};

/// Runs `$run` with the schema of the role as a literal: queries are checked at compile time, so each is written out.
macro_rules! in_schema_of {
    ($role:expr, $run:ident) => {
        match $role {
            Role::Ingest => $run!("ingest"),
            Role::Orchestrator => $run!("orchestrator"),
            Role::Notifier => $run!("notifier"),
            Role::Relay => Err(Error::Corrupt("the relay keeps its position on Kafka".to_owned())),
        }
    };
}

/// The next offset of each partition, in the order of the request; none if no offset is stored yet.
pub async fn positions(pool: &Pool, partitions: &[TopicPartition]) -> Result<Vec<Option<i64>>, Error> {
    let topics: Vec<&str> = partitions.iter().map(|p| p.topic.as_str()).collect();
    let numbers: Vec<i32> = partitions.iter().map(|p| p.partition).collect();
    macro_rules! select {
        ($schema:literal) => {
            Ok(sqlx::query_scalar!(
                r#"select next_offset as "next_offset?"
                   from unnest($1::text[], $2::integer[]) with ordinality as asked (topic, partition, ordinal)
                   left join "#
                    + $schema
                    + r#".offsets using (topic, partition)
                   order by ordinal"#,
                &topics as &[&str],
                &numbers,
            )
            .fetch_all(pool.raw())
            .await?)
        };
    }
    in_schema_of!(pool.role(), select)
}

/// For each partition of a topic that the orchestrator has read, the next offset: all effects of what is below it are
/// in Postgres.
pub async fn projected(pool: &Pool, topic: &str) -> Result<Vec<(i32, i64)>, Error> {
    let rows = sqlx::query!("select partition, next_offset from orchestrator.offsets where topic = $1", topic)
        .fetch_all(pool.raw())
        .await?;
    Ok(rows.into_iter().map(|row| (row.partition, row.next_offset)).collect())
}

/// Stores where partitions begin that were never read; the others stay as they are. Needs the role [`Role::Ingest`].
pub async fn begin_at(pool: &Pool, begins: &[(TopicPartition, i64)]) -> Result<(), Error> {
    let topics: Vec<&str> = begins.iter().map(|(place, _)| place.topic.as_str()).collect();
    let partitions: Vec<i32> = begins.iter().map(|(place, _)| place.partition).collect();
    let offsets: Vec<i64> = begins.iter().map(|(_, offset)| *offset).collect();
    sqlx::query!(
        "insert into ingest.offsets (topic, partition, next_offset)
         select * from unnest($1::text[], $2::integer[], $3::bigint[]) on conflict do nothing",
        &topics as &[&str],
        &partitions,
        &offsets,
    )
    .execute(pool.raw())
    .await?;
    Ok(())
}

/// Moves the offsets of all partitions or of none. [`Error::Conflict`]: an offset is not the expected one, so another
/// process has this partition. Then give the transaction up.
pub async fn advance(tx: &mut Tx, advances: &[OffsetAdvance]) -> Result<(), Error> {
    if advances.is_empty() {
        return Ok(());
    }
    let mut sorted: Vec<&OffsetAdvance> = advances.iter().collect();
    sorted.sort_by_key(|advance| (&advance.topic, advance.partition));
    let topics: Vec<&str> = sorted.iter().map(|advance| advance.topic.as_str()).collect();
    let partitions: Vec<i32> = sorted.iter().map(|advance| advance.partition).collect();
    let expected: Vec<Option<i64>> = sorted.iter().map(|advance| advance.expected).collect();
    let next: Vec<i64> = sorted.iter().map(|advance| advance.next).collect();
    macro_rules! compare_and_set {
        ($schema:literal) => {
            Ok(sqlx::query_scalar!(
                r#"with asked as (
                    select * from unnest($1::text[], $2::integer[], $3::bigint[], $4::bigint[])
                        as asked (topic, partition, expected, next)
                   ), moved as (
                    update "#
                    + $schema
                    + r#".offsets as stored set next_offset = asked.next, updated_at = now()
                    from asked
                    where stored.topic = asked.topic and stored.partition = asked.partition
                      and stored.next_offset = asked.expected
                    returning stored.topic, stored.partition
                   ), begun as (
                    insert into "#
                    + $schema
                    + r#".offsets as stored (topic, partition, next_offset)
                    select topic, partition, next from asked where expected is null
                    on conflict (topic, partition) do update set next_offset = excluded.next_offset, updated_at = now()
                    where stored.next_offset = 0
                    returning topic, partition
                   )
                   select ordinal as "ordinal!"
                   from unnest($1::text[], $2::integer[]) with ordinality as asked (topic, partition, ordinal)
                   where (topic, partition) not in (select * from moved union all select * from begun)
                   order by ordinal limit 1"#,
                &topics as &[&str],
                &partitions,
                &expected as &[Option<i64>],
                &next,
            )
            .fetch_optional(tx.raw())
            .await?)
        };
    }
    let refused: Result<Option<i64>, Error> = in_schema_of!(tx.role(), compare_and_set);
    match refused? {
        None => Ok(()),
        Some(ordinal) => {
            let index = usize::try_from(ordinal - 1).unwrap_or_default();
            Err(Error::Conflict { topic: sorted[index].topic.clone(), partition: sorted[index].partition })
        }
    }
}
