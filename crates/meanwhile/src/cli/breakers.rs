//! The arguments of `meanwhile breakers`.

use clap::{Args, Subcommand};

use super::ApiArgs;

/// `meanwhile breakers ...`
#[derive(Debug, Subcommand)]
pub(crate) enum BreakersCommand {
    /// List every breaker that has ever opened
    List {
        /// Show the API's answer in place of a table
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        api: ApiArgs,
    },
    /// Call this downstream no more: its jobs wait, and lose no attempts
    Open(OrderArgs),
    /// Call it, however many calls fail
    Close(OrderArgs),
    /// Let its calls decide again
    Auto(OrderArgs),
}

/// Which breaker, and why.
#[derive(Debug, Args)]
pub(crate) struct OrderArgs {
    /// The downstream, as `list` tells it: a host with its port, or a step's `downstream`
    pub(crate) downstream: String,
    /// Why, for others
    #[arg(long)]
    pub(crate) reason: Option<String>,
    #[command(flatten)]
    pub(crate) api: ApiArgs,
}
