//! The arguments of `meanwhile audit`.

use clap::Args;

use super::ApiArgs;

/// Which entries.
#[derive(Debug, Args)]
pub(crate) struct AuditArgs {
    /// Only by this subject, such as key:4f2a90c1d3e5b687
    #[arg(long)]
    pub(crate) subject: Option<String>,
    /// Only this action, such as job.cancel; job.submit shows who has submitted which job
    #[arg(long)]
    pub(crate) action: Option<String>,
    /// Only on this object: a job, an endpoint, a key, a flow
    #[arg(long)]
    pub(crate) object: Option<String>,
    /// Only at this time or later, such as 2026-01-05T09:30:00Z
    #[arg(long)]
    pub(crate) since: Option<String>,
    /// Only before this time
    #[arg(long)]
    pub(crate) until: Option<String>,
    /// So many at most
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub(crate) limit: u32,
    /// Show the API's answer in place of a table
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) api: ApiArgs,
}
