//! The command line: commands, their arguments, their help.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

pub(crate) mod breakers;
pub(crate) mod dead_letters;
pub(crate) mod jobs;

use self::breakers::BreakersCommand;
use self::dead_letters::DeadLettersCommand;
use self::jobs::JobsCommand;

/// Turns slow HTTP calls into reliable asynchronous APIs, over the Kafka and the Postgres that you already run.
///
/// A flow in YAML declares the steps. A caller gets `202 Accepted` at once. The job then runs to its end through
/// crashes, retries and rebalances, or is undone step by step.
#[derive(Debug, Parser)]
#[command(
    name = "meanwhile",
    version,
    after_help = "Start here:  meanwhile dev flows/     everything on this machine, nothing to install but Postgres\n\
                  \x20            meanwhile flows lint flows/\n\
                  \x20            meanwhile submit order --input @order.json --follow\n\n\
                  On servers:  meanwhile migrate, then meanwhile all, or one process per role: ingest, relay,\n\
                  \x20            workers, orchestrator, notifier\n\n\
                  Settings come from the environment (DATABASE_URL, KAFKA_BROKERS, ...) or the file that\n\
                  MEANWHILE_CONFIG names; `meanwhile config` shows them all."
)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// The subcommands.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Role: accept jobs over HTTP and from Kafka, and answer requests for their status
    Ingest,
    /// Role: move outbox rows from Postgres into Kafka, in commit order, exactly once
    Relay(RelayArgs),
    /// Role: run the steps of jobs
    Workers,
    /// Role: wait for retries that are due later; keep parked jobs, dead letters and the history of jobs
    Orchestrator,
    /// Role: follow the events of jobs
    Notifier,
    /// Run every role in this process, on the Kafka, the registry and the Postgres of the settings
    All,
    /// Try Meanwhile on this machine: every role, a broker, a registry and a Postgres in one process
    ///
    /// Flows are read again when a file in the folder changes. Nothing is kept after the process has ended, unless
    /// KAFKA_BROKERS, SCHEMA_REGISTRY_URL or DATABASE_URL names a server of your own.
    Dev(DevArgs),
    /// Prepare Kafka, the registry and Postgres, and apply the flows of MEANWHILE_FLOWS. Safe to repeat
    Migrate(MigrateArgs),
    /// Show every setting, its value and its source (secrets are hidden)
    Config,
    /// Ask a role on this machine whether it is ready; the exit code is 0 when it is
    Healthcheck(HealthcheckArgs),
    /// Check, compare or apply flow definitions; see how their jobs do
    #[command(subcommand)]
    Flows(FlowsCommand),
    /// Submit a job over HTTP
    Submit(SubmitArgs),
    /// List jobs, show and watch one, retry one
    #[command(subcommand)]
    Jobs(JobsCommand),
    /// List dead letters and parked jobs, send them back, drop them
    #[command(subcommand)]
    DeadLetters(DeadLettersCommand),
    /// List the breakers of downstreams, open and close them
    #[command(subcommand)]
    Breakers(BreakersCommand),
    /// Mend what stands in the way of a topic's readers
    #[command(subcommand)]
    Topics(TopicsCommand),
    /// Show the records of a topic, decoded, one JSON object a line
    Tail(TailArgs),
    /// Write a script by which a shell completes this command line
    #[command(after_help = "bash:  source <(meanwhile completion bash)\n\
                            zsh:   meanwhile completion zsh > \"${fpath[1]}/_meanwhile\"\n\
                            fish:  meanwhile completion fish > ~/.config/fish/completions/meanwhile.fish")]
    Completion {
        /// The shell
        shell: Shell,
    },
}

/// `meanwhile completion`
#[derive(Debug, Clone, Copy, ValueEnum)]
pub(crate) enum Shell {
    Bash,
    Zsh,
    Fish,
}

/// `meanwhile relay`
#[derive(Debug, Args)]
pub(crate) struct RelayArgs {
    #[command(subcommand)]
    pub(crate) command: Option<RelayCommand>,
}

/// `meanwhile relay ...`
#[derive(Debug, Subcommand)]
pub(crate) enum RelayCommand {
    /// After a failover, a restore or a lost slot: send what Kafka lacks of the outbox, and let the relays go on
    #[command(
        after_help = "Compares the outbox with what the relay's positions on Kafka name, makes the slot anew, and\n\
                            sends what is missing, in order. Relays may be up: they wait. If it is cut off, run it\n\
                            again. The exit code is 0 when the relays can go on (or, with --dry-run, could)."
    )]
    Recover(RecoverArgs),
}

