//! The arguments of `meanwhile jobs`.

use clap::builder::{PossibleValuesParser, TypedValueParser as _};
use clap::{Args, Subcommand};
use client::{Callback, JobChoice, Secret, Start, Terms};
use flow::event::JobStatus;

use super::ApiArgs;

/// The exit codes of every command that follows a job.
pub(crate) const EXIT_CODES: &str = "The exit code is 0 when the job succeeded, 1 when it failed (or cannot be read), \
                                     3 when it\nwas cancelled, 4 when it waits for an operator.";

/// The states that a choice may name.
fn statuses() -> impl clap::builder::TypedValueParser<Value = String> {
    PossibleValuesParser::new(JobStatus::ALL.iter().map(JobStatus::as_str)).map(|status| status)
}

/// `meanwhile submit`
#[derive(Debug, Args)]
#[command(after_help = "Examples:  meanwhile submit order --input @order.json --follow\n\
                        \x20          meanwhile submit order --input @order.json --wait 30s\n\
                        \x20          meanwhile submit order --input @order.json --delay 15m\n\n\
                        With --follow or --wait the exit code is 0 when the job succeeded, 1 when it failed, 3 when\n\
                        it was cancelled, 4 when it waits for an operator, 5 when the time of --wait was over first.")]
pub(crate) struct SubmitArgs {
    /// The flow's name
    pub(crate) flow: String,
    /// The input as JSON, @FILE, or - for standard input
    #[arg(long, short, default_value = "{}")]
    pub(crate) input: String,
    /// The Idempotency-Key: requests with the same key are one job
    #[arg(long)]
    pub(crate) key: Option<String>,
    /// Start so much later: 90s, 15m, 2h, 7d
    #[arg(long, value_name = "WHILE", conflicts_with = "start_at")]
    pub(crate) delay: Option<String>,
    /// Start then: 2027-01-05T09:30:00Z
    #[arg(long, value_name = "TIME")]
    pub(crate) start_at: Option<String>,
    /// Tell this URL of the job by webhooks
    #[arg(long, value_name = "URL")]
    pub(crate) callback_url: Option<String>,
    /// Sign these webhooks with this secret (`whsec_...`)
    #[arg(long, env = "MEANWHILE_CALLBACK_SECRET", hide_env_values = true, value_name = "SECRET")]
    pub(crate) callback_secret: Option<String>,
    /// Tell of this event, or this group of events: job.failed, step.*; several by repeating it
    #[arg(long = "callback-event", value_name = "EVENT", requires = "callback_url")]
    pub(crate) callback_events: Vec<String>,
    /// Show the job's timeline until it ends
    #[arg(long, short, conflicts_with = "wait")]
    pub(crate) follow: bool,
    /// Wait so long at most for the job's end, and show its result: 30s, 5m
    #[arg(long, value_name = "WHILE")]
    pub(crate) wait: Option<String>,
    /// Show JSON: the job; with --follow a line for each event, and the status; with --wait the status
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) api: ApiArgs,
}

impl SubmitArgs {
    pub(crate) fn terms(&self) -> Terms<'_> {
        let start = match (&self.delay, &self.start_at) {
            (Some(delay), _) => Start::After(delay.clone()),
            (None, Some(instant)) => Start::At(instant.clone()),
            (None, None) => Start::Now,
        };
        let callback = self.callback_url.clone().map(|url| Callback {
            url,
            secret: self.callback_secret.clone().map(Secret),
            events: self.callback_events.clone(),
        });
        Terms { key: self.key.as_deref(), start, callback }
    }
}

/// `meanwhile jobs ...`
#[derive(Debug, Subcommand)]
pub(crate) enum JobsCommand {
    /// List them, newest first
    List(ListArgs),
    /// Show one job and its timeline
    Show(ShowArgs),
    /// Follow one job to its end, a line for each thing that happens
    #[command(after_help = EXIT_CODES)]
    Watch(WatchArgs),
    /// Let a parked or waiting job go on from where it stopped, or start a finished one anew as another job; or all
    /// that a choice names
    Retry(RetryArgs),
    /// Send a job the signal that one of its steps waits for
    Signal(SignalArgs),
    /// Cancel a job, or all that a choice names: what they have done is undone
    Cancel(CancelArgs),
}

