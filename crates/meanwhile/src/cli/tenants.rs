//! The arguments of `meanwhile tenants`.

use clap::{Args, Subcommand};

/// `meanwhile tenants ...`
#[derive(Debug, Subcommand)]
#[command(after_help = "These commands go into the database, where DATABASE_URL leads, and write to the audit log.")]
pub(crate) enum TenantsCommand {
    /// List the tenants for which something is set
    List,
    /// Set for how long a tenant's jobs are kept after their ends
    #[command(after_help = "Of a tenant's time and a flow's (`retention`) the shorter one counts, and either counts \
                            before the\ndeployment's (keep_jobs_d).")]
    Set {
        /// The tenant
        tenant: String,
        /// A time such as 12h or 90d, 1h at least; `default`: as flow and deployment say
        #[arg(long, value_name = "TIME")]
        keep: String,
    },
    /// Refuse all requests of a tenant (403), and revoke its keys; its jobs go on
    Disable {
        /// The tenant
        tenant: String,
    },
    /// Take requests of a tenant again; its keys stay revoked
    Enable {
        /// The tenant
        tenant: String,
    },
    /// Write all that the database has of a tenant, as lines of JSON, but for secrets
    #[command(after_help = "meanwhile tenants export acme > acme.jsonl\n\
                            Each table is told as it is at one moment. Documents stay where they are: see the store\n\
                            of documents.")]
    Export {
        /// The tenant
        tenant: String,
    },
    /// Delete all that the database has of a tenant, but for the audit log
    #[command(after_help = "The tenant is disabled, its jobs are cancelled, and once all have ended or wait for an \
                            operator, all goes.\nIf it is cut off, run it again: it goes on. Kafka's records go by \
                            their retention, documents within two days.")]
    Delete(DeleteArgs),
}

/// `meanwhile tenants delete`
#[derive(Debug, Args)]
pub(crate) struct DeleteArgs {
    /// The tenant
    pub(crate) tenant: String,
    /// Do not ask
    #[arg(long)]
    pub(crate) yes: bool,
    /// The longest time to wait for the ends of jobs
    #[arg(long, value_name = "TIME", default_value = "10m")]
    pub(crate) wait: String,
}
