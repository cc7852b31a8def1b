//! `ingest.acceptances` and `ingest.idempotency`: a job exists from the moment its acceptance commits.

use flow::deref_to_facts;
use flow::facts::JobFacts;
use std::collections::HashMap;

use events::record::Record;
use events::trace::TraceId;
use flow::id::JobId;
use uuid::Uuid;

use crate::columns::{RecordColumns, signed, uuids};
use crate::retention::{Needed, Retired};
use crate::webhooks::JobWebhook;
use crate::{Error, Pool, Role, Tx, partitions, retention, sweep};

/// An accepted job, kept until its retention time is over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Acceptance {
    /// The same as in the first slip and event.
    pub facts: JobFacts,
    /// The input, as JSON text.
    pub input: Vec<u8>,
    /// The job's deadline, in milliseconds since the Unix epoch.
    pub deadline_ms: Option<i64>,
    pub steps_total: u32,
    pub trace_id: Option<TraceId>,
}

deref_to_facts!(Acceptance);

/// A caller's key, by which a repeated request finds the job of the first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Idempotency {
    /// The scope within the tenant: a flow, or the retry of one job.
    pub scope: String,
    pub key: String,
    /// A digest of the request: the same key with another one is a caller's mistake.
    pub fingerprint: Vec<u8>,
    /// The time for which the key is remembered.
    pub retention_ms: i64,
}

/// One request to accept a job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewAcceptance {
    pub acceptance: Acceptance,
    /// The caller's key, if it gave one.
    pub idempotency: Option<Idempotency>,
    /// The first event and the first slip. They go to Kafka if, and only if, the job is new.
    pub records: Vec<Record>,
    /// The webhook that the request asks for its own job.
    pub webhook: Option<JobWebhook>,
    /// The subject that asks for it, for the audit log.
    pub submitted_by: Option<String>,
}

/// The outcome of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Accepted {
    /// The job is stored and will run.
    New,
    /// The key stands for an earlier job; nothing was written.
    Replayed {
        job: JobId,
        /// False if the earlier request differed from this one.
        same_fingerprint: bool,
    },
}

/// Accepts all requests in one transaction and one round trip; the answers are in the order of the requests.
///
/// Of two requests with the same key in one batch the first counts. An expired key is taken over. Sending the same
/// requests (same job ids) again after an unknown outcome is safe: what is stored is not stored twice. When the error
/// is [`Error::is_row_error`], nothing was written; send the requests one by one. Once its callers are answered,
/// [`crate::outbox::announce`] tells the relay.
pub async fn accept_batch(pool: &Pool, batch: &[NewAcceptance]) -> Result<Vec<Accepted>, Error> {
    accept(pool.raw(), batch).await
}

/// [`accept_batch`] as part of the caller's transaction: with offsets (rule 3), dead letters or other records.
pub async fn accept_batch_in(tx: &mut Tx, batch: &[NewAcceptance]) -> Result<Vec<Accepted>, Error> {
    tx.note_appended();
    accept(tx.raw(), batch).await
}

/// Makes the partitions from today to `days_ahead` days from now. Needs the role [`Role::Ingest`]. Returns how many
/// were made.
pub async fn ensure_partitions(pool: &Pool, days_ahead: u32) -> Result<u32, Error> {
    debug_assert_eq!(pool.role(), Role::Ingest, "only the owner makes partitions");
    let now_ms = partitions::now_ms(pool).await?;
    partitions::ensure(pool, &partitions::ACCEPTANCES, now_ms, days_ahead).await
}

/// Drops the acceptances of jobs that ended more than `keep_ms` ago, by whole days. A job that has not ended, or has
/// ended later, keeps its own; so does one whose tenant or flow wants it kept for longer. Needs the role
/// [`Role::Ingest`].
pub async fn retire(pool: &Pool, keep_ms: i64) -> Result<Retired, Error> {
    debug_assert_eq!(pool.role(), Role::Ingest, "only the owner drops partitions");
    let done = sweep::is_done("seen", keep_ms, 0);
    // A job without a projection: either its events were not read yet, or the orchestrator has dropped it with its day.
    let of_partition = |partition: &str, from: Uuid, to: Uuid| {
        format!(
            "select accepted.job from {partition} as accepted
             left join orchestrator.jobs as seen
                on seen.job = accepted.job and seen.job >= '{from}' and seen.job < '{to}'
             where case
                when seen.job is null
                    then exists (select from orchestrator.jobs where job >= '{from}' and job < '{to}')
                else not ({done})
             end"
        )
    };
    let seen = "orchestrator.jobs as seen where seen.job = kept.job";
    let default_row_is_done = format!("exists (select from {seen} and {done})");
    let needed = Needed { of_partition: &of_partition, default_row_is_done };
    retention::retire(pool, &partitions::ACCEPTANCES, keep_ms, &needed).await
}