/// `meanwhile relay recover`
#[derive(Debug, Args)]
pub(crate) struct RecoverArgs {
    /// Say what would be done, and do nothing
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Compare even where the relay can go on by itself: the publication may have left rows out
    #[arg(long)]
    pub(crate) force: bool,
    /// The answer for rows of a time of which Kafka does not name all that it was given
    #[arg(long, value_name = "ANSWER")]
    pub(crate) older: Option<OlderRows>,
}

/// `--older`
#[derive(Debug, Clone, Copy, ValueEnum)]
pub(crate) enum OlderRows {
    /// They are on Kafka, or were
    Delivered,
    /// They never came to Kafka: send them
    Missing,
}

/// `meanwhile topics ...`
#[derive(Debug, Subcommand)]
pub(crate) enum TopicsCommand {
    /// Pass over a batch of records that cannot be read at all, for all of its readers
    #[command(
        after_help = "Refuses where the batch can be read. Its records are lost to the readers: a dead letter names\n\
                            the gap. Readers may run: they go on by themselves."
    )]
    Skip(SkipArgs),
}

/// `meanwhile topics skip`
#[derive(Debug, Args)]
pub(crate) struct SkipArgs {
    /// The topic's full name
    #[arg(long)]
    pub(crate) topic: String,
    /// The partition
    #[arg(long)]
    pub(crate) partition: i32,
    /// The offset at which readers stand, as readiness names it
    #[arg(long)]
    pub(crate) offset: i64,
    /// Say what would be done, and do nothing
    #[arg(long)]
    pub(crate) dry_run: bool,
}

/// `meanwhile dev`
#[derive(Debug, Args)]
pub(crate) struct DevArgs {
    /// The folder with the flow definitions (*.yaml)
    #[arg(default_value = "flows")]
    pub(crate) flows: PathBuf,
    /// The address of the API
    #[arg(long, default_value = "127.0.0.1:8080")]
    pub(crate) listen: String,
    /// The address of the broker, for kcat and other Kafka clients
    #[arg(long, default_value = "127.0.0.1:9092")]
    pub(crate) kafka_listen: String,
    /// The address of the schema registry
    #[arg(long, default_value = "127.0.0.1:8081")]
    pub(crate) registry_listen: String,
}

/// `meanwhile migrate`
#[derive(Debug, Args)]
pub(crate) struct MigrateArgs {
    /// Where Kafka has forgotten the workers' offsets, begin at the log's start; slips that had finished out of order
    /// run again
    #[arg(long)]
    pub(crate) offsets_from_log_start: bool,
    /// How relays read the outbox: changes what the first `migrate` chose. Relays may be up; the next one of them
    /// compares the outbox with what Kafka was given, and goes on
    #[arg(long, value_name = "WAY")]
    pub(crate) outbox_reader: Option<OutboxReader>,
}

/// `--outbox-reader`
#[derive(Debug, Clone, Copy, ValueEnum)]
pub(crate) enum OutboxReader {
    /// From Postgres' log, through a replication slot
    Logical,
    /// From the table, where Postgres allows no logical decoding
    Polling,
}

/// `meanwhile healthcheck`
#[derive(Debug, Args)]
pub(crate) struct HealthcheckArgs {
    /// The URL to ask; by default /readyz of the role that listens on MEANWHILE_LISTEN
    pub(crate) url: Option<String>,
    /// Ask whether the process is alive, even if a dependency is missing
    #[arg(long, conflicts_with = "url")]
    pub(crate) live: bool,
}

