//! The conditions of a run that its figures depend on: machine, servers, options.

use serde_json::{Value, json};
use sqlx::{Connection, PgConnection};

use super::Cli;

/// Collects the conditions as JSON.
pub(crate) async fn collect(cli: &Cli) -> anyhow::Result<Value> {
    let mut postgres = PgConnection::connect(&cli.postgres).await?;
    let [version, fsync, memory] = ["server_version", "fsync", "shared_buffers"]
        .map(|name| format!("select current_setting('{name}')"));
    let mut values = Vec::new();
    for query in [version, fsync, memory] {
        values.push(
            sqlx::query_scalar::<_, String>(sqlx::AssertSqlSafe(query))
                .fetch_one(&mut postgres)
                .await?,
        );
    }
    Ok(json!({
        "began": jiff::Timestamp::now().strftime("%Y-%m-%d %H:%M UTC").to_string(),
        "processor": value_in_file("/proc/cpuinfo", "model name"),
        "processors": std::thread::available_parallelism()?.get(),
        "memory": value_in_file("/proc/meminfo", "MemTotal"),
        "kernel": std::fs::read_to_string("/proc/sys/kernel/osrelease")?.trim(),
        "load_before": std::fs::read_to_string("/proc/loadavg")?.split(' ').next(),
        "postgres": { "version": values[0], "fsync": values[1], "shared_buffers": values[2] },
        "librdkafka": rdkafka::util::get_rdkafka_version().1,
        "replicas_of_a_partition": cli.replicas,
        "brokers": cli.kafka.split(',').count(),
        "partitions": super::topic::PARTITIONS * cli.network.topics,
        "round_trip_ms": cli.network.round_trip,
        "jitter_ms": cli.network.jitter,
        "runs": cli.runs,
        "rows": cli.rows,
        "bytes": cli.bytes,
        "seconds": cli.seconds,
        "pinned_seconds": cli.pinned_seconds,
        "late_seconds": cli.late_seconds,
    }))
}

/// The value of the first line `name: value` of a file.
fn value_in_file(path: &str, name: &str) -> Option<String> {
    let text = std::fs::read_to_string(path).ok()?;
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix(name)?.split_once(':'))?;
    Some(line.1.trim().to_owned())
}
