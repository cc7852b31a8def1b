//! Commands that go into the database, where DATABASE_URL leads, in place of asking the API. Whoever can run them can
//! do anything there. They are in the audit log all the same.

use anyhow::Context as _;
use bus::{Reader, Registry};
use events::Writer;
use events::audit::{AuditAnswer, AuditEntry};
use events::topic::Topics;
use events::trace::Trace;
use service_kit::config::{Shared, Sources};
use service_kit::identity::{Clock, Ids};
use service_kit::trace;
use store::{Pool, Role, audit};

/// Whoever runs such a command, in the audit log.
pub(crate) const SUBJECT: &str = "database";

/// The database, under the role of ingest, and what is needed to write to the audit log.
pub(crate) struct InDatabase {
    pub(crate) shared: Shared,
    pub(crate) pool: Pool,
    pub(crate) writer: Writer,
    pub(crate) trace: Trace,
    pub(crate) clock: Clock,
    pub(crate) ids: Ids,
}

impl InDatabase {
    /// # Errors
    /// The settings lack DATABASE_URL or SCHEMA_REGISTRY_URL, or the registry does not answer.
    #[expect(clippy::disallowed_methods, reason = "a command of its own: it has no other source of time and chance")]
    pub(crate) async fn open(sources: &Sources) -> anyhow::Result<Self> {
        let (ids, clock) = (Ids::system(), Clock::system());
        let shared = Shared::load(sources)?;
        let pool = Pool::open(&store::Settings::new(shared.database_url()?), Role::Ingest)?;
        let topics = Topics::new(&shared.topics_prefix);
        let registry = process::registry_access(&shared.registry);
        let bus = bus::Settings { registry, ..bus::Settings::new("", shared.registry_url()?) };
        let reader = Reader::new(Registry::of(&bus)?);
        let told = "the registry of SCHEMA_REGISTRY_URL does not answer, so that the audit log cannot be told";
        let writer = Writer { ids: reader.writer_ids(&topics).await.context(told)?, topics };
        Ok(Self { shared, pool, writer, trace: trace::fresh(&ids, 0), clock, ids })
    }

    /// Puts a deed into the audit log, before it is done.
    pub(crate) async fn begin(&self, tenant: &str, action: &str, object: &str) -> anyhow::Result<AuditEntry> {
        let at_ms = self.clock.now_ms();
        let entry = AuditEntry {
            id: self.ids.uuid_v7(at_ms),
            tenant: tenant.to_owned(),
            subject: SUBJECT.to_owned(),
            action: action.to_owned(),
            object: object.to_owned(),
            client: None,
            trace_id: None,
            at_ms,
            answer: None,
        };
        let record = self.writer.audit_entry(&entry, &self.trace)?;
        let told = "nothing is done: the audit log does not take it";
        audit::begin(&self.pool, &entry, &record).await.context(told)?;
        Ok(entry)
    }

    /// Adds how it ended, as the API would answer.
    pub(crate) async fn end(&self, mut entry: AuditEntry, status: u16) -> anyhow::Result<()> {
        entry.answer = Some(AuditAnswer { status, at_ms: self.clock.now_ms() });
        let record = self.writer.audit_entry(&entry, &self.trace)?;
        let told = "it is done, and the audit log does not tell it";
        audit::end(&self.pool, &entry, &record).await.context(told)
    }
}
