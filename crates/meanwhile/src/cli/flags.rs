//! The arguments of `meanwhile flags`.

use clap::{Args, Subcommand};

use super::ApiArgs;

/// `meanwhile flags ...`
#[derive(Debug, Subcommand)]
pub(crate) enum FlagsCommand {
    /// List the flags of every flow with a route, and what holds because of them
    List {
        /// Show the API's answer in place of a table
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        api: ApiArgs,
    },
    /// Change a flow's flags; what is not named stays as it is
    #[command(after_help = "meanwhile flags set order --percent 25 --reason 'second step'\n\
                            meanwhile flags set order --percent 0 --allow c-7 --reason 'one first'")]
    Set(SetArgs),
    /// Show every version of a flow's flags, with who, when and why
    History {
        /// The flow
        flow: String,
        /// Show the API's answer in place of a table
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        api: ApiArgs,
    },
    /// Go back to an earlier version of a flow's flags, at once
    Rollback(RollbackArgs),
}

/// Which flags, and why.
#[derive(Debug, Args)]
pub(crate) struct SetArgs {
    /// The flow
    pub(crate) flow: String,
    /// The part of the requests that become jobs, from 0 to 100, with at most two decimals
    #[arg(long)]
    pub(crate) percent: Option<f64>,
    /// The value that decides about a request: key, tenant or header:<name>
    #[arg(long)]
    pub(crate) by: Option<String>,
    /// A value whose requests always become jobs; may be repeated, and replaces the list
    #[arg(long)]
    pub(crate) allow: Vec<String>,
    /// A value whose requests never become jobs; may be repeated, and replaces the list
    #[arg(long)]
    pub(crate) deny: Vec<String>,
    /// The form of answers: async, sync or auto
    #[arg(long)]
    pub(crate) answer: Option<String>,
    /// The longest time until a synchronous answer begins, such as 30s
    #[arg(long)]
    pub(crate) hold: Option<String>,
    /// auto: the longest time that a job may be expected to take where the answer is its outcome
    #[arg(long)]
    pub(crate) latency_budget: Option<String>,
    /// A caller that understands 202; may be repeated, and replaces the list
    #[arg(long)]
    pub(crate) async_client: Vec<String>,
    /// Take all flags from this file (JSON), in place of the present ones
    #[arg(long, value_hint = clap::ValueHint::FilePath)]
    pub(crate) file: Option<std::path::PathBuf>,
    /// Why, for others
    #[arg(long)]
    pub(crate) reason: String,
    #[command(flatten)]
    pub(crate) api: ApiArgs,
}

/// Which version, and why.
#[derive(Debug, Args)]
pub(crate) struct RollbackArgs {
    /// The flow
    pub(crate) flow: String,
    /// The version, as `history` tells it; 0: no flags. Without it the one before the present one
    #[arg(long)]
    pub(crate) to: Option<i64>,
    /// Why, for others
    #[arg(long)]
    pub(crate) reason: String,
    #[command(flatten)]
    pub(crate) api: ApiArgs,
}
