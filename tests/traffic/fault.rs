//! Breaks something on the way, by a command of the shell.

use std::time::Duration;

use tokio::time::sleep;

use crate::ledger::Ledger;

/// Waits, then runs the command and shows what it says.
pub(crate) async fn inject(command: &str, after: Duration, ledger: &Ledger) -> anyhow::Result<()> {
    sleep(after).await;
    ledger.fault();
    println!("         $ {command}");
    let command = command.to_owned();
    let output = tokio::task::spawn_blocking(move || std::process::Command::new("bash").args(["-c", &command]).output()).await??;
    for line in String::from_utf8_lossy(&output.stdout).lines() {
        println!("           {line}");
    }
    let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    anyhow::ensure!(output.status.success(), "the fault failed: {said}");
    Ok(())
}
