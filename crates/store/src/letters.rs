//! Dead letters as an operator sees them: the index of `orchestrator.dead_letters` beside what has been done about
//! them, `ingest.settled_letters`; and parked jobs, which wait for the same people.

use events::headers::Headers;
use flow::id::JobId;

use crate::columns::unsigned;
use crate::dead_letters::{DeadLetter, Original};
use crate::{Error, Pool, Tx};

/// The place of a dead letter on its topic.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Place {
    pub partition: i32,
    pub offset: i64,
}

/// What somebody has done about a dead letter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// It was sent back to where it failed.
    Redriven,
    /// It is not wanted any more.
    Dropped,
}

impl Action {
    /// The word in Postgres and over HTTP.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Redriven => "redriven",
            Self::Dropped => "dropped",
        }
    }
}

/// The end of a dead letter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settled {
    /// The word of an [`Action`]; a later version may have others.
    pub action: String,
    pub reason: Option<String>,
    /// See [`Settlement::edit`].
    pub edit: Option<Vec<u8>>,
    pub at_ms: i64,
}

/// The end that somebody gives a dead letter.
#[derive(Debug, Clone, Copy)]
pub struct Settlement<'a> {
    pub action: Action,
    pub reason: Option<&'a str>,
    /// The digest of what the record was edited to; none if it went back as it was.
    pub edit: Option<&'a [u8]>,
}

/// A dead letter, and what has been done about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Letter {
    pub letter: DeadLetter,
    /// The time at which it was put there, in microseconds since the Unix epoch.
    pub at_us: i64,
    pub settled: Option<Settled>,
}

/// The tenant whose dead letters are meant, and the one that has those of no tenant.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Whose {
    pub tenant: String,
    /// The deployment's own.
    pub deployment: String,
}

/// The choice of dead letters; what is none chooses all.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Choice {
    /// The dead letters' own topic.
    pub topic: String,
    pub whose: Whose,
    pub class: Option<String>,
    /// The topic in which they failed.
    pub original_topic: Option<String>,
    /// The flow and the step that they are about.
    pub flow: Option<String>,
    pub step: Option<String>,
    /// Put there at this time or later, in milliseconds since the Unix epoch.
    pub since_ms: Option<i64>,
    /// Put there before this time.
    pub until_ms: Option<i64>,
    /// Those that are settled, too.
    pub settled_too: bool,
}

/// The place in a list, newest first, after which it goes on: a time in microseconds since the Unix epoch, and what was
/// listed of that time. Letters come before tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum After {
    /// This letter, and those before it.
    Letter(i64, Place),
    /// This token, those before it, and all letters of that time.
    Token(i64, JobId),
}

impl After {
    const fn at_us(self) -> i64 {
        match self {
            Self::Letter(at_us, _) | Self::Token(at_us, _) => at_us,
        }
    }

    const fn place(self) -> Place {
        match self {
            Self::Letter(_, place) => place,
            Self::Token(..) => Place { partition: -1, offset: -1 },
        }
    }

    /// The highest of the ids that are to come.
    fn job(self) -> uuid::Uuid {
        match self {
            Self::Letter(..) => uuid::Uuid::max(),
            Self::Token(_, job) => job.uuid(),
        }
    }
}

/// A parked token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ParkedToken {
    pub job: JobId,
    pub flow: String,
    /// The step that its slip is at; none for one that was parked before holds named their step.
    pub step: Option<String>,
    pub correlation_id: String,
    /// Since when, in microseconds since the Unix epoch.
    pub at_us: i64,
}

/// The choice of parked tokens; what is none chooses all.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ParkedChoice {
    pub flow: Option<String>,
    /// The step that its slip is at.
    pub step: Option<String>,
    /// Parked at this time or later, in milliseconds since the Unix epoch.
    pub since_ms: Option<i64>,
    /// Parked before this time.
    pub until_ms: Option<i64>,
}

struct Row {
    topic: String,
    partition: i32,
    offset: i64,
    original_topic: Option<String>,
    original_partition: Option<i32>,
    original_offset: Option<i64>,
    class: String,
    reason: String,
    tenant: Option<String>,
    flow: Option<String>,
    step: Option<String>,
    attempts: i32,
    key: Option<Vec<u8>>,
    headers: Vec<u8>,
    value_bytes: i32,
    at_us: i64,
    action: Option<String>,
    settled_reason: Option<String>,
    edit: Option<Vec<u8>>,
    settled_at_ms: Option<i64>,
}

impl TryFrom<Row> for Letter {
    type Error = Error;

