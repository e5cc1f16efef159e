//! Copies of the server: a standby that follows, a backup that does not; and a disk that is full.

use std::path::PathBuf;

use anyhow::Context;

use super::{Postgres, sweep};
use crate::servers::net;

const STANDBY_PORT: u16 = 5433;

impl Postgres {
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

    /// Another copy takes the place of the data.
    fn take_place(&self, name: &str) -> anyhow::Result<()> {
        std::fs::remove_dir_all(self.data())?;
        std::fs::rename(self.folder.join(name), self.data()).with_context(|| format!("no {name}"))
    }

    /// Starts a standby, and waits until it follows.
    pub(crate) async fn stand_by(&mut self) -> anyhow::Result<()> {
        let data = self.copy("standby", &["--write-recovery-conf"])?;
        let mut standby = self.launch(&data, STANDBY_PORT, &[])?;
        let follows = "select count(*) > 0 from pg_stat_replication where state = 'streaming'";
        let follows = async || {
            let Ok(mut connection) = super::connect().await else {
                return false;
            };
            sqlx::query_scalar(follows)
                .fetch_one(&mut connection)
                .await
                .unwrap_or(false)
        };
        standby
            .until("the standby to follow", super::UP_MAX, follows)
            .await?;
        self.standby = Some(standby);
        Ok(())
    }

    /// From here on it does not hear what is committed.
    pub(crate) fn stop_following(&self) -> anyhow::Result<()> {
        self.standby
            .as_ref()
            .context("there is no standby")?
            .signal_with_children("STOP")
    }

    /// The standby becomes the server, which has ended.
    pub(crate) async fn promote(&mut self) -> anyhow::Result<()> {
        self.standby.take().context("there is no standby")?.kill()?;
        sweep(&self.folder.join("standby")).await?;
        self.take_place("standby")?;
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
            .until("the standby to be promoted", super::UP_MAX, promote)
            .await?;
        server
            .until("the new primary", super::UP_MAX, async || {
                super::is_primary().await
            })
            .await?;
        self.server = Some(server);
        Ok(())
    }

    pub(crate) fn back_up(&self) -> anyhow::Result<()> {
        self.copy("backup", &[]).map(drop)
    }

    /// The backup becomes the server, which has ended, on a timeline of its own as after any
    /// recovery to a point in time.
    pub(crate) async fn restore(&mut self) -> anyhow::Result<()> {
        self.take_place("backup")?;
        std::fs::write(self.data().join("recovery.signal"), "")?;
        self.start_with(&[
            "restore_command=false",
            "recovery_target=immediate",
            "recovery_target_action=promote",
        ])
        .await
    }

    pub(crate) fn fill_disk(&self) -> anyhow::Result<()> {
        // What is left after the first is less than a page.
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

    /// Whether the server had died of it; then it is started again.
    pub(crate) async fn free_disk(&mut self) -> anyhow::Result<bool> {
        std::fs::remove_file(self.folder.join("filler"))?;
        let died = self
            .server
            .as_mut()
            .is_none_or(|server| server.ended().is_some());
        if died {
            sweep(&self.data()).await?;
            self.start().await?;
        }
        Ok(died)
    }
}
