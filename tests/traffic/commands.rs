//! Shell commands that change or break something while rows are written.

use std::time::{Duration, Instant};

use tokio::time::sleep;

use crate::ledger::{Fault, Ledger};

/// Time for which rows are written after the last command.
const WRITE_AFTER: Duration = Duration::from_secs(8);

/// Commands of a run.
pub(crate) struct Commands {
    pub(crate) after: Duration,
    pub(crate) changes: Vec<String>,
    pub(crate) fault: Option<String>,
}

impl Commands {
    /// Runs all commands in their order.
    pub(crate) async fn run(self, ledger: &Ledger) -> anyhow::Result<()> {
        if self.changes.is_empty() && self.fault.is_none() {
            return Ok(());
        }
        sleep(self.after).await;
        for change in self.changes {
            run(change).await?;
        }
        if let Some(fault) = self.fault {
            let began = Instant::now();
            ledger.fault(Fault { began, ended: None });
            run(fault).await?;
            ledger.fault(Fault {
                began,
                ended: Some(Instant::now()),
            });
        }
        sleep(WRITE_AFTER).await;
        Ok(())
    }
}

/// Runs a command and prints its output.
async fn run(command: String) -> anyhow::Result<()> {
    println!("         $ {command}");
    let output = tokio::task::spawn_blocking(move || {
        std::process::Command::new("bash")
            .args(["-euc", &command])
            .output()
    })
    .await??;
    for line in String::from_utf8_lossy(&output.stdout).lines() {
        println!("           {line}");
    }
    let stderr = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    anyhow::ensure!(output.status.success(), "the command failed: {stderr}");
    Ok(())
}
