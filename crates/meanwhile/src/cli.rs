//! The command line, declared.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

/// Turns slow HTTP calls into reliable asynchronous APIs, over Kafka and Postgres.
#[derive(Debug, Parser)]
#[command(
    name = "meanwhile",
    version,
    about,
    after_help = "Start here:  meanwhile dev flows/     everything on this machine, nothing to install but Postgres\n\
                  \x20            meanwhile flows lint flows/\n\
                  \x20            meanwhile submit order --input @order.json --follow\n\n\
                  Settings come from the environment (DATABASE_URL, KAFKA_BROKERS, ...) or the file that\n\
                  MEANWHILE_CONFIG names; `meanwhile config` shows them all."
)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Take jobs in over HTTP and from the commands topic, and tell their status
    Ingest,
    /// Move outbox rows from Postgres into Kafka, in commit order, exactly once
    Relay,
    /// Run steps
    Workers,
    /// Keep holds, parked jobs, dead letters and the projection of jobs
    Orchestrator,
    /// Follow the events of jobs
    Notifier,
    /// Run every role in this process, against the Kafka, Postgres and registry of the settings
    All,
    /// Run every role in this process with a broker, a registry and a Postgres of its own. Nothing is kept
    Dev(DevArgs),
    /// Create topics, tables, roles, schemas and the replication slot; apply the flows of MEANWHILE_FLOWS
    Migrate,
    /// Show every setting, its value and where it comes from (secrets are hidden)
    Config,
    /// Ask the process of this container or machine whether it is ready; the exit code says it
    Healthcheck(HealthcheckArgs),
    /// Check, compare or apply flow definitions
    #[command(subcommand)]
    Flows(FlowsCommand),
    /// Submit a job over HTTP
    Submit(SubmitArgs),
    /// Look at jobs, and send them on
    #[command(subcommand)]
    Jobs(JobsCommand),
    /// Show the records of a topic, decoded, one JSON object a line
    Tail(TailArgs),
}

/// `meanwhile dev`
#[derive(Debug, Args)]
pub(crate) struct DevArgs {
    /// The folder of flow definitions
    #[arg(default_value = "flows")]
    pub(crate) flows: PathBuf,
    /// Where the API listens
    #[arg(long, default_value = "127.0.0.1:8080")]
    pub(crate) listen: String,
    /// Where kcat finds the broker
    #[arg(long, default_value = "127.0.0.1:9092")]
    pub(crate) kafka_listen: String,
    /// Where the schema registry listens
    #[arg(long, default_value = "127.0.0.1:8081")]
    pub(crate) registry_listen: String,
}

/// `meanwhile healthcheck`
#[derive(Debug, Args)]
pub(crate) struct HealthcheckArgs {
    /// What to ask; by default the readiness of the role that listens on MEANWHILE_LISTEN
    pub(crate) url: Option<String>,
    /// Whether it is alive, even if what it depends on is missing
    #[arg(long, conflicts_with = "url")]
    pub(crate) live: bool,
}

/// `meanwhile flows ...`
#[derive(Debug, Subcommand)]
pub(crate) enum FlowsCommand {
    /// Check definitions and say what is wrong, with file, line and remedy
    Lint {
        /// Files or folders
        #[arg(required = true)]
        paths: Vec<PathBuf>,
    },
    /// Say what changed between two versions of flows, whether it breaks their callers, and why
    #[command(
        override_usage = "meanwhile flows diff [OPTIONS] [OLD] <NEW>",
        after_help = "The exit code is 0 when nothing breaks callers, 1 when something does (or cannot be read).\n\n\
                      Breaking is what callers may notice who did everything right before: an address, an accepted\n\
                      input, a field of the result or a step that is gone, or a failure that ends in another way.\n\
                      Not breaking is how a step works: what it calls, time-outs, retries, queues. Jobs under way\n\
                      stay on their version."
    )]
    Diff(DiffArgs),
    /// Make the definitions of a folder the active ones; jobs under way stay on their version
    Apply {
        /// The folder
        folder: PathBuf,
    },
}

/// `meanwhile flows diff`
#[derive(Debug, Args)]
pub(crate) struct DiffArgs {
    /// Files or folders: the old flows and the new ones; or the new ones alone, to be compared with the active
    /// versions in the database (DATABASE_URL), where flows that are not among them stay as they are
    #[arg(required = true, num_args = 1..=2, value_name = "FLOWS")]
    pub(crate) paths: Vec<PathBuf>,
    /// Breaking changes are told as such, and the exit code is 0 all the same
    #[arg(long)]
    pub(crate) allow_breaking: bool,
}

/// Where the API is.
#[derive(Debug, Args)]
pub(crate) struct ApiArgs {
    /// The API's address
    #[arg(long, env = "MEANWHILE_URL", default_value = "http://127.0.0.1:8080")]
    pub(crate) url: String,
}

/// `meanwhile submit`
#[derive(Debug, Args)]
pub(crate) struct SubmitArgs {
    /// The flow's name
    pub(crate) flow: String,
    /// The input: JSON, @FILE, or - for standard input
    #[arg(long, short, default_value = "{}")]
    pub(crate) input: String,
    /// The Idempotency-Key: the same key twice is one job
    #[arg(long)]
    pub(crate) key: Option<String>,
    /// Show the job's timeline until it ends; the exit code is 0 when it succeeded
    #[arg(long, short)]
    pub(crate) follow: bool,
    #[command(flatten)]
    pub(crate) api: ApiArgs,
}

/// `meanwhile jobs ...`
#[derive(Debug, Subcommand)]
pub(crate) enum JobsCommand {
    /// Show one job and its timeline
    Show(ShowArgs),
    /// Send a parked job on from where it stopped, or start a finished one anew as another job
    Retry(RetryArgs),
}

/// `meanwhile jobs show`
#[derive(Debug, Args)]
pub(crate) struct ShowArgs {
    /// The job's id
    pub(crate) job: String,
    /// Stay until it ends; the exit code is 0 when it succeeded
    #[arg(long, short)]
    pub(crate) follow: bool,
    /// The status document instead of the timeline
    #[arg(long, conflicts_with = "follow")]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) api: ApiArgs,
}

/// `meanwhile jobs retry`
#[derive(Debug, Args)]
pub(crate) struct RetryArgs {
    /// The job's id
    pub(crate) job: String,
    /// The Idempotency-Key: the same key twice starts a finished job anew once
    #[arg(long)]
    pub(crate) key: Option<String>,
    /// Show the timeline of the job that runs now until it ends; the exit code is 0 when it succeeded
    #[arg(long, short)]
    pub(crate) follow: bool,
    #[command(flatten)]
    pub(crate) api: ApiArgs,
}

/// `meanwhile tail`
#[derive(Debug, Args)]
pub(crate) struct TailArgs {
    /// The topic, such as meanwhile.events
    pub(crate) topic: String,
    /// Show what is there already, too
    #[arg(long)]
    pub(crate) from_beginning: bool,
    /// End after so many records
    #[arg(long)]
    pub(crate) count: Option<usize>,
}
