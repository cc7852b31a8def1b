//! Holds of `orchestrator.holds` that hold their lanes, and the turns behind them. A lane is the slips of one steps
//! topic that share a key. A hold of reason `running` is a call that a worker has under way. A hold of reason `room` or
//! `unread` is about to be tried again. A hold of reason `turn` waits until one of those is over.
//!
//! Invariant: a `turn` rests only while another hold of its lane holds the lane. A transaction that lays a turn to rest
//! locks that hold; a transaction that takes that hold away looks for turns afterwards, in a statement of its own.
//! Invariant: a running hold leaves once: with the outcome of its worker, or because that worker is lost.

use std::collections::{BTreeMap, BTreeSet};

use events::lane::Freed;
use events::record::Record;
use events::wait::Outcome;
use flow::id::{JobId, TokenId};

use crate::columns::{signed, unsigned};
use crate::holds::{self, NewHold, Released};
use crate::{Error, Pool, Tx, outbox};
use events::headers::Headers;

/// A token that waits for its turn.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewTurn {
    /// The token at rest, with its place.
    pub hold: NewHold,
    /// The token that it waits for.
    pub behind: TokenId,
}

/// The outcome of [`rest`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Rested {
    /// The count of turns that were sent at once, because no hold holds their lane any more.
    pub sent: u32,
}

/// Limits of the calls of a lost worker that are sent on in one transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReleaseMax {
    /// The most running holds.
    pub holds: u32,
    /// The most bytes of those holds and of the turns behind them. One hold is sent however large it is.
    pub bytes: u64,
}

/// A steps topic, and the key of the records.
type Lane = (String, Vec<u8>);

/// A hold that held its lane and has been deleted.
struct Gone {
    token: TokenId,
    lane: Lane,
}

/// Lays turns to rest as part of the caller's transaction. Turns whose lane no hold holds are sent at once. Turns of
/// one lane must be in their order.
pub async fn rest(tx: &mut Tx, turns: &[NewTurn]) -> Result<Rested, Error> {
    if turns.is_empty() {
        return Ok(Rested::default());
    }
    let held = lock_held(tx, turns).await?;
    let (resting, late): (Vec<&NewTurn>, Vec<&NewTurn>) = turns.iter().partition(|turn| held.contains(&lane_of(turn)));
    let resting: Vec<NewHold> = resting.into_iter().map(|turn| turn.hold.clone()).collect();
    holds::insert(tx, &resting).await?;
    outbox::append(tx, &at_once(&late)).await?;
    Ok(Rested { sent: u32::try_from(late.len()).unwrap_or(u32::MAX) })
}

/// Applies outcomes as part of the caller's transaction. If the token still rests as a call of that worker, its hold is
/// deleted, the turns behind it are sent, and then the outcome's own records. An outcome without records hands its
/// token over: the slip is sent again, ahead of the turns. Returns for each outcome whether it was applied.
pub async fn end(tx: &mut Tx, outcomes: &[Outcome]) -> Result<Vec<bool>, Error> {
    let mut applied = vec![false; outcomes.len()];
    if outcomes.is_empty() {
        return Ok(applied);
    }
    let mut seen = BTreeSet::new();
    let first: Vec<bool> = outcomes.iter().map(|ended| seen.insert((&ended.token, &ended.worker))).collect();
    let asked: Vec<(usize, &Outcome)> = outcomes.iter().enumerate().filter(|(index, _)| first[*index]).collect();
    let rows = sqlx::query!(
        r#"delete from orchestrator.holds as hold
           using unnest($1::uuid[], $2::text[], $3::integer[], $4::text[]) with ordinality
              as ended (job, branch, hop, worker, ordinal)
           where hold.job = ended.job and hold.branch = ended.branch and hold.hop = ended.hop
             and hold.reason = 'running' and hold.worker = ended.worker
           returning ended.ordinal as "ordinal!", hold.topic, hold.key, hold.value, hold.headers"#,
        &asked.iter().map(|(_, ended)| ended.token.job.uuid()).collect::<Vec<_>>(),
        &asked.iter().map(|(_, ended)| ended.token.branch.as_str()).collect::<Vec<_>>() as &[&str],
        &asked.iter().map(|(_, ended)| signed(ended.token.hop)).collect::<Vec<_>>(),
        &asked.iter().map(|(_, ended)| ended.worker.as_str()).collect::<Vec<_>>() as &[&str],
    )
    .fetch_all(tx.raw())
    .await?;
    let (mut gone, mut handed_over) = (BTreeMap::new(), Vec::new());
    for row in rows {
        let ordinal = usize::try_from(row.ordinal - 1).unwrap_or_default();
        let (index, ended) = asked[ordinal];
        if ended.records.is_empty() {
            let headers = Headers::read(row.headers).map_err(|error| Error::Corrupt(error.to_string()))?;
            handed_over.push(Record { topic: row.topic.clone(), key: row.key.clone(), value: row.value, headers });
        }
        gone.insert(index, Gone { token: ended.token.clone(), lane: (row.topic, row.key.unwrap_or_default()) });
        applied[index] = true;
    }
    let gone: Vec<Gone> = gone.into_values().collect();
    // Sent ahead of the turns behind them, so that they keep their places.
    outbox::append(tx, &handed_over).await?;
    free(tx, &gone).await?;
    let records = outcomes.iter().zip(&applied).filter(|(_, applied)| **applied).flat_map(|(ended, _)| &ended.records);
    outbox::append(tx, &records.cloned().collect::<Vec<_>>()).await?;
    Ok(applied)
}

