//! Starts and stops processes, and reads their resource usage from /proc.

use std::{
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use anyhow::Context;
use tokio::time::{Instant, sleep};

/// Clock ticks per second in /proc: 100 on Linux.
const TICKS: f64 = 100.0;

/// Resources that a process has used since its start.
#[derive(Clone, Copy, Default)]
pub(crate) struct Usage {
    pub(crate) cpu_seconds: f64,
    pub(crate) rss_mib: f64,
}

impl Usage {
    /// Usage of one process.
    pub(crate) fn of(pid: u32) -> anyhow::Result<Self> {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))
            .with_context(|| format!("process {pid} has ended"))?;
        let fields = fields(&stat);
        let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
        let rss = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kib: f64 = rss
            .and_then(|rss| rss.split_whitespace().next()?.parse().ok())
            .unwrap_or(0.0);
        // utime and stime, and those of children that have ended.
        let ticks: f64 = fields[11..15]
            .iter()
            .map(|field| field.parse::<f64>().unwrap_or(0.0))
            .sum();
        Ok(Self {
            cpu_seconds: ticks / TICKS,
            rss_mib: kib / 1024.0,
        })
    }

    /// Usage of a process and its children.
    pub(crate) fn of_tree(root: u32) -> anyhow::Result<Self> {
        let mut all = vec![Self::of(root)?];
        for entry in std::fs::read_dir("/proc")?.flatten() {
            let Some(pid) = entry
                .file_name()
                .to_str()
                .and_then(|name| name.parse().ok())
            else {
                continue;
            };
            let Ok(stat) = std::fs::read_to_string(format!("/proc/{pid}/stat")) else {
                continue;
            };
            if fields(&stat)
                .get(1)
                .is_some_and(|parent| parent.parse() == Ok(root))
                && let Ok(child) = Self::of(pid)
            {
                all.push(child);
            }
        }
        Ok(all.into_iter().sum())
    }
}

impl std::iter::Sum for Usage {
    fn sum<I: Iterator<Item = Self>>(all: I) -> Self {
        all.fold(Self::default(), |sum, one| Self {
            cpu_seconds: sum.cpu_seconds + one.cpu_seconds,
            rss_mib: sum.rss_mib + one.rss_mib,
        })
    }
}

/// Fields of /proc/PID/stat after the program's name, which may contain any characters. The first
/// two are the state and the parent.
fn fields(stat: &str) -> Vec<&str> {
    stat.rsplit_once(')')
        .map_or("", |(_, fields)| fields)
        .split_whitespace()
        .collect()
}

/// A process whose output goes to a log file. It is killed when this is dropped.
pub(crate) struct Started {
    child: Child,
    log: PathBuf,
}

impl Started {
    /// Starts a process.
    pub(crate) fn new(command: &mut Command, log: &Path) -> anyhow::Result<Self> {
        let file = std::fs::File::create(log)?;
        let child = command
            .stdin(Stdio::null())
            .stdout(file.try_clone()?)
            .stderr(file)
            .spawn();
        Ok(Self {
            child: child.with_context(|| format!("cannot start {command:?}"))?,
            log: log.to_owned(),
        })
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Waits until the log contains a text.
    pub(crate) async fn wait_for_output(&mut self, text: &str) -> anyhow::Result<()> {
        let deadline = Instant::now() + Duration::from_secs(120);
        while !std::fs::read_to_string(&self.log)?.contains(text) {
            let ended = self.child.try_wait()?;
            anyhow::ensure!(
                ended.is_none() && Instant::now() < deadline,
                "no {text:?} yet ({ended:?}): see {}",
                self.log.display()
            );
            sleep(Duration::from_millis(50)).await;
        }
        Ok(())
    }

    /// Sends SIGTERM and waits up to 30 s. Dropping kills the process after that.
    pub(crate) async fn stop(mut self) -> anyhow::Result<()> {
        Command::new("kill").arg(self.pid().to_string()).status()?;
        let deadline = Instant::now() + Duration::from_secs(30);
        while self.child.try_wait()?.is_none() && Instant::now() < deadline {
            sleep(Duration::from_millis(20)).await;
        }
        Ok(())
    }
}

impl Drop for Started {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
