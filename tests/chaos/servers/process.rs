//! A server as a process: started on a host, killed, stopped, continued.

use std::{
    fs::File,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use anyhow::Context;
use tokio::{
    net::TcpStream,
    time::{Instant, sleep},
};

pub(crate) struct Process {
    child: Child,
    log: PathBuf,
}

impl Process {
    /// Its output is added to a log.
    pub(crate) fn start(mut command: Command, log: &Path) -> anyhow::Result<Self> {
        let file = File::options()
            .create(true)
            .append(true)
            .open(log)
            .with_context(|| format!("cannot write {}", log.display()))?;
        command
            .stdout(Stdio::from(file.try_clone()?))
            .stderr(Stdio::from(file));
        let child = command
            .spawn()
            .with_context(|| format!("cannot start {command:?}"))?;
        Ok(Self {
            child,
            log: log.to_owned(),
        })
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// How it ended, if it did.
    pub(crate) fn ended(&mut self) -> Option<std::process::ExitStatus> {
        self.child.try_wait().ok().flatten()
    }

    /// SIGKILL. Whatever state it is in.
    pub(crate) fn kill(mut self) -> anyhow::Result<()> {
        self.child.kill().ok();
        self.child.wait()?;
        Ok(())
    }

    pub(crate) fn signal(&self, name: &str) -> anyhow::Result<()> {
        super::net::run("kill", &[&format!("-{name}"), &self.pid().to_string()])
    }

    /// The same for the processes that it has made, too.
    pub(crate) fn signal_with_children(&self, name: &str) -> anyhow::Result<()> {
        let children = std::fs::read_to_string(format!("/proc/{0}/task/{0}/children", self.pid()))?;
        self.signal(name)?;
        for child in children.split_whitespace() {
            // One that has just ended needs no signal.
            super::net::run("kill", &[&format!("-{name}"), child]).ok();
        }
        Ok(())
    }

    /// Asks it to end, and waits until it has.
    pub(crate) async fn stop(mut self, signal: &str, patience: Duration) -> anyhow::Result<()> {
        self.signal(signal)?;
        let end = Instant::now() + patience;
        while self.ended().is_none() {
            anyhow::ensure!(
                Instant::now() < end,
                "it has not ended {patience:?} after SIG{signal}: {}",
                self.log.display()
            );
            sleep(Duration::from_millis(20)).await;
        }
        Ok(())
    }

    /// Waits until a condition holds, while the process lives.
    pub(crate) async fn until(
        &mut self,
        what: &str,
        patience: Duration,
        mut holds: impl AsyncFnMut() -> bool,
    ) -> anyhow::Result<()> {
        let end = Instant::now() + patience;
        while !holds().await {
            if let Some(status) = self.ended() {
                anyhow::bail!(
                    "waited for {what}, and it ended with {status}: see {}",
                    self.log.display()
                );
            }
            anyhow::ensure!(
                Instant::now() < end,
                "waited {patience:?} for {what}: see {}",
                self.log.display()
            );
            sleep(Duration::from_millis(50)).await;
        }
        Ok(())
    }
}

/// Whether somebody takes connections there.
pub(crate) async fn listens(address: &str, port: u16) -> bool {
    let connect = TcpStream::connect((address, port));
    tokio::time::timeout(Duration::from_secs(1), connect)
        .await
        .is_ok_and(|connected| connected.is_ok())
}
