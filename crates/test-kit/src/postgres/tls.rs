//! A cluster that is reached by TLS alone.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use anyhow::{Context, Result};

use super::give_to_server_user;
use crate::certificates::Leaf;

/// Who may connect over TCP: whoever speaks TLS.
const CLIENTS: &str = "local all all trust\nhostssl all all 127.0.0.1/32 trust\nhostssl all all ::1/128 trust\n";

/// TLS of a private cluster.
#[derive(Debug, Clone)]
pub struct PostgresTls {
    /// The server's certificate.
    pub leaf: Leaf,
    /// What its URLs end with, such as `sslmode=verify-full&sslrootcert=FILE`.
    pub query: String,
}

impl PostgresTls {
    /// Puts the files into the data folder; the settings that name them.
    pub(super) fn install(&self, data: &Path) -> Result<Vec<(String, String)>> {
        fs::write(data.join("pg_hba.conf"), CLIENTS).context("pg_hba.conf")?;
        for (from, name) in [(&self.leaf.certificate, "server.crt"), (&self.leaf.key, "server.key")] {
            let file = data.join(name);
            fs::copy(from, &file).with_context(|| format!("copying {}", from.display()))?;
            fs::set_permissions(&file, Permissions::from_mode(0o600)).context("hiding a key")?;
            give_to_server_user(&file)?;
        }
        Ok(vec![("ssl".to_owned(), "on".to_owned())])
    }
}
