//! Reads all partitions of all topics from their first record on, and adds the records to the
//! ledger.

use std::{
    collections::BTreeSet,
    sync::Arc,
    thread::JoinHandle,
    time::{Duration, Instant},
};

use rdkafka::{
    ClientConfig, Message, Offset, TopicPartitionList,
    consumer::{BaseConsumer, Consumer},
    message::{BorrowedMessage, Headers},
};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::ledger::{Arrival, Ledger};

/// Starts a thread that reads until `stop` is cancelled.
pub(crate) fn start(
    kafka: &str,
    topics: BTreeSet<String>,
    ledger: Arc<Ledger>,
    stop: CancellationToken,
) -> anyhow::Result<JoinHandle<()>> {
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", kafka)
        .set("group.id", "traffic")
        .set("enable.auto.commit", "false")
        .create()?;
    let mut partitions = TopicPartitionList::new();
    for name in &topics {
        let metadata = consumer.fetch_metadata(Some(name), Duration::from_secs(10))?;
        let found = metadata
            .topics()
            .iter()
            .flat_map(|topic| topic.partitions());
        let count = found
            .map(|partition| {
                partitions.add_partition_offset(name, partition.id(), Offset::Beginning)
            })
            .collect::<Result<Vec<_>, _>>()?;
        anyhow::ensure!(!count.is_empty(), "topic {name} does not exist");
    }
    consumer.assign(&partitions)?;
    Ok(std::thread::spawn(move || {
        while !stop.is_cancelled() {
            match consumer.poll(Duration::from_millis(100)) {
                Some(Ok(message)) => record_arrival(&message, &ledger),
                Some(Err(error)) => eprintln!("consumer: {error}"),
                None => {}
            }
        }
    }))
}

fn record_arrival(message: &BorrowedMessage<'_>, ledger: &Ledger) {
    let at = Instant::now();
    let headers: Vec<(String, Vec<u8>)> = message
        .headers()
        .map(|headers| {
            headers
                .iter()
                .map(|header| {
                    (
                        header.key.to_owned(),
                        header.value.unwrap_or_default().to_owned(),
                    )
                })
                .collect()
        })
        .unwrap_or_default();
    let id = headers
        .iter()
        .find(|(name, _)| name == "event_id")
        .and_then(|(_, value)| Uuid::try_parse_ascii(value).ok());
    let Some(id) = id else { return };
    let arrival = Arrival {
        topic: message.topic().to_owned(),
        partition: message.partition(),
        offset: message.offset(),
        key: message.key().unwrap_or_default().to_owned(),
        payload: message.payload().unwrap_or_default().to_owned(),
        headers,
        at,
    };
    ledger.arrived(id, arrival);
}