/// `meanwhile jobs list`
#[derive(Debug, Args)]
#[command(after_help = "Examples:  meanwhile jobs list --status failed,needs_attention --since 2h\n\
                        \x20          meanwhile jobs list --key customer-7 --json")]
pub(crate) struct ListArgs {
    /// Of this flow
    #[arg(long)]
    pub(crate) flow: Option<String>,
    /// In this status, or in one of several, with commas between them
    #[arg(long, value_delimiter = ',', value_parser = statuses())]
    pub(crate) status: Vec<String>,
    /// With this ordering key
    #[arg(long)]
    pub(crate) key: Option<String>,
    /// With this correlation id
    #[arg(long)]
    pub(crate) correlation_id: Option<String>,
    /// Accepted from this time on: 2026-01-05T09:30:00Z, or 15m, 2h, 7d ago
    #[arg(long)]
    pub(crate) since: Option<String>,
    /// Accepted before this time
    #[arg(long)]
    pub(crate) until: Option<String>,
    /// Only those that make no progress, although nothing that they wait for is known
    #[arg(long)]
    pub(crate) stuck: bool,
    /// At most so many
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub(crate) limit: u32,
    /// Go on where an earlier list ended: it tells the cursor
    #[arg(long)]
    pub(crate) cursor: Option<String>,
    /// Show JSON in place of a table
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) api: ApiArgs,
}

/// Jobs of one request.
pub(crate) const PAGE: u32 = 100;
/// The arguments that choose jobs in place of the id of one.
const CHOICE: [&str; 7] = ["flow", "status", "ordering_key", "correlation_id", "since", "until", "stuck"];

/// All the jobs of a choice, in place of one.
#[derive(Debug, Args)]
#[command(next_help_heading = "Many jobs, in place of one")]
pub(crate) struct BulkArgs {
    /// Of this flow
    #[arg(long)]
    flow: Option<String>,
    /// In this status, or in one of several; without it, those that the command is made for
    #[arg(long, value_delimiter = ',', value_parser = statuses())]
    status: Vec<String>,
    /// With this ordering key
    #[arg(long, value_name = "KEY")]
    ordering_key: Option<String>,
    /// With this correlation id
    #[arg(long)]
    correlation_id: Option<String>,
    /// Accepted from this time on: 2026-01-05T09:30:00Z, or 15m, 2h, 7d ago
    #[arg(long)]
    since: Option<String>,
    /// Accepted before this time
    #[arg(long)]
    until: Option<String>,
    /// Only those that make no progress, although nothing that they wait for is known
    #[arg(long)]
    stuck: bool,
    /// So many per second at most
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub(crate) rate: u32,
    /// Say how many there are, and do nothing
    #[arg(long, conflicts_with = "job")]
    pub(crate) dry_run: bool,
}

impl BulkArgs {
    /// `time` reads a time as people write it.
    pub(crate) fn choice(&self, time: impl Fn(&str) -> anyhow::Result<String>) -> anyhow::Result<JobChoice> {
        Ok(JobChoice {
            flow: self.flow.clone(),
            status: (!self.status.is_empty()).then(|| self.status.join(",")),
            key: self.ordering_key.clone(),
            correlation_id: self.correlation_id.clone(),
            since: self.since.as_deref().map(&time).transpose()?,
            until: self.until.as_deref().map(&time).transpose()?,
            stuck: self.stuck,
        })
    }
}

/// `meanwhile jobs cancel`
#[derive(Debug, Args)]
#[command(after_help = "Examples:  meanwhile jobs cancel ID --reason 'ordered twice'\n\
                        \x20          meanwhile jobs cancel --flow order --status waiting --since 2h --dry-run\n\
                        The same command again goes on where an earlier one was cut off.")]