    fn try_from(row: Row) -> Result<Self, Error> {
        let original = match (row.original_topic, row.original_partition, row.original_offset) {
            (Some(topic), Some(partition), Some(offset)) => Some(Original { topic, partition, offset }),
            _ => None,
        };
        let settled = row.action.zip(row.settled_at_ms);
        let (reason, edit) = (row.settled_reason, row.edit);
        Ok(Self {
            letter: DeadLetter {
                topic: row.topic,
                partition: row.partition,
                offset: row.offset,
                original,
                class: row.class,
                reason: row.reason,
                tenant: row.tenant,
                flow: row.flow,
                step: row.step,
                attempts: unsigned(row.attempts),
                key: row.key,
                headers: Headers::read(row.headers).map_err(|error| Error::Corrupt(error.to_string()))?,
                value_bytes: unsigned(row.value_bytes),
                at_ms: row.at_us / 1_000,
            },
            at_us: row.at_us,
            settled: settled.map(|(action, at_ms)| Settled { action, reason, edit, at_ms }),
        })
    }
}

/// The chosen dead letters, newest first. What they are about is one `case`: of many `or`, Postgres expects so few rows
/// that it would read the whole table and sort.
pub async fn list(pool: &Pool, choice: &Choice, after: Option<After>, letters_max: u32) -> Result<Vec<Letter>, Error> {
    let rows = sqlx::query_as!(
        Row,
        r#"select letter.topic, letter.partition, letter."offset", original_topic, original_partition, original_offset,
                  class, letter.reason, tenant, flow, step, attempts, key, headers, value_bytes,
                  (extract(epoch from at) * 1000000)::bigint as "at_us!", settled.action as "action?",
                  settled.reason as "settled_reason?", settled.edit as "edit?",
                  (extract(epoch from settled.settled_at) * 1000)::bigint as "settled_at_ms?"
           from orchestrator.dead_letters letter
           left join ingest.settled_letters settled using (topic, partition, "offset")
           where letter.topic = $1
             and case when ($2::text is null or class = $2) and ($3::text is null or original_topic = $3)
                       and ($4::text is null or flow = $4) and ($5::text is null or step = $5)
                       and coalesce(tenant, $14) = $13::text then true end
             and ($6::bigint is null or at >= to_timestamp($6 / 1000.0))
             and ($7::bigint is null or at < to_timestamp($7 / 1000.0))
             and ($8::boolean or settled.action is null)
             and ($9::bigint is null
                  or (at, letter.partition, letter."offset")
                     < (timestamptz 'epoch' + $9 * interval '1 microsecond', $10::integer, $11::bigint))
           order by at desc, letter.partition desc, letter."offset" desc
           limit $12"#,
        choice.topic,
        choice.class,
        choice.original_topic,
        choice.flow,
        choice.step,
        choice.since_ms,
        choice.until_ms,
        choice.settled_too,
        after.map(After::at_us),
        after.map_or(0, |after| after.place().partition),
        after.map_or(0, |after| after.place().offset),
        i64::from(letters_max),
        choice.whose.tenant,
        choice.whose.deployment,
    )
    .fetch_all(pool.raw())
    .await?;
    rows.into_iter().map(Letter::try_from).collect()
}

/// One of the tenant's dead letters; none where the index has none at this place.
pub async fn find(pool: &Pool, whose: &Whose, topic: &str, place: Place) -> Result<Option<Letter>, Error> {
    let row = sqlx::query_as!(
        Row,
        r#"select letter.topic, letter.partition, letter."offset", original_topic, original_partition, original_offset,
                  class, letter.reason, tenant, flow, step, attempts, key, headers, value_bytes,
                  (extract(epoch from at) * 1000000)::bigint as "at_us!", settled.action as "action?",
                  settled.reason as "settled_reason?", settled.edit as "edit?",
                  (extract(epoch from settled.settled_at) * 1000)::bigint as "settled_at_ms?"
           from orchestrator.dead_letters letter
           left join ingest.settled_letters settled using (topic, partition, "offset")
           where letter.topic = $1 and letter.partition = $2 and letter."offset" = $3
             and coalesce(tenant, $5) = $4::text"#,
        topic,
        place.partition,
        place.offset,
        whose.tenant,
        whose.deployment,
    )
    .fetch_optional(pool.raw())
    .await?;
    row.map(Letter::try_from).transpose()
}

/// Dead letters that are counted at most.
const COUNTED_MAX: i64 = 1_000;

