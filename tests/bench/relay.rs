//! The relay as a process of its own.

use std::{process::Command, time::Duration};

use anyhow::Context;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    time::{Instant, sleep},
};

use super::{Cli, load::Table};

pub(crate) struct Relay {
    child: std::process::Child,
    port: u16,
}

impl Relay {
    pub(crate) async fn start(cli: &Cli, table: &Table) -> anyhow::Result<Self> {
        let port = TcpListener::bind("127.0.0.1:0").await?.local_addr()?.port();
        let manifest = table.manifest()?;
        let child = Command::new(&cli.relay)
            .args(["run", "--listen", &format!("127.0.0.1:{port}"), "--manifest"])
            .arg(&manifest)
            .args(["--log", "error"])
            .spawn()
            .with_context(|| format!("cannot start {}", cli.relay.display()))?;
        Ok(Self { child, port })
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Waits until it publishes.
    pub(crate) async fn owns_all_lanes(&self) -> anyhow::Result<()> {
        let give_up = Instant::now() + Duration::from_secs(60);
        loop {
            let status = self.status().await.unwrap_or_default();
            if status.contains("\"lanes\":64") {
                return Ok(());
            }
            anyhow::ensure!(Instant::now() < give_up, "after 60 s the relay says {status}");
            sleep(Duration::from_millis(50)).await;
        }
    }

    async fn status(&self) -> anyhow::Result<String> {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).await?;
        stream.write_all(b"GET /status HTTP/1.0\r\n\r\n").await?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await?;
        Ok(answer)
    }

    /// Stands still, its lease included, until [`Self::go_on`].
    pub(crate) fn stand_still(&self) -> anyhow::Result<()> {
        self.signal("STOP")
    }

    pub(crate) fn go_on(&self) -> anyhow::Result<()> {
        self.signal("CONT")
    }

    pub(crate) async fn stop(mut self) -> anyhow::Result<()> {
        self.signal("TERM")?;
        tokio::task::spawn_blocking(move || self.child.wait()).await??;
        Ok(())
    }

    fn signal(&self, signal: &str) -> anyhow::Result<()> {
        let done = Command::new("kill").args([format!("-{signal}"), self.pid().to_string()]).status()?;
        anyhow::ensure!(done.success(), "cannot signal the relay");
        Ok(())
    }
}
