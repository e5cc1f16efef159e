//! What a run's figures depend on, for whoever reads them later.

use serde_json::{Value, json};
use sqlx::{Connection, PgConnection};

use super::Cli;

pub(crate) async fn of(cli: &Cli) -> anyhow::Result<Value> {
    let mut postgres = PgConnection::connect(&cli.postgres).await?;
    let [version, fsync, memory] = ["server_version", "fsync", "shared_buffers"]
        .map(|name| format!("select current_setting('{name}')"));
    let mut told = Vec::new();
    for query in [version, fsync, memory] {
        told.push(
            sqlx::query_scalar::<_, String>(sqlx::AssertSqlSafe(query))
                .fetch_one(&mut postgres)
                .await?,
        );
    }
    Ok(json!({
        "began": jiff::Timestamp::now().strftime("%Y-%m-%d %H:%M UTC").to_string(),
        "processor": of_file("/proc/cpuinfo", "model name"),
        "processors": std::thread::available_parallelism()?.get(),
        "memory": of_file("/proc/meminfo", "MemTotal"),
        "kernel": std::fs::read_to_string("/proc/sys/kernel/osrelease")?.trim(),
        "load_before": std::fs::read_to_string("/proc/loadavg")?.split(' ').next(),
        "postgres": { "version": told[0], "fsync": told[1], "shared_buffers": told[2] },
        "librdkafka": rdkafka::util::get_rdkafka_version().1,
        "replicas_of_a_partition": cli.replicas,
        "partitions": super::topic::PARTITIONS,
        "runs": cli.runs,
        "rows": cli.rows,
        "bytes": cli.bytes,
        "seconds": cli.seconds,
        "pinned_seconds": cli.pinned_seconds,
        "late_seconds": cli.late_seconds,
    }))
}

/// The value of the first line `name: value`.
fn of_file(path: &str, name: &str) -> Option<String> {
    let text = std::fs::read_to_string(path).ok()?;
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix(name)?.split_once(':'))?;
    Some(line.1.trim().to_owned())
}
