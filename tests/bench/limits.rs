//! The limits of the machine: librdkafka alone with the same records, and PostgreSQL alone with the
//! same reads and deletes.

use std::time::Duration;

use rdkafka::{
    ClientConfig,
    error::{KafkaError, RDKafkaErrorCode},
    producer::{BaseRecord, DefaultProducerContext, Producer, ThreadedProducer},
};
use serde_json::{Value, json};
use sqlx::{ConnectOptions, Connection};
use tokio::time::Instant;
use uuid::Uuid;

use super::{
    Cli, bareloop,
    contender::Contender,
    table::{Table, payload},
    topic::Topics,
};

/// Rows per read.
const ROWS: usize = 8192;

/// Measures librdkafka without a database.
pub(crate) async fn producer_alone(cli: &Cli) -> anyhow::Result<Value> {
    let site = cli.site();
    let (topics, kafka, rows, bytes) = (
        Topics::create(&cli.kafka, site.partitions, cli.replicas).await?,
        site.kafka,
        cli.rows,
        cli.bytes,
    );
    let names = topics.names.clone();
    let rows_per_second = tokio::task::spawn_blocking(move || {
        let mut config = ClientConfig::new();
        config
            .set("bootstrap.servers", kafka)
            .set("enable.idempotence", "true")
            .set("max.in.flight", "5")
            .set("linger.ms", "1");
        config
            .set("compression.type", "lz4")
            .set("partitioner", "murmur2_random")
            .set("queue.buffering.max.messages", "16384");
        let producer: ThreadedProducer<DefaultProducerContext> = config.create()?;
        let payload = payload(bytes);
        let began = Instant::now();
        for n in 0..rows {
            let key = format!("key-{}", n % 10_000);
            let mut record = BaseRecord::to(&names[n as usize % names.len()])
                .key(&key)
                .payload(&payload);
            while let Err((error, returned)) = producer.send(record) {
                anyhow::ensure!(
                    error == KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull),
                    "{error}"
                );
                std::thread::sleep(Duration::from_micros(200));
                record = returned;
            }
        }
        producer.flush(Duration::from_secs(120))?;
        Ok(rows as f64 / began.elapsed().as_secs_f64())
    });
    let rows_per_second = rows_per_second.await??;
    topics.delete().await?;
    Ok(json!({ "rows_per_second": rows_per_second }))
}

/// Measures one connection that alternately reads and deletes, without Kafka.
pub(crate) async fn postgres_alone(cli: &Cli) -> anyhow::Result<Value> {
    let table = Table::create(cli, Contender::BareLoop, &cli.site()).await?;
    table.insert_backlog(cli.rows, cli.bytes).await?;
    let mut connection = bareloop::connect(&table.url)?.connect().await?;
    let mut lanes = bareloop::Lanes::unread();
    let began = Instant::now();
    while !lanes.are_read() {
        let rows: Vec<_> = lanes
            .fetch(&mut connection, ROWS)
            .await?
            .iter()
            .map(bareloop::row_key)
            .collect();
        for batch in rows.chunks(bareloop::BATCH) {
            let (lanes, ids, event_ids): (Vec<i16>, Vec<i64>, Vec<Uuid>) =
                batch.iter().copied().collect();
            sqlx::query(bareloop::SETTLE)
                .bind(&lanes)
                .bind(&ids)
                .bind(&event_ids)
                .execute(&mut connection)
                .await?;
        }
    }
    let rows_per_second = cli.rows as f64 / began.elapsed().as_secs_f64();
    connection.close().await?;
    table.remove().await?;
    Ok(json!({ "rows_per_second": rows_per_second }))
}
