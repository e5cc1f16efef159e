//! CPU time and memory of processes, from /proc.

use anyhow::Context;

/// Clock ticks a second of /proc's times; 100 on every Linux that we know.
const TICKS: f64 = 100.0;

/// What a process has used since it began.
#[derive(Clone, Copy, Default)]
pub(crate) struct Usage {
    pub(crate) cpu_seconds: f64,
    pub(crate) rss_mib: f64,
}

impl Usage {
    pub(crate) fn of(pid: u32) -> anyhow::Result<Self> {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).with_context(|| format!("process {pid} has ended"))?;
        let fields = fields(&stat);
        let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
        let rss = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kib: f64 = rss.and_then(|rss| rss.split_whitespace().next()?.parse().ok()).unwrap_or(0.0);
        // utime and stime, and those of children that have ended.
        let ticks: f64 = fields[11..15].iter().map(|field| field.parse::<f64>().unwrap_or(0.0)).sum();
        Ok(Self { cpu_seconds: ticks / TICKS, rss_mib: kib / 1024.0 })
    }

    /// The same of a process and its children.
    pub(crate) fn of_tree(root: u32) -> anyhow::Result<Self> {
        let mut sum = Self::of(root)?;
        for entry in std::fs::read_dir("/proc")?.flatten() {
            let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
            let Ok(stat) = std::fs::read_to_string(format!("/proc/{pid}/stat")) else { continue };
            if fields(&stat).get(1).is_some_and(|parent| parent.parse() == Ok(root))
                && let Ok(child) = Self::of(pid)
            {
                sum.cpu_seconds += child.cpu_seconds;
                sum.rss_mib += child.rss_mib;
            }
        }
        Ok(sum)
    }
}

/// Fields of /proc/PID/stat after the program's name, which may contain anything: state, parent, ...
fn fields(stat: &str) -> Vec<&str> {
    stat.rsplit_once(')').map_or("", |(_, rest)| rest).split_whitespace().collect()
}
