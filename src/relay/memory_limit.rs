//! How much memory this process may use: the smallest limit of its control groups, or else the
//! memory of the node. Reading is IO, the rest is pure.

use std::{fs, path::Path};

/// Bytes that are assumed if nothing can be read, 256 MiB.
const UNKNOWN: usize = 256 << 20;
/// Where control groups of version 2 are, and those of version 1 that limit memory.
const ROOTS: [(&str, &str); 2] = [
    ("/sys/fs/cgroup", "memory.max"),
    ("/sys/fs/cgroup/memory", "memory.limit_in_bytes"),
];

/// Bytes of memory that this process may use.
#[must_use]
pub(super) fn memory_limit() -> usize {
    let groups = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let limits = group_files(&groups).into_iter().map(fs::read_to_string);
    let limits = limits.filter_map(|text| parse_limit(&text.ok()?));
    let node = fs::read_to_string("/proc/meminfo").ok();
    let node = node.and_then(|text| parse_node_memory(&text));
    limits.chain(node).min().unwrap_or(UNKNOWN)
}

/// Files that may hold a limit: those of the process's own group and of all groups above. In a
/// container its own group is often the root.
fn group_files(proc_self_cgroup: &str) -> Vec<std::path::PathBuf> {
    let mut files = Vec::new();
    for line in proc_self_cgroup.lines().chain(["0::/"]) {
        let group = line.splitn(3, ':').nth(2).unwrap_or_default();
        for part in Path::new(group.trim_start_matches('/')).ancestors() {
            files.extend(ROOTS.map(|(root, file)| Path::new(root).join(part).join(file)));
        }
    }
    files
}

/// Bytes in a file of a control group; `None` for `max`.
fn parse_limit(text: &str) -> Option<usize> {
    text.trim().parse().ok()
}

/// Bytes of the node's memory, from `/proc/meminfo`.
fn parse_node_memory(meminfo: &str) -> Option<usize> {
    let line = meminfo.lines().find(|line| line.starts_with("MemTotal:"))?;
    let kib: usize = line.split_whitespace().nth(1)?.parse().ok()?;
    Some(kib << 10)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_is_a_number_and_max_is_none() {
        for (text, limit) in [
            ("134217728\n", Some(128 << 20)),
            ("9223372036854771712\n", Some(9_223_372_036_854_771_712)),
            ("max\n", None),
            ("", None),
        ] {
            assert_eq!(parse_limit(text), limit, "{text}");
        }
        let meminfo = "MemTotal:       24689000 kB\nMemFree: 5 kB\n";
        assert_eq!(parse_node_memory(meminfo), Some(24_689_000 << 10));
        assert_eq!(parse_node_memory("MemFree: 5 kB\n"), None);
    }

    #[test]
    fn the_limits_of_all_groups_above_count() {
        for (groups, file) in [
            ("0::/\n", "/sys/fs/cgroup/memory.max"),
            ("0::/a/b\n", "/sys/fs/cgroup/a/b/memory.max"),
            ("0::/a/b\n", "/sys/fs/cgroup/a/memory.max"),
            ("", "/sys/fs/cgroup/memory.max"),
            (
                "5:memory:/docker/x\n",
                "/sys/fs/cgroup/memory/docker/x/memory.limit_in_bytes",
            ),
        ] {
            let files = group_files(groups);
            assert!(files.contains(&file.into()), "{groups}: {files:?}");
        }
    }
}