/// Sends on calls of this worker that no other transaction has locked, as part of the caller's transaction, each with
/// the turns behind it. Returns their count; 0 if there is none, or all are locked.
pub(crate) async fn release(tx: &mut Tx, worker: &str, max: ReleaseMax) -> Result<u32, Error> {
    let bytes_max = i64::try_from(max.bytes).unwrap_or(i64::MAX);
    tx.note_appended();
    let rows = sqlx::query_file!("queries/release_lost.sql", worker, i64::from(max.holds), bytes_max)
        .fetch_all(tx.raw())
        .await?;
    let gone: Vec<Gone> = rows
        .into_iter()
        .map(|row| Gone {
            token: TokenId { job: JobId::new(row.job), branch: row.branch, hop: unsigned(row.hop) },
            lane: (row.topic, row.key.unwrap_or_default()),
        })
        .collect();
    free(tx, &gone).await?;
    Ok(u32::try_from(gone.len()).unwrap_or(u32::MAX))
}

/// Sends on at most `holds_max` holds whose time has come, earliest first, in one statement; and as many holds that
/// hold their lanes, each with the turns behind it. Concurrent callers share the work; each hold is sent by one.
pub async fn release_due(pool: &Pool, holds_max: u32) -> Result<Released, Error> {
    let (alone, lanes_due) = holds::release_alone(pool, holds_max).await?;
    if alone.holds > 0 {
        outbox::announce(pool).await;
    }
    let of_lanes = if lanes_due { release_lanes(pool, holds_max).await? } else { 0 };
    let more = holds_max > 0 && alone.holds.max(of_lanes) >= holds_max;
    let next_due_in_ms = if more { Some(0) } else { alone.next_due_in_ms };
    Ok(Released { holds: alone.holds.saturating_add(of_lanes), next_due_in_ms })
}

/// Sends on at most `holds_max` holds that hold their lanes and whose time has come, each with the turns behind it.
/// Returns their count.
async fn release_lanes(pool: &Pool, holds_max: u32) -> Result<u32, Error> {
    let mut tx = pool.begin().await?;
    let rows = sqlx::query_file!("queries/release_lanes_due.sql", i64::from(holds_max)).fetch_all(tx.raw()).await?;
    let gone: Vec<Gone> = rows
        .into_iter()
        .map(|row| Gone {
            token: TokenId { job: JobId::new(row.job), branch: row.branch, hop: unsigned(row.hop) },
            lane: (row.topic, row.key.unwrap_or_default()),
        })
        .collect();
    free(&mut tx, &gone).await?;
    tx.note_appended();
    tx.commit().await?;
    Ok(u32::try_from(gone.len()).unwrap_or(u32::MAX))
}

