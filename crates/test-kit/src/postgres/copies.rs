//! Base backups and standbys of a private cluster, and what takes its place after a restore or a failover.

use std::fs;

use anyhow::{Context, Result};

use super::{Postgres, PostgresOptions, READY_WITHIN, as_server_user, psql, settings};
use crate::folder::DataFolder;
use crate::port::Port;
use crate::tool::run;

/// A base backup: the cluster as it was at the backup's end, without its slots.
#[derive(Debug)]
pub struct Backup(DataFolder);

impl Postgres {
    /// Takes a base backup, under load or not.
    pub async fn base_backup(&self) -> Result<Backup> {
        self.copy(&[]).await
    }

    async fn copy(&self, more: &[&str]) -> Result<Backup> {
        let folder = DataFolder::new("backup")?;
        let mut backup = as_server_user(&self.programs.join("pg_basebackup"), folder.path())?;
        backup.args(["-h", "127.0.0.1", "-p", &self.port.number().to_string(), "-U", "postgres"]);
        backup.args(["--checkpoint=fast", "--no-sync", "--wal-method=stream", "-D"]).arg(folder.path().join("data"));
        backup.args(more);
        tokio::task::spawn_blocking(move || run(&mut backup)).await.context("pg_basebackup")??;
        Ok(Backup(folder))
    }

    /// Loses the cluster, and serves what the backup holds, at the same address.
    pub async fn restore(&mut self, backup: Backup) -> Result<()> {
        self.kill9();
        let data = self.folder.path().join("data");
        fs::remove_dir_all(&data).context("the lost data")?;
        fs::rename(backup.0.path().join("data"), &data).context("the backup")?;
        self.restart().await
    }

    /// A standby that streams from this cluster. Synchronous: a commit waits for it.
    pub async fn standby(&self, synchronous: bool) -> Result<Self> {
        let backup = self.copy(&["--write-recovery-conf"]).await?;
        let mut settings = settings(&PostgresOptions::default());
        // The name that its stream has, too. `*` would take the relay's stream for a standby.
        settings.push(("cluster_name".to_owned(), "standby".to_owned()));
        // For slots that come to it later.
        settings.push(("wal_keep_size".to_owned(), "1GB".to_owned()));
        let mut standby = Self::serve(self.programs.clone(), Port::take()?, backup.0, settings).await?;
        let (url, mut wanted) = (self.url("postgres"), "streaming async");
        if synchronous {
            psql(&url, "alter system set synchronous_standby_names = 'standby'")?;
            psql(&url, "select pg_reload_conf()")?;
            wanted = "streaming sync";
        }
        let state = "select state || ' ' || sync_state from pg_stat_replication where application_name = 'standby'";
        let streams = async || psql(&url, state).is_ok_and(|state| state == wanted);
        standby.process.wait_until(READY_WITHIN, "the standby streams", streams).await?;
        Ok(standby)
    }

    /// Cuts the standby's stream: it hears no more of its primary.
    pub async fn cut_off(&mut self) -> Result<()> {
        let url = self.url("postgres");
        psql(&url, "alter system set primary_conninfo = ''")?;
        psql(&url, "select pg_reload_conf()")?;
        let count = "select count(*) from pg_stat_wal_receiver";
        let alone = async || psql(&url, count).is_ok_and(|count| count == "0");
        self.process.wait_until(READY_WITHIN, "the standby is cut off", alone).await
    }

    /// Loses the primary and promotes its standby, which serves at the primary's address from then on.
    pub async fn fail_over(&mut self, standby: Self) -> Result<()> {
        self.fail_over_with(standby, false).await
    }

    /// The same with the slots, as Postgres 17 keeps those that are made for failover, and others by an extension.
    pub async fn fail_over_with_slots(&mut self, standby: Self) -> Result<()> {
        self.fail_over_with(standby, true).await
    }

    async fn fail_over_with(&mut self, mut standby: Self, slots: bool) -> Result<()> {
        self.kill9();
        // It may have been paused, so that it did not hear the last of its primary.
        standby.resume();
        psql(&standby.url("postgres"), "select pg_promote()")?;
        standby.process.signal(nix::sys::signal::Signal::SIGINT)?;
        standby.process.wait_for_exit(READY_WITHIN).await?;
        let data = self.folder.path().join("data");
        if slots {
            let kept = standby.folder.path().join("data/pg_replslot");
            fs::remove_dir_all(&kept).context("the standby's slots")?;
            fs::rename(data.join("pg_replslot"), kept).context("the primary's slots")?;
        }
        fs::remove_dir_all(&data).context("the lost data")?;
        fs::rename(standby.folder.path().join("data"), &data).context("the standby's data")?;
        self.restart().await
    }
}
