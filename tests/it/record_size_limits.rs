//! Rows as large as each limit of Kafka allows, and one byte larger. docs/records.md has the table.

use crate::{
    harness::{
        kafka::{KafkaVersion, Record, topic_name},
        outbox::topic,
        postgres::{Database, value},
        relay::{Relay, until},
    },
    relay_row_sizes::{insert, noise_up_to},
};

/// `max.message.bytes` of each topic.
const LIMIT: usize = 20_000;
/// Rows of a topic, each with a larger payload than the one before.
const ROWS: u32 = 40;
/// What a batch has beside its records, in bytes: the header of version 2.
const BATCH_HEADER: usize = 61;

/// Bytes of a number in Kafka's records, which are zigzag varints.
fn varint(number: usize) -> usize {
    let bits = usize::BITS - (2 * number).leading_zeros();
    (bits.max(1) as usize).div_ceil(7)
}

/// Bytes of a text or value with its length.
fn with_length(bytes: usize) -> usize {
    varint(bytes) + bytes
}

/// Bytes of the batch that has this record alone, uncompressed.
fn batch_bytes(record: &Record) -> usize {
    let headers = record.headers.iter();
    let headers: usize = headers
        .map(|(name, text)| with_length(name.len()) + with_length(text.len()))
        .sum();
    // Attributes, the differences to the first timestamp and the first offset.
    let body = 3
        + with_length(record.key.len())
        + with_length(record.value.as_ref().map_or(0, Vec::len))
        + varint(record.headers.len())
        + headers;
    BATCH_HEADER + with_length(body)
}

/// A row for each size of payload, with a key of its own. Returns the records that got in.
async fn published(
    kafka: KafkaVersion,
    compression: &str,
    payload: &str,
) -> (Database, Vec<Record>) {
    let database = Database::create(15).await.migrated().await;
    let name = topic_name("limit");
    let limit = LIMIT.to_string();
    kafka
        .create_topic_with(&name, 1, &[("max.message.bytes", limit.as_str())])
        .await;
    let mut settings = database.publishing_to(kafka, vec![topic(&name)]);
    let compression = ("compression.type".to_owned(), compression.to_owned());
    settings.kafka.properties = [compression].into();
    insert(&database, &name, ROWS, ["'k' || 100 + n", payload, "'{}'"]).await;
    let relay = Relay::start(&database, &settings).await;
    let mut admin = database.as_admin().await;
    until("every row that is not parked to be published", async || {
        let waiting = "select count(*) from outbox.event";
        let parked = value::<i64>(&mut admin, "select count(*) from outbox.parked_key").await;
        (parked == value::<i64>(&mut admin, waiting).await).then_some(())
    })
    .await;
    drop(relay);
    let records = kafka.read(&name).await;
    assert!(
        (1..ROWS as usize).contains(&records.len()),
        "{} got in, the largest in a batch of {:?} bytes",
        records.len(),
        records.iter().map(batch_bytes).max()
    );
    (database, records)
}

/// The payload of row `n`, so large that the first 20 batches are within the limit.
fn around_the_limit() -> String {
    // The batch of a row of these tests has 230 bytes beside the payload, as the assertions show.
    noise_up_to(LIMIT, "19750 + n")
}

on_each_kafka!(the_largest_uncompressed_record_of_a_topic_is_published_and_one_byte_more_is_not);
async fn the_largest_uncompressed_record_of_a_topic_is_published_and_one_byte_more_is_not(
    kafka: KafkaVersion,
) {
    let (_database, records) = published(kafka, "none", &around_the_limit()).await;
    assert_eq!(records.iter().map(batch_bytes).max(), Some(LIMIT));
}

on_each_kafka!(a_record_that_does_not_compress_has_the_limit_of_one_that_is_not_compressed);
async fn a_record_that_does_not_compress_has_the_limit_of_one_that_is_not_compressed(
    kafka: KafkaVersion,
) {
    for compression in ["lz4", "zstd"] {
        let (_database, records) = published(kafka, compression, &around_the_limit()).await;
        assert_eq!(
            records.iter().map(batch_bytes).max(),
            Some(LIMIT),
            "{compression}"
        );
    }
}

on_each_kafka!(a_record_that_compresses_is_published_up_to_eight_times_the_limit);
async fn a_record_that_compresses_is_published_up_to_eight_times_the_limit(kafka: KafkaVersion) {
    for compression in ["lz4", "zstd", "gzip", "snappy"] {
        let payload = format!("convert_to(repeat('x', {} + n), 'UTF8')", 8 * LIMIT - 31);
        let (database, records) = published(kafka, compression, &payload).await;
        let largest = records.iter().filter_map(|record| record.value.as_ref());
        let largest = largest.map(Vec::len).max().expect("a record");
        let mut admin = database.as_admin().await;
        let beside = "select min(octet_length(aggregate_type) + octet_length(aggregate_id) \
            + octet_length(event_type) + pg_column_size(headers))::bigint from outbox.event";
        let beside = value::<i64>(&mut admin, beside).await as usize;
        assert_eq!(largest + beside, 8 * LIMIT, "{compression}");
    }
}

on_each_kafka!(a_key_of_64_kib_is_published_and_one_byte_more_is_not);
async fn a_key_of_64_kib_is_published_and_one_byte_more_is_not(kafka: KafkaVersion) {
    let database = Database::create(15).await.migrated().await;
    let name = topic_name("key");
    kafka.create_topic(&name).await;
    insert(
        &database,
        &name,
        2,
        ["repeat('k', 65535 + n)", "'x'", "'{}'"],
    )
    .await;
    let _relay = Relay::start(
        &database,
        &database.publishing_to(kafka, vec![topic(&name)]),
    )
    .await;
    let mut admin = database.as_admin().await;
    until("the parked key, and only its row", async || {
        let parked = value::<i64>(&mut admin, "select count(*) from outbox.parked_key").await;
        let waiting = value::<i64>(&mut admin, "select count(*) from outbox.event").await;
        ((parked, waiting) == (1, 1)).then_some(())
    })
    .await;
    let records = kafka.read(&name).await;
    let keys: Vec<_> = records.iter().map(|record| record.key.len()).collect();
    assert_eq!(keys, [64 << 10]);
}
