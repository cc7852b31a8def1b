//! The arguments of `meanwhile webhooks`.

use clap::{Args, Subcommand};

use super::ApiArgs;

/// `meanwhile webhooks ...`
#[derive(Debug, Subcommand)]
pub(crate) enum WebhooksCommand {
    /// List the endpoints, and how they do
    List {
        /// Show the API's answer in place of a table
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        api: ApiArgs,
    },
    /// Register an endpoint, and show its secret: this once
    #[command(
        after_help = "meanwhile webhooks create https://hooks.example.com/ --event job.failed --event job.parked"
    )]
    Create(CreateArgs),
    /// Give an endpoint another secret, and show it: this once
    Rotate {
        /// The endpoint's id
        id: String,
        /// The time for which the present secret signs too, up to 7d
        #[arg(long, default_value = "24h")]
        overlap: String,
        #[command(flatten)]
        api: ApiArgs,
    },
    /// Delete an endpoint; what has not been sent to it never is
    Delete(OneArgs),
    /// Send an endpoint a delivery that tells of nothing
    Ping(OneArgs),
    /// Let deliveries to an endpoint go on that was disabled
    Enable(OneArgs),
    /// List deliveries, newest first
    Deliveries(DeliveriesArgs),
    /// Send one delivery once more
    Resend(OneArgs),
    /// Send once more what was given up since a time
    Recover {
        /// The endpoint's id
        id: String,
        /// The time, such as 2026-01-05T09:30:00Z
        #[arg(long)]
        since: String,
        #[command(flatten)]
        api: ApiArgs,
    },
}

/// An endpoint to be registered.
#[derive(Debug, Args)]
pub(crate) struct CreateArgs {
    /// The URL of the receiver
    #[arg(value_hint = clap::ValueHint::Url)]
    pub(crate) receiver: String,
    /// A type of event (job.failed), a group (job.*) or *; may be repeated. Without it: the ends of jobs
    #[arg(long)]
    pub(crate) event: Vec<String>,
    /// What it is for
    #[arg(long, default_value = "")]
    pub(crate) description: String,
    /// Send it so many deliveries a second at most
    #[arg(long, value_name = "DELIVERIES", value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub(crate) rate: Option<u32>,
    /// Sign with ed25519, so that a public key checks signatures, in place of a shared secret
    #[arg(long)]
    pub(crate) ed25519: bool,
    #[command(flatten)]
    pub(crate) api: ApiArgs,
}

/// One endpoint or delivery.
#[derive(Debug, Args)]
pub(crate) struct OneArgs {
    /// Its id
    pub(crate) id: String,
    #[command(flatten)]
    pub(crate) api: ApiArgs,
}

/// Which deliveries.
#[derive(Debug, Args)]
pub(crate) struct DeliveriesArgs {
    /// Only to this endpoint
    #[arg(long)]
    pub(crate) endpoint: Option<String>,
    /// Only about this job
    #[arg(long)]
    pub(crate) job: Option<String>,
    /// Only with this status: pending, delivered or failed
    #[arg(long)]
    pub(crate) status: Option<String>,
    /// So many at most
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=200))]
    pub(crate) limit: u32,
    /// Show the API's answer in place of a table
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) api: ApiArgs,
}
