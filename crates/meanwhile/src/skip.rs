//! `meanwhile topics skip`: the way past a batch of records that cannot be read at all.
//!
//! Each reader that stands at the batch is moved behind it, in one transaction with a dead letter that names the gap.
//! Readers that run go on by themselves.

use std::process::ExitCode;

use anyhow::{Context, bail};
use bus::admin::{Admin, UnreadableBatch};
use bus::{Inbound, Record, TopicPartition};
use events::dead_letter::{self, Class, Failure};
use events::topic::Topics;
use process::{Base, Process};
use service_kit::config::Sources;
use service_kit::telemetry;
use store::offsets::{self, OffsetAdvance};
use store::{Pool, Role, outbox};

use crate::cli::SkipArgs;
use crate::roles::target;

/// The roles that keep their positions in Postgres. The first that moves keeps the dead letter; the notifier keeps
/// none.
const FOLLOWERS: [(Role, &str); 3] =
    [(Role::Orchestrator, "orchestrator"), (Role::Ingest, "ingest"), (Role::Notifier, "notifier")];

/// True if the role follows this topic.
fn follows(role: Role, topics: &Topics, topic: &str) -> bool {
    let (events, commands) = (topic == topics.events(), topics.is_commands(topic));
    match role {
        Role::Ingest => commands,
        Role::Notifier => events,
        Role::Orchestrator => {
            let others = [topics.waits(), topics.cancels(), topics.flows(), topics.dead_letters()];
            events || others.iter().any(|other| other == topic)
        }
        Role::Relay => false,
    }
}

/// A reader that stands at the batch.
struct Stuck {
    name: String,
    at: i64,
    /// The position as it is stored; none: the reader has read nothing yet, and begins where the log does.
    stored: Option<i64>,
    /// None: the workers, whose group keeps its offsets on Kafka.
    pool: Option<Pool>,
}

/// `meanwhile topics skip`
#[expect(clippy::print_stdout, reason = "this is the command's answer")]
pub(crate) async fn run(args: &SkipArgs, sources: &Sources) -> anyhow::Result<ExitCode> {
    let base = Base::load(sources)?;
    telemetry::init(&base.shared.log)?;
    let admin = Admin::new(&base.bus)?;
    let place = TopicPartition::new(args.topic.as_str(), args.partition);
    let offset = args.offset;
    let Some(batch) = admin.unreadable_batch(&place, offset).await.context("looking at the batch")? else {
        bail!("{place}: the records at offset {offset} can be read. Nothing was changed");
    };
    let (last, reason) = (batch.end - 1, &batch.reason);
    println!("{place}: the offsets {offset} to {last} cannot be read ({reason})");
    let group = target(&base)?.topics.workers_group();
    let stuck = stuck(&base, &admin, &group, &place, offset..batch.end).await?;
    if stuck.is_empty() {
        bail!("{place}: no reader stands at these offsets. One that stands before them comes there first");
    }
    let clock = Process::system("skip").clock;
    let letter = dead_letter(&base, &place, offset, &batch, clock.now_ms());
    let verb = if args.dry_run { "would be moved" } else { "is moved" };
    let mut is_told = false;
    for reader in &stuck {
        println!("{} {verb} from {} to {}", reader.name, reader.at, batch.end);
        if args.dry_run {
            continue;
        }
        match &reader.pool {
            None => admin.pass_over(&group, &place, reader.at, batch.end, &letter).await?,
            Some(pool) => {
                let letter = if is_told || pool.role() == Role::Notifier { None } else { Some(&letter) };
                advance(pool, &place, reader.stored, batch.end, letter).await?;
            }
        }
        is_told = true;
    }
    if !args.dry_run {
        println!(
            "readers that run go on within seconds; a dead letter names the gap, whose bytes stay in the log only"
        );
    }
    Ok(ExitCode::SUCCESS)
}

async fn stuck(
    base: &Base,
    admin: &Admin,
    group: &str,
    place: &TopicPartition,
    batch: std::ops::Range<i64>,
) -> anyhow::Result<Vec<Stuck>> {
    let mut stuck = Vec::new();
    let committed = admin.committed(group, std::slice::from_ref(&place.topic)).await?;
    if let Some(at) = committed.get(place).copied().filter(|at| batch.contains(at)) {
        stuck.push(Stuck { name: format!("the group {group}"), at, stored: Some(at), pool: None });
    }
    let log_start = admin.offsets(std::slice::from_ref(&place.topic)).await?.get(place).map_or(0, |(start, _)| *start);
    for (role, name) in FOLLOWERS.into_iter().filter(|(role, _)| follows(*role, &base.topics, &place.topic)) {
        let settings = store::Settings { connections_max: 1, ..store::Settings::new(base.database_url()?) };
        let pool = Pool::open(&settings, role)?;
        let stored = offsets::positions(&pool, std::slice::from_ref(place)).await?.pop().flatten();
        let at = stored.unwrap_or(log_start);
        if batch.contains(&at) {
            stuck.push(Stuck { name: name.to_owned(), at, stored, pool: Some(pool) });
        }
    }
    Ok(stuck)
}

/// Names the gap: what was in it cannot be had.
fn dead_letter(base: &Base, place: &TopicPartition, from: i64, batch: &UnreadableBatch, now_ms: i64) -> Record {
    let TopicPartition { topic, partition } = place.clone();
    let original = Inbound { topic, partition, offset: from, timestamp_ms: now_ms, ..Inbound::default() };
    let (last, reason) = (batch.end - 1, &batch.reason);
    let reason = format!(
        "the offsets {from} to {last} could not be read ({reason}) and were passed over by an operator; this record \
         stands for all of theirs, whose bytes are in the log only"
    );
    dead_letter::record(&base.topics, &original, &Failure::once(Class::Unreadable.as_str(), reason, now_ms))
}

async fn advance(
    pool: &Pool,
    TopicPartition { topic, partition }: &TopicPartition,
    expected: Option<i64>,
    next: i64,
    letter: Option<&Record>,
) -> anyhow::Result<()> {
    let advance = OffsetAdvance { topic: topic.clone(), partition: *partition, expected, next };
    let mut tx = pool.begin().await?;
    outbox::append(&mut tx, letter.map_or(&[], std::slice::from_ref)).await?;
    offsets::advance(&mut tx, &[advance]).await.context("the reader has moved meanwhile; nothing was changed")?;
    Ok(tx.commit().await?)
}
