//! The arguments of `meanwhile keys`.

use clap::{Args, Subcommand};

use super::ApiArgs;

/// `meanwhile keys ...`
#[derive(Debug, Subcommand)]
pub(crate) enum KeysCommand {
    /// List the tenant's keys, and when they were used last
    List {
        /// Show the API's answer in place of a table
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        api: ApiArgs,
    },
    /// Make a key, and show it: this once
    #[command(after_help = "The first key of a tenant is made in the database, where DATABASE_URL leads (the audit\n\
                            log also needs SCHEMA_REGISTRY_URL):\n  \
                            meanwhile keys create admin --bootstrap --scope operate --scope jobs:submit\n\
                            Its holder (MEANWHILE_API_KEY) makes further ones:\n  \
                            meanwhile keys create shop --scope jobs:submit")]
    Create(CreateArgs),
    /// Revoke a key: it opens nothing any more, at any instance within a second
    Revoke {
        /// The key's id, as `list` tells it
        id: String,
        #[command(flatten)]
        api: ApiArgs,
    },
}

/// The key to be made.
#[derive(Debug, Args)]
pub(crate) struct CreateArgs {
    /// Its purpose, for people
    pub(crate) name: String,
    /// A right of its holder: jobs:submit, jobs:read, jobs:cancel or operate; may be repeated
    #[arg(long = "scope", value_name = "SCOPE", required = true)]
    pub(crate) scopes: Vec<String>,
    /// The life of the key, such as 12h or 90d; without it, it has no end
    #[arg(long, value_name = "TIME")]
    pub(crate) expires_in: Option<String>,
    /// Write it to the database of DATABASE_URL, without asking the API: for the first key of a tenant
    #[arg(long)]
    pub(crate) bootstrap: bool,
    /// The tenant of the key
    #[arg(long, default_value = "default", requires = "bootstrap")]
    pub(crate) tenant: String,
    /// Take this key, in place of a new one; nothing happens where it is there already
    #[arg(long, env = "MEANWHILE_BOOTSTRAP_KEY", hide_env_values = true, requires = "bootstrap")]
    pub(crate) key: Option<String>,
    #[command(flatten)]
    pub(crate) api: ApiArgs,
}
