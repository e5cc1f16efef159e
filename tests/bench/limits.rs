//! What the machine can do at best: librdkafka alone, with the same records on the same broker.

use std::time::Duration;

use rdkafka::{
    ClientConfig,
    error::{KafkaError, RDKafkaErrorCode},
    producer::{BaseRecord, DefaultProducerContext, Producer, ThreadedProducer},
};
use tokio::time::Instant;

/// Records a second.
pub(crate) async fn producer_alone(kafka: &str, rows: u64, bytes: usize) -> anyhow::Result<f64> {
    let topic = super::load::create_topic(kafka).await?;
    let kafka = kafka.to_owned();
    tokio::task::spawn_blocking(move || {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", kafka).set("enable.idempotence", "true").set("max.in.flight", "1").set("linger.ms", "1");
        config.set("compression.type", "lz4").set("partitioner", "murmur2_random").set("queue.buffering.max.messages", "16384");
        let producer: ThreadedProducer<DefaultProducerContext> = config.create()?;
        let payload = super::load::payload(bytes);
        let began = Instant::now();
        for n in 0..rows {
            let key = format!("key-{}", n % 1000);
            let mut record = BaseRecord::to(&topic).key(&key).payload(&payload);
            while let Err((error, back)) = producer.send(record) {
                anyhow::ensure!(error == KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), "{error}");
                std::thread::sleep(Duration::from_micros(200));
                record = back;
            }
        }
        producer.flush(Duration::from_secs(120))?;
        Ok(rows as f64 / began.elapsed().as_secs_f64())
    })
    .await?
}