/// True if there is a call of this worker.
pub(crate) async fn has_calls(tx: &mut Tx, worker: &str) -> Result<bool, Error> {
    Ok(sqlx::query_scalar!(
        r#"select exists (
            select from orchestrator.holds where reason = 'running' and worker = $1
           ) as "exists!""#,
        worker,
    )
    .fetch_one(tx.raw())
    .await?)
}

/// The lanes of these turns that are held. Locks their holds until the transaction ends.
async fn lock_held(tx: &mut Tx, turns: &[NewTurn]) -> Result<BTreeSet<Lane>, Error> {
    let lanes: BTreeSet<Lane> = turns.iter().map(lane_of).collect();
    let (topics, keys): (Vec<&str>, Vec<&[u8]>) =
        lanes.iter().map(|(topic, key)| (topic.as_str(), key.as_slice())).unzip();
    let rows = sqlx::query!(
        r#"select topic, key as "key!" from orchestrator.holds
           where reason in ('running', 'room', 'unread')
             and (topic, key) in (select * from unnest($1::text[], $2::bytea[]))
           order by job, branch, hop
           for key share"#,
        &topics as &[&str],
        &keys as &[&[u8]],
    )
    .fetch_all(tx.raw())
    .await?;
    Ok(rows.into_iter().map(|row| (row.topic, row.key)).collect())
}

/// Sends the turns of these lanes, in order of their places, and behind them the record that frees the lane.
async fn free(tx: &mut Tx, gone: &[Gone]) -> Result<(), Error> {
    if gone.is_empty() {
        return Ok(());
    }
    let (topics, keys): (Vec<&str>, Vec<&[u8]>) =
        gone.iter().map(|Gone { lane: (topic, key), .. }| (topic.as_str(), key.as_slice())).unzip();
    let rows = sqlx::query!(
        r#"with taken as (
            delete from orchestrator.holds
            where reason = 'turn' and (topic, key) in (select * from unnest($1::text[], $2::bytea[]))
            returning topic, key, value, headers, place
           ), appended as (
            insert into outbox.messages (topic, key, value, headers)
            select topic, key, value, headers from taken order by topic, key, place
           )
           select topic as "topic!", key as "key!", max(place) as "place!" from taken group by topic, key"#,
        &topics as &[&str],
        &keys as &[&[u8]],
    )
    .fetch_all(tx.raw())
    .await?;
    let mut turns: BTreeMap<Lane, u32> =
        rows.into_iter().map(|row| ((row.topic, row.key), unsigned(row.place))).collect();
    let freed = |gone: &Gone| {
        let freed = Freed { holder: gone.token.clone(), turns: turns.remove(&gone.lane).unwrap_or_default() };
        freed.record(gone.lane.0.clone(), gone.lane.1.clone())
    };
    outbox::append(tx, &gone.iter().map(freed).collect::<Vec<_>>()).await
}

/// The records of turns that come when the call before them is over already: by lane, and behind the turns of one token
/// the record that frees the lane.
fn at_once(late: &[&NewTurn]) -> Vec<Record> {
    let mut lanes: BTreeMap<Lane, Vec<&NewTurn>> = BTreeMap::new();
    for turn in late {
        lanes.entry(lane_of(turn)).or_default().push(turn);
    }
    let mut records = Vec::with_capacity(2 * late.len());
    for ((topic, key), mut turns) in lanes {
        // One that stood before others may come to rest behind them.
        turns.sort_by_key(|turn| turn.hold.place);
        for behind_one in turns.chunk_by(|before, after| before.behind == after.behind) {
            records.extend(behind_one.iter().map(|turn| turn.hold.record.clone()));
            let Some(last) = behind_one.last() else { continue };
            let freed = Freed { holder: last.behind.clone(), turns: last.hold.place.unwrap_or_default() };
            records.push(freed.record(topic.clone(), key.clone()));
        }
    }
    records
}

fn lane_of(turn: &NewTurn) -> Lane {
    let Record { topic, key, .. } = &turn.hold.record;
    (topic.clone(), key.clone().unwrap_or_default())
}
