//! The state that the HTTP handlers, the Kafka door and the upkeep share.

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};

use bus::{DevCapacity, OverCapacity, Reader, SingleRecords, Writes};
use documents::Documents;
use flow::callback::Secrets;
use flow::definition::Definition;
use flow::id::JobId;
use outbound::Guard;
use service_kit::health::Readiness;
use service_kit::identity::{Clock, Ids};
use store::Pool;
use tokio::sync::Semaphore;
use web::caller::Caller;
use web::problem::{Kind, Problem, PublicUrl};

use crate::accept::Acceptor;
use crate::auth::Auth;
use crate::backpressure::Backpressure;
use crate::callers::Callers;
use crate::cancels::Cancels;
use crate::catalog::Catalog;
use crate::config::Config;
use crate::estimate::retry_after_s;
use crate::estimates::Estimates;
use crate::known_flags::KnownFlags;
use crate::leaving::Leaving;
use crate::limits::Of;
use crate::open_jobs::Admission;
use crate::plan::Planner;
use crate::polls::Polls;
use crate::progress::Reports;
use crate::projected::Projected;
use crate::proxy::Proxy;
use crate::quotas::Quotas;
use crate::recent::RecentJobs;
use crate::reports_out::ReportsOut;
use crate::streams::Streams;

pub(crate) struct Api {
    pub(crate) config: Config,
    /// The address at which callers reach the API.
    pub(crate) public_url: PublicUrl,
    /// Knows callers.
    pub(crate) auth: Auth,
    /// By these, the addresses of callbacks are known again.
    pub(crate) callback_secrets: Secrets,
    /// By these, the senders of webhooks sign: values by name.
    pub(crate) trigger_secrets: BTreeMap<String, String>,
    pub(crate) clock: Clock,
    pub(crate) ids: Ids,
    pub(crate) acceptor: Acceptor,
    pub(crate) reader: Reader,
    /// Reads dead letters by their places.
    pub(crate) records: SingleRecords,
    pub(crate) catalog: Catalog,
    pub(crate) cancels: Cancels,
    pub(crate) recent: RecentJobs,
    pub(crate) projected: Projected,
    /// Streams of events.
    pub(crate) streams: Arc<Streams>,
    /// Kafka, for streams that go on from earlier times.
    pub(crate) bus: bus::Settings,
    /// The flags of flows' own addresses.
    pub(crate) flags: KnownFlags,
    /// Who uses which form of them.
    pub(crate) callers: Callers,
    /// The way to old services.
    pub(crate) proxy: Proxy,
    /// Which addresses tenants may have called.
    pub(crate) guard: Guard,
    /// How long flows' jobs take.
    pub(crate) estimates: Estimates,
    /// Who has asked for which job, and how often.
    pub(crate) polls: Polls,
    /// What tenants may submit, and have submitted.
    pub(crate) quotas: Quotas,
    /// The room for batches that are read whole, in KiB.
    pub(crate) whole_batches: Arc<Semaphore>,
    /// What steps under way tell of themselves.
    pub(crate) reports: Reports,
    /// The way of services' reports to Kafka.
    pub(crate) reports_out: ReportsOut,
    /// The store of documents.
    pub(crate) documents: Option<Documents>,
    pub(crate) pool: Pool,
    pub(crate) readiness: Readiness,
    /// The room of the broker in this process (`meanwhile dev`); none with a real Kafka, which keeps unread records.
    pub(crate) dev_capacity: Option<DevCapacity>,
    /// The queues that are behind.
    pub(crate) backpressure: Backpressure,
    /// Whether this process leaves, and whom it holds meanwhile.
    pub(crate) leaving: Leaving,
    /// Set once the flows are loaded and the schema ids are known.
    pub(crate) planner: OnceLock<Planner>,
}

impl Api {
    /// The problem 503 until flows, schemas and the recent past of the events were read for the first time.
    pub(crate) fn ready(&self) -> Result<(), Problem> {
        self.planner().map(drop)
    }

    /// Turns requests into acceptances, once this is ready.
    pub(crate) fn planner(&self) -> Result<&Planner, Problem> {
        self.planner.get().ok_or_else(|| {
            let missing: Vec<String> = self
                .readiness
                .dependencies()
                .into_iter()
                .filter(|dependency| !dependency.ok)
                .map(|dependency| format!("{}: {}", dependency.name, dependency.message))
                .collect();
            let detail = format!("Flows and schemas have not been read yet ({}).", missing.join("; "));
            Problem::new(Kind::NotReady, detail).retry_after_s(1)
        })
    }

    /// # Errors
    /// The problem 503 where no store of documents is configured: other processes of this system have one.
    pub(crate) fn documents(&self) -> Result<&Documents, Problem> {
        self.documents.as_ref().ok_or_else(|| {
            let detail = "This service has no store of documents (`documents.url`).";
            Problem::new(Kind::NotReady, detail).retry_after_s(60)
        })
    }

    /// # Errors
    /// The problem 503 while too much of earlier jobs is not done: records of this process's broker, or slips of one of
    /// the flow's queues.
    pub(crate) fn check_capacity(&self, flow: &Definition) -> Result<(), Problem> {
        self.check_room().map_err(|full| no_room(&full))?;
        self.backpressure.check(flow)
    }

    /// All tenants share this: it is changed by the operators of the deployment's own tenant.
    ///
    /// # Errors
    /// The problem 403 for a caller of another one.
    pub(crate) fn require_deployment(&self, caller: &Caller, what: &str) -> Result<(), Problem> {
        let own = &self.config.default_tenant;
        if caller.tenant == *own {
            return Ok(());
        }
        let detail = format!("{what} may concern all tenants: only callers of the tenant `{own}` may do this.");
        Err(Problem::new(Kind::Forbidden, detail).with_remediation("Ask the operators of the deployment."))
    }

    /// Admits jobs of a tenant and flow among those that are not over, all or none.
    ///
    /// # Errors
    /// As [`Quotas::admit`].
    pub(crate) fn admit(&self, of: Of<'_>, jobs: &[JobId]) -> Result<Admission, Problem> {
        // Where so many jobs run, one ends so often, as long as each takes the time that they took lately.
        self.quotas.admit(of, jobs, |max| {
            let job_ms = self.estimates.of(of.0, of.1).and_then(|expected| expected.job_ms());
            let usual = (self.config.retry_after_s, self.config.retry_after_max_s);
            retry_after_s(job_ms.map(|ms| ms / max as f64), usual)
        })
    }

    /// Refuses new jobs while too many records of earlier ones are unread.
    pub(crate) fn check_room(&self) -> Result<(), OverCapacity> {
        self.dev_capacity.as_ref().map_or(Ok(()), |capacity| capacity.check(Writes::NewJobs))
    }
}

fn no_room(full: &OverCapacity) -> Problem {
    let remediation = "Send the same request again after the time in `Retry-After`. Where it stays like this, \
                       something stands still: mend it, restart `meanwhile dev`, or set KAFKA_BROKERS to a real Kafka.";
    let detail = format!("No new jobs for the moment: {full}.");
    Problem::new(Kind::TemporaryReducedCapacity, detail).with_remediation(remediation).retry_after_s(1)
}