/// The count of the chosen dead letters that nobody has settled, by class, most first: of the newest thousand. The
/// choice's class is not used.
pub async fn counts(pool: &Pool, choice: &Choice) -> Result<Vec<(String, u64)>, Error> {
    let rows = sqlx::query!(
        r#"select class, count(*) as "count!"
           from (
             select class
             from orchestrator.dead_letters letter
             left join ingest.settled_letters settled using (topic, partition, "offset")
             where letter.topic = $1
               and case when ($2::text is null or original_topic = $2) and ($3::text is null or flow = $3)
                         and ($4::text is null or step = $4) and coalesce(tenant, $9) = $8::text then true end
               and ($5::bigint is null or at >= to_timestamp($5 / 1000.0))
               and ($6::bigint is null or at < to_timestamp($6 / 1000.0))
               and settled.action is null
             order by at desc, letter.partition desc, letter."offset" desc
             limit $7
           ) as newest
           group by class order by count(*) desc, class"#,
        choice.topic,
        choice.original_topic,
        choice.flow,
        choice.step,
        choice.since_ms,
        choice.until_ms,
        COUNTED_MAX,
        choice.whose.tenant,
        choice.whose.deployment,
    )
    .fetch_all(pool.raw())
    .await?;
    Ok(rows.into_iter().map(|row| (row.class, row.count.unsigned_abs())).collect())
}

/// Notes the end of a dead letter as part of the caller's transaction, which also sends the record. False if it had one
/// already: then nothing may be sent.
pub async fn settle(tx: &mut Tx, topic: &str, place: Place, settlement: Settlement<'_>) -> Result<bool, Error> {
    let Settlement { action, reason, edit } = settlement;
    let settled = sqlx::query!(
        r#"insert into ingest.settled_letters (topic, partition, "offset", action, reason, edit)
           values ($1, $2, $3, $4, $5, $6)
           on conflict (topic, partition, "offset") do nothing"#,
        topic,
        place.partition,
        place.offset,
        action.as_str(),
        reason.map(|reason| reason.replace('\0', "\u{fffd}")),
        edit,
    )
    .execute(tx.raw())
    .await?;
    Ok(settled.rows_affected() == 1)
}

/// Forgets the ends of dead letters that are forgotten themselves; returns how many, `rows_max` at most.
pub async fn forget_settled(pool: &Pool, rows_max: u32) -> Result<u64, Error> {
    let deleted = sqlx::query!(
        r#"delete from ingest.settled_letters where ctid = any (array(
            select settled.ctid from ingest.settled_letters settled
            where settled_at < now() - interval '1 day' and not exists (
                select from orchestrator.dead_letters letter
                where letter.topic = settled.topic and letter.partition = settled.partition
                  and letter."offset" = settled."offset"
            )
            limit $1
         ))"#,
        i64::from(rows_max),
    )
    .execute(pool.raw())
    .await?;
    Ok(deleted.rows_affected())
}

/// Parked tokens of a tenant, those that came last first: those that are chosen.
pub async fn parked(
    pool: &Pool,
    tenant: &str,
    choice: &ParkedChoice,
    after: Option<After>,
    tokens_max: u32,
) -> Result<Vec<ParkedToken>, Error> {
    let rows = sqlx::query!(
        r#"select hold.job, job.flow, hold.step, job.correlation_id,
                  (extract(epoch from held_at) * 1000000)::bigint as "at_us!"
           from orchestrator.holds hold join orchestrator.jobs job using (job)
           where hold.reason = 'attention' and job.tenant = $1
             and case when ($2::text is null or job.flow = $2) and ($3::text is null or hold.step = $3) then true end
             and ($4::bigint is null or held_at >= to_timestamp($4 / 1000.0))
             and ($5::bigint is null or held_at < to_timestamp($5 / 1000.0))
             and ($6::bigint is null
                  or (held_at, hold.job) < (timestamptz 'epoch' + $6 * interval '1 microsecond', $7::uuid))
           order by held_at desc, hold.job desc
           limit $8"#,
        tenant,
        choice.flow,
        choice.step,
        choice.since_ms,
        choice.until_ms,
        after.map(After::at_us),
        after.map_or_else(uuid::Uuid::max, After::job),
        i64::from(tokens_max),
    )
    .fetch_all(pool.raw())
    .await?;
    let tokens = rows.into_iter().map(|row| ParkedToken {
        job: JobId::new(row.job),
        flow: row.flow,
        step: row.step,
        correlation_id: row.correlation_id,
        at_us: row.at_us,
    });
    Ok(tokens.collect())
}