pub(crate) struct CancelArgs {
    /// The job's id
    #[arg(required_unless_present_any = CHOICE, conflicts_with_all = CHOICE)]
    pub(crate) job: Option<String>,
    #[command(flatten)]
    pub(crate) bulk: BulkArgs,
    /// The reason, for those who look at the job later
    #[arg(long)]
    pub(crate) reason: Option<String>,
    /// Show the timeline of the job until it ends; the exit code is 0 when it was cancelled, 4 when it waits for an
    /// operator, 1 otherwise
    #[arg(long, short, requires = "job")]
    pub(crate) follow: bool,
    /// Show JSON: the job, or how many; with --follow a line for each event, and the status
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) api: ApiArgs,
}

/// `meanwhile jobs signal`
#[derive(Debug, Args)]
pub(crate) struct SignalArgs {
    /// The job's id
    pub(crate) job: String,
    /// The signal's name
    pub(crate) name: String,
    /// Its payload as JSON, @FILE, or - for standard input; without it there is none
    pub(crate) payload: Option<String>,
    /// The Idempotency-Key: requests with the same key are one signal
    #[arg(long)]
    pub(crate) key: Option<String>,
    /// Show JSON: the job, and whether the signal was sent before
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) api: ApiArgs,
}

/// `meanwhile jobs watch`
#[derive(Debug, Args)]
pub(crate) struct WatchArgs {
    /// The job's id
    pub(crate) job: String,
    /// Show JSON: a line for each event, and the status in the last one
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) api: ApiArgs,
}

/// `meanwhile jobs show`
#[derive(Debug, Args)]
pub(crate) struct ShowArgs {
    /// The job's id
    pub(crate) job: String,
    /// Stay until the job ends; the exit code then is that of `jobs watch`
    #[arg(long, short)]
    pub(crate) follow: bool,
    /// Show the status as JSON in place of the timeline
    #[arg(long, conflicts_with = "follow")]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) api: ApiArgs,
}

/// `meanwhile jobs retry`
#[derive(Debug, Args)]
#[command(after_help = "Where a job is parked because nobody knows how a step has ended, find out, and say it:\n\
                        \x20          meanwhile jobs retry ID --succeeded '{\"id\": \"C-1\"}'\n\
                        \x20          meanwhile jobs retry ID --failed\n\
                        Without either the step is run once more.\n\
                        Where it is parked because a step cannot be undone, undo it by hand, and say so:\n\
                        \x20          meanwhile jobs retry ID --undone --reason 'refunded in the till, ticket 17'\n\
                        All that a choice names, the parked ones unless it says another status:\n\
                        \x20          meanwhile jobs retry --flow order --since 2h --rate 20")]
pub(crate) struct RetryArgs {
    /// The job's id
    #[arg(required_unless_present_any = CHOICE, conflicts_with_all = CHOICE)]
    pub(crate) job: Option<String>,
    #[command(flatten)]
    pub(crate) bulk: BulkArgs,
    /// The Idempotency-Key: requests with the same key start a finished job anew once
    #[arg(long)]
    pub(crate) key: Option<String>,
    /// The step that the job is parked at was done, with this output: JSON, @FILE, or - for standard input
    #[arg(long, value_name = "OUTPUT", conflicts_with_all = ["key", "failed"], requires = "job")]
    pub(crate) succeeded: Option<String>,
    /// The step that the job is parked at was not done
    #[arg(long, conflicts_with = "key", requires = "job")]
    pub(crate) failed: bool,
    /// The step that the job is parked at, on its way back, was undone by hand
    #[arg(long, conflicts_with_all = ["key", "failed", "succeeded"], requires_all = ["job", "reason"])]
    pub(crate) undone: bool,
    /// How and by whom it was undone, for those who look at the job later
    #[arg(long, value_name = "TEXT", requires = "undone")]
    pub(crate) reason: Option<String>,
    /// Show the timeline of the job that runs now until it ends; the exit code then is that of `jobs watch`
    #[arg(long, short, requires = "job")]
    pub(crate) follow: bool,
    /// Show JSON: the job that runs now, or how many; with --follow a line for each event, and the status
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) api: ApiArgs,
}
