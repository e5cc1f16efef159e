//! Copies of the server, which are a standby and a backup, and a full disk.

use std::path::PathBuf;

use anyhow::Context;

use super::{Postgres, kill_processes_in};
use crate::servers::net;

const STANDBY_PORT: u16 = 5433;

impl Postgres {
    /// Makes a copy of the running server. Returns its folder.
    fn copy(&self, name: &str, arguments: &[&str]) -> anyhow::Result<PathBuf> {
        let folder = self.folder.join(name);
        let mut backup = self.command("pg_basebackup");
        backup.args([
            "--host=127.0.0.1",
            "--username=postgres",
            "--checkpoint=fast",
            "--no-sync",
            "--wal-method=stream",
        ]);
        let done = backup
            .args(arguments)
            .arg("--pgdata")
            .arg(&folder)
            .output()
            .context("pg_basebackup")?;
        anyhow::ensure!(
            done.status.success(),
            "pg_basebackup: {}",
            String::from_utf8_lossy(&done.stderr)
        );
        Ok(folder)
    }

    /// Replaces the data of the server by a copy.
    fn replace_data(&self, name: &str) -> anyhow::Result<()> {
        std::fs::remove_dir_all(self.data())?;
        std::fs::rename(self.folder.join(name), self.data()).with_context(|| format!("no {name}"))
    }

    /// Starts a standby, and waits until it replicates.
    pub(crate) async fn start_standby(&mut self) -> anyhow::Result<()> {
        let data = self.copy("standby", &["--write-recovery-conf"])?;
        let mut standby = self.launch(&data, STANDBY_PORT, &[])?;
        let sql = "select count(*) > 0 from pg_stat_replication where state = 'streaming'";
        let is_streaming = async || {
            let Ok(mut connection) = super::connect().await else {
                return false;
            };
            sqlx::query_scalar(sql)
                .fetch_one(&mut connection)
                .await
                .unwrap_or(false)
        };
        standby
            .wait_until(
                "the standby to replicate",
                super::START_TIMEOUT,
                is_streaming,
            )
            .await?;
        self.standby = Some(standby);
        Ok(())
    }

    /// Pauses the standby: it receives no more commits.
    pub(crate) fn pause_standby(&self) -> anyhow::Result<()> {
        self.standby
            .as_ref()
            .context("there is no standby")?
            .signal_with_children("STOP")
    }

    /// Promotes the standby to the server, after the old server was killed.
    pub(crate) async fn promote(&mut self) -> anyhow::Result<()> {
        self.standby.take().context("there is no standby")?.kill()?;
        kill_processes_in(&self.folder.join("standby")).await?;
        self.replace_data("standby")?;
        let mut server = self.launch(&self.data(), super::PORT, &[])?;
        let promote = async || {
            let Ok(mut connection) = super::connect().await else {
                return false;
            };
            sqlx::query("select pg_promote()")
                .execute(&mut connection)
                .await
                .is_ok()
        };
        server
            .wait_until("the standby to be promoted", super::START_TIMEOUT, promote)
            .await?;
        server
            .wait_until("the new primary", super::START_TIMEOUT, async || {
                super::is_primary().await
            })
            .await?;
        self.server = Some(server);
        Ok(())
    }

    /// Makes a backup.
    pub(crate) fn back_up(&self) -> anyhow::Result<()> {
        self.copy("backup", &[]).map(drop)
    }

    /// Restores the backup, after the old server was killed. It gets a new timeline, as after any
    /// point-in-time recovery.
    pub(crate) async fn restore(&mut self) -> anyhow::Result<()> {
        self.replace_data("backup")?;
        std::fs::write(self.data().join("recovery.signal"), "")?;
        self.start_with(&[
            "restore_command=false",
            "recovery_target=immediate",
            "recovery_target_action=promote",
        ])
        .await
    }

    /// Fills the file system of the server.
    pub(crate) fn fill_disk(&self) -> anyhow::Result<()> {
        // The rest of the disk is smaller than one block of 64 KiB. dd ends with an error when the
        // disk is full.
        net::run(
            "dd",
            &[
                "if=/dev/zero",
                &format!("of={}", self.folder.join("filler").display()),
                "bs=64k",
            ],
        )
        .err();
        Ok(())
    }

    /// Frees the disk, and starts the server again if it crashed. Returns whether it did.
    pub(crate) async fn free_disk(&mut self) -> anyhow::Result<bool> {
        std::fs::remove_file(self.folder.join("filler"))?;
        let crashed = self
            .server
            .as_mut()
            .is_none_or(|server| server.exit_status().is_some());
        if crashed {
            kill_processes_in(&self.data()).await?;
            self.start().await?;
        }
        Ok(crashed)
    }
}
