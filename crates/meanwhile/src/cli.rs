//! The command line: commands, their arguments, their help.

use std::path::PathBuf;

use anyhow::Context;
use clap::{Args, Parser, Subcommand, ValueEnum};
use client::{Access, Client};

pub(crate) mod audit;
pub(crate) mod breakers;
pub(crate) mod dead_letters;
pub(crate) mod flags;
pub(crate) mod flows;
pub(crate) mod jobs;
pub(crate) mod keys;
pub(crate) mod tenants;
pub(crate) mod webhooks;

use self::audit::AuditArgs;
use self::breakers::BreakersCommand;
use self::dead_letters::DeadLettersCommand;
use self::flags::FlagsCommand;
use self::flows::FlowsCommand;
use self::jobs::{JobsCommand, SubmitArgs};
use self::keys::KeysCommand;
use self::tenants::TenantsCommand;
use self::webhooks::WebhooksCommand;

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
    /// Role: tell of jobs' events by webhooks
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
    /// Print the rights at Kafka that each role needs, as commands of kafka-acls
    Acls(AclsArgs),
    /// Ask a role on this machine whether it is ready; the exit code is 0 when it is
    Healthcheck(HealthcheckArgs),
    /// Check, compare or apply flow definitions; see how their jobs do
    #[command(subcommand)]
    Flows(FlowsCommand),
    /// Submit a job over HTTP, now or for later
    Submit(SubmitArgs),
    /// List jobs, show, watch, retry, cancel them, send them signals
    #[command(subcommand)]
    Jobs(JobsCommand),
    /// List dead letters and parked jobs, send them back, drop them
    #[command(subcommand)]
    DeadLetters(DeadLettersCommand),
    /// List the breakers of downstreams, open and close them
    #[command(subcommand)]
    Breakers(BreakersCommand),
    /// List and change which requests to flows' routes become jobs, and how they are answered; go back
    #[command(subcommand)]
    Flags(FlagsCommand),
    /// Register endpoints for webhooks; see what became of deliveries, send them once more
    #[command(subcommand)]
    Webhooks(WebhooksCommand),
    /// Make, list and revoke API keys
    #[command(subcommand)]
    Keys(KeysCommand),
    /// Set what holds for a tenant; export and delete all that belongs to one
    #[command(subcommand)]
    Tenants(TenantsCommand),
    /// Show the audit log: who has changed what
    Audit(AuditArgs),
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

/// `meanwhile acls`
#[derive(Debug, Args)]
pub(crate) struct AclsArgs {
    /// Only those of this role; `migrate` is the operator's
    #[arg(long, value_parser = ["ingest", "relay", "workers", "orchestrator", "notifier", "migrate"])]
    pub(crate) role: Option<String>,
    /// The roles' principals; {role} stands for the role
    #[arg(long, default_value = "User:meanwhile-{role}")]
    pub(crate) principal: String,
    /// A topic of a team's own from which jobs start. May be said more than once
    #[arg(long = "trigger-topic", value_name = "TOPIC")]
    pub(crate) trigger_topics: Vec<String>,
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

/// The API to call.
#[derive(Debug, Args)]
pub(crate) struct ApiArgs {
    /// The API's address
    #[arg(long, env = "MEANWHILE_URL", default_value = "http://127.0.0.1:8080")]
    pub(crate) url: String,
    /// The API key, or a token
    #[arg(long, env = "MEANWHILE_API_KEY", hide_env_values = true, value_name = "KEY")]
    pub(crate) api_key: Option<String>,
    /// The file of the API key, in place of --api-key
    #[arg(long, env = "MEANWHILE_API_KEY_FILE", value_name = "FILE")]
    api_key_file: Option<PathBuf>,
    /// The authorities (PEM) that the API's certificate may have, beside the system's own
    #[arg(long, env = "MEANWHILE_CA", value_name = "FILE")]
    ca: Option<PathBuf>,
    /// The certificate (PEM) of the caller, where the API asks for one
    #[arg(long, env = "MEANWHILE_CLIENT_CERTIFICATE", value_name = "FILE", requires = "client_key")]
    client_certificate: Option<PathBuf>,
    /// The key (PEM) of this certificate
    #[arg(long, env = "MEANWHILE_CLIENT_KEY", value_name = "FILE", requires = "client_certificate")]
    client_key: Option<PathBuf>,
}

impl ApiArgs {
    /// A client of this API, under this key.
    pub(crate) fn client(&self) -> anyhow::Result<Client> {
        let of_option = self.api_key.clone().filter(|key| !key.is_empty());
        let key = match (of_option, &self.api_key_file) {
            (None, Some(file)) => {
                let text = std::fs::read_to_string(file);
                Some(text.with_context(|| format!("the API key in {}", file.display()))?.trim().to_owned())
            }
            (of_option, _) => of_option,
        };
        let certificate = self.client_certificate.clone().zip(self.client_key.clone());
        Ok(Client::with_access(&self.url, &Access { key, authorities: self.ca.clone(), certificate })?)
    }
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
    /// For programs: documents with their bytes, not in words
    #[arg(long)]
    pub(crate) json: bool,
}