/// `meanwhile flows ...`
#[derive(Debug, Subcommand)]
pub(crate) enum FlowsCommand {
    /// Check definitions, and show each mistake with file, line and remedy
    Lint {
        /// Files or folders
        #[arg(required = true)]
        paths: Vec<PathBuf>,
    },
    /// Show the changes between two versions of flows, whether they break callers, and why
    #[command(
        override_usage = "meanwhile flows diff [OPTIONS] [OLD] <NEW>",
        after_help = "The exit code is 0 when nothing breaks callers, 1 when something does (or cannot be read).\n\n\
                      A change is breaking when a correct caller can notice it: an address, an accepted input, a\n\
                      field of the result or a step is gone, or a failure ends in another way. Changes of how a\n\
                      step works are not breaking: its calls, time-outs, retries, queue. Jobs under way stay on\n\
                      their version."
    )]
    Diff(DiffArgs),
    /// Walk every combination of outcomes of every step, and show what can go wrong, with the shortest story
    #[command(after_help = "The exit code is 0 when each flow is proved, 1 when something was found, 2 when a file\n\
                      cannot be used, 3 when a flow has more states than were to be visited. Nothing is\n\
                      called: no Kafka, no Postgres, no service.\n\n\
                      Steps succeed, are refused, cannot be reached, give no answer (and were done, or not),\n\
                      lose their output; workers stop, deadlines pass, jobs are cancelled, operators send\n\
                      parked jobs on. Found is: an effect that nobody undoes, an expression that cannot be\n\
                      evaluated, a step with `idempotent: false` that runs twice, a job that cannot end, a\n\
                      branch never taken.")]
    Prove(ProveArgs),
    /// Run the test cases that lie beside flows (order.test.yaml beside order.yaml)
    #[command(after_help = "The exit code is 0 when every case is as expected, 1 when one is not, 2 when a file\n\
                      cannot be used. Nothing is called, and no time passes: waits are skipped.")]
    Test(TestArgs),
    /// Make the definitions of a folder the active ones. Jobs under way stay on their version
    Apply {
        /// The folder
        folder: PathBuf,
    },
    /// Show how many jobs of a flow ended how lately, and how long they and their steps took
    Stats(StatsArgs),
}

/// `meanwhile flows stats`
#[derive(Debug, Args)]
pub(crate) struct StatsArgs {
    /// The flow's name
    pub(crate) flow: String,
    /// Of this time up to now, by whole minutes: 15m, 1h, ..., at most 24h
    #[arg(long, default_value = "1h")]
    pub(crate) window: String,
    /// Show it as the API sent it
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) api: ApiArgs,
}

/// `meanwhile flows diff`
#[derive(Debug, Args)]
pub(crate) struct DiffArgs {
    /// The old flows and the new ones, as files or folders. Given only the new flows, it compares them with the active
    /// ones in the database (DATABASE_URL)
    #[arg(required = true, num_args = 1..=2, value_name = "FLOWS")]
    pub(crate) paths: Vec<PathBuf>,
    /// Exit with 0 even if a change is breaking
    #[arg(long)]
    pub(crate) allow_breaking: bool,
}

/// `meanwhile flows prove`
#[derive(Debug, Args)]
pub(crate) struct ProveArgs {
    /// Files or folders
    #[arg(required = true)]
    pub(crate) paths: Vec<PathBuf>,
    /// An input that a caller may send, as JSON, to begin with; without one, the schema makes it
    #[arg(long, value_name = "FILE")]
    pub(crate) input: Vec<PathBuf>,
    /// Live with a finding: effect-stands:notify
    #[arg(long, value_name = "KIND:STEP")]
    pub(crate) accept: Vec<prove::Accepted>,
    /// Visit so many states of a flow at most
    #[arg(long, default_value_t = 500_000)]
    pub(crate) states_max: usize,
    /// Show the findings as JSON
    #[arg(long)]
    pub(crate) json: bool,
}

/// `meanwhile flows test`
#[derive(Debug, Args)]
pub(crate) struct TestArgs {
    /// Files with cases (*.test.yaml), or folders
    #[arg(required = true)]
    pub(crate) paths: Vec<PathBuf>,
    /// Run only cases whose names contain this text
    #[arg(long, value_name = "TEXT")]
    pub(crate) only: Option<String>,
}

/// The API to call.
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
    /// The input as JSON, @FILE, or - for standard input
    #[arg(long, short, default_value = "{}")]
    pub(crate) input: String,
    /// The Idempotency-Key: requests with the same key are one job
    #[arg(long)]
    pub(crate) key: Option<String>,
    /// Show the job's timeline until it ends; the exit code is 0 when the job succeeded
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
    /// Begin with the oldest record, not with the next one
    #[arg(long)]
    pub(crate) from_beginning: bool,
    /// End after this many records
    #[arg(long)]
    pub(crate) count: Option<usize>,
}
