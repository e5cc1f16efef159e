//! A server process that can be started, killed, paused and stopped.

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

/// A process with its log file.
pub(crate) struct Process {
    child: Child,
    log: PathBuf,
}

impl Process {
    /// Starts a process and appends its output to a log file.
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

    /// The exit status, if the process has ended.
    pub(crate) fn exit_status(&mut self) -> Option<std::process::ExitStatus> {
        self.child.try_wait().ok().flatten()
    }

    /// Kills the process with SIGKILL, in any state.
    pub(crate) fn kill(mut self) -> anyhow::Result<()> {
        self.child.kill().ok();
        self.child.wait()?;
        Ok(())
    }

    /// Sends a signal to the process: `STOP`, `CONT`, `TERM`.
    pub(crate) fn signal(&self, name: &str) -> anyhow::Result<()> {
        super::net::run("kill", &[&format!("-{name}"), &self.pid().to_string()])
    }

    /// Sends a signal to the process and to its children.
    pub(crate) fn signal_with_children(&self, name: &str) -> anyhow::Result<()> {
        let children = std::fs::read_to_string(format!("/proc/{0}/task/{0}/children", self.pid()))?;
        self.signal(name)?;
        for child in children.split_whitespace() {
            // Fails for a child that has just ended, which needs no signal.
            super::net::run("kill", &[&format!("-{name}"), child]).ok();
        }
        Ok(())
    }

    /// Sends a signal and waits until the process has ended.
    pub(crate) async fn stop(mut self, signal: &str, time_limit: Duration) -> anyhow::Result<()> {
        self.signal(signal)?;
        let end = Instant::now() + time_limit;
        while self.exit_status().is_none() {
            anyhow::ensure!(
                Instant::now() < end,
                "the process is still running {time_limit:?} after SIG{signal}: see {}",
                self.log.display()
            );
            sleep(Duration::from_millis(20)).await;
        }
        Ok(())
    }

    /// Waits until a condition holds.
    ///
    /// # Errors
    ///
    /// If the process ends or the condition does not hold within `time_limit`.
    pub(crate) async fn wait_until(
        &mut self,
        what: &str,
        time_limit: Duration,
        mut holds: impl AsyncFnMut() -> bool,
    ) -> anyhow::Result<()> {
        let end = Instant::now() + time_limit;
        while !holds().await {
            if let Some(status) = self.exit_status() {
                anyhow::bail!(
                    "waited for {what}, but the process ended with {status}: see {}",
                    self.log.display()
                );
            }
            anyhow::ensure!(
                Instant::now() < end,
                "waited {time_limit:?} for {what}: see {}",
                self.log.display()
            );
            sleep(Duration::from_millis(50)).await;
        }
        Ok(())
    }
}

/// Whether a server accepts connections at this address.
pub(crate) async fn accepts_connections(address: &str, port: u16) -> bool {
    let connect = TcpStream::connect((address, port));
    tokio::time::timeout(Duration::from_secs(1), connect)
        .await
        .is_ok_and(|connected| connected.is_ok())
}