async fn accept<'e, E>(executor: E, batch: &[NewAcceptance]) -> Result<Vec<Accepted>, Error>
where
    E: sqlx::PgExecutor<'e>,
{
    let (asked, places) = without_repeats(batch);
    if asked.is_empty() {
        return Ok(Vec::new());
    }
    let holders = store(executor, &asked).await?;
    let answer = |(request, &place): (&NewAcceptance, &usize)| {
        let holder = &holders[place];
        if holder.job == request.acceptance.job.uuid() {
            return Accepted::New;
        }
        let fingerprint = request.idempotency.as_ref().map(|idempotency| &idempotency.fingerprint);
        Accepted::Replayed { job: JobId::new(holder.job), same_fingerprint: holder.fingerprint.as_ref() == fingerprint }
    };
    Ok(batch.iter().zip(&places).map(answer).collect())
}

/// The requests without those that repeat a key of an earlier one, and for each request its place among them. (An
/// insert that meets its own rows is an error in Postgres.)
fn without_repeats(batch: &[NewAcceptance]) -> (Vec<&NewAcceptance>, Vec<usize>) {
    let mut first_places = HashMap::new();
    let mut asked = Vec::with_capacity(batch.len());
    let mut places = Vec::with_capacity(batch.len());
    for request in batch {
        let place = match &request.idempotency {
            Some(idempotency) => *first_places
                .entry((&request.acceptance.tenant, &idempotency.scope, &idempotency.key))
                .or_insert(asked.len()),
            None => asked.len(),
        };
        if place == asked.len() {
            asked.push(request);
        }
        places.push(place);
    }
    (asked, places)
}

/// The job that holds a request's key afterwards.
struct Holder {
    job: Uuid,
    fingerprint: Option<Vec<u8>>,
}

async fn store<'e, E>(executor: E, asked: &[&NewAcceptance]) -> Result<Vec<Holder>, Error>
where
    E: sqlx::PgExecutor<'e>,
{
    let acceptances = || asked.iter().map(|request| &request.acceptance);
    let keys = || asked.iter().map(|request| request.idempotency.as_ref());
    let records = || asked.iter().flat_map(|request| &request.records);
    let owners = asked.iter().flat_map(|request| request.records.iter().map(|_| &request.acceptance.job));
    let columns: RecordColumns<'_> = records().collect();
    let webhooks = || asked.iter().filter_map(|request| Some((&request.acceptance.job, request.webhook.as_ref()?)));
    let holders = sqlx::query_file_as!(
        Holder,
        "queries/accept_batch.sql",
        &uuids(acceptances().map(|a| &a.job)),
        &acceptances().map(|a| a.tenant.as_str()).collect::<Vec<_>>() as &[&str],
        &acceptances().map(|a| a.flow.as_str()).collect::<Vec<_>>() as &[&str],
        &acceptances().map(|a| a.version.as_str()).collect::<Vec<_>>() as &[&str],
        &acceptances().map(|a| a.key.as_str()).collect::<Vec<_>>() as &[&str],
        &acceptances().map(|a| a.correlation_id.as_str()).collect::<Vec<_>>() as &[&str],
        &acceptances().map(|a| a.input.as_slice()).collect::<Vec<_>>() as &[&[u8]],
        &acceptances().map(|a| a.accepted_at_ms).collect::<Vec<_>>(),
        &acceptances().map(|a| a.deadline_ms).collect::<Vec<_>>() as &[Option<i64>],
        &acceptances().map(|a| signed(a.steps_total)).collect::<Vec<_>>(),
        &acceptances().map(|a| a.trace_id.map(|id| id.to_string())).collect::<Vec<_>>() as &[Option<String>],
        &acceptances().map(|a| a.retry_of.map(JobId::uuid)).collect::<Vec<_>>() as &[Option<Uuid>],
        &keys().map(|key| key.map(|key| key.scope.as_str())).collect::<Vec<_>>() as &[Option<&str>],
        &keys().map(|key| key.map(|key| key.key.as_str())).collect::<Vec<_>>() as &[Option<&str>],
        &keys().map(|key| key.map(|key| key.fingerprint.as_slice())).collect::<Vec<_>>() as &[Option<&[u8]>],
        &keys().map(|key| key.map(|key| key.retention_ms)).collect::<Vec<_>>() as &[Option<i64>],
        &uuids(owners),
        &columns.topics as &[&str],
        &columns.keys as &[Option<&[u8]>],
        &columns.values as &[Option<&[u8]>],
        &columns.headers,
        &uuids(webhooks().map(|(job, _)| job)),
        &webhooks().map(|(_, webhook)| webhook.receiver).collect::<Vec<_>>(),
        &webhooks().map(|(_, webhook)| webhook.url.as_str()).collect::<Vec<_>>() as &[&str],
        &webhooks().map(|(_, webhook)| webhook.events.join(" ")).collect::<Vec<_>>(),
        &webhooks().map(|(_, webhook)| webhook.secret.as_deref()).collect::<Vec<_>>() as &[Option<&[u8]>],
        &asked.iter().map(|request| request.submitted_by.as_deref()).collect::<Vec<_>>() as &[Option<&str>],
    )
    .fetch_all(executor)
    .await?;
    debug_assert_eq!(holders.len(), asked.len(), "one answer per request");
    Ok(holders)
}
