//! Behaviour of the producer after errors of a broker, on which the relay's order depends. There is
//! one test for each kind of answer, on librdkafka's mock cluster, so that an upgrade of librdkafka
//! that leaves a gap fails here.

use std::{
    collections::BTreeMap,
    ops::Range,
    time::{Duration, SystemTime},
};

use outbox_relay::{
    kafka::{BatchLimits, DeliveryError},
    report::ProblemClass,
};
use rdkafka::{
    ClientConfig,
    config::FromClientConfig,
    mocking::MockCluster,
    producer::{BaseProducer, BaseRecord, DefaultProducerContext, Producer as _},
    types::{RDKafkaApiKey, RDKafkaRespErr as Answer},
};

use crate::harness::{
    kafka::{KafkaVersion, read_all_at, topic_name},
    producer::{Sender, number},
    relay::until,
};

const RECORDS: usize = 200;
const NO_ERROR: Answer = Answer::RD_KAFKA_RESP_ERR_NO_ERROR;
const REJECTED: DeliveryError = DeliveryError::Record(ProblemClass::RecordRejected);
const TIME_REJECTED: DeliveryError = DeliveryError::Topic(ProblemClass::ClockSkew);
/// Limits that allow about 15 records in a batch.
const SMALL: BatchLimits = BatchLimits { batch_bytes: 2048 };

/// Requests of a partition that the producer may have under way. The mock cluster does not check the
/// sequence numbers of a producer without transactions, so a test makes it answer all of them as a
/// broker does.
const REQUESTS_UNDER_WAY: usize = 5;

type Cluster = MockCluster<'static, DefaultProducerContext>;

/// Starts slow brokers, so that records queue up behind the first batches.
fn cluster(brokers: i32, topics: &[(&str, i32)]) -> Cluster {
    let cluster = MockCluster::new(brokers).expect("a mock cluster");
    for (topic, partitions) in topics {
        cluster
            .create_topic(topic, *partitions, brokers)
            .expect("a topic");
    }
    for broker in 1..=brokers {
        cluster
            .broker_round_trip_time(broker, Duration::from_millis(20))
            .expect("a broker");
    }
    cluster
}

fn send_all(sender: &Sender, topic: &str, records: Range<usize>) {
    for record in records {
        sender.send(topic, "key", record, 100).expect("taken");
    }
}

/// Numbers of the records in a topic by partition, in their order.
async fn log(cluster: &Cluster, topic: &str) -> BTreeMap<i32, Vec<usize>> {
    let (servers, topic) = (cluster.bootstrap_servers(), topic.to_owned());
    let records = tokio::task::spawn_blocking(move || read_all_at(&servers, &topic))
        .await
        .expect("read");
    let mut log: BTreeMap<i32, Vec<usize>> = BTreeMap::new();
    for record in records {
        log.entry(record.partition)
            .or_default()
            .push(number(&record.value.expect("a value")));
    }
    log
}

async fn log_of_single_partition(cluster: &Cluster, topic: &str) -> Vec<usize> {
    log(cluster, topic)
        .await
        .into_values()
        .next()
        .unwrap_or_default()
}

/// Makes the brokers answer the third batch with this error, and as many batches behind it as are
/// under way then as out of order.
fn reject_third_batch(cluster: &Cluster, answer: Answer, behind: usize) {
    let out_of_order = Answer::RD_KAFKA_RESP_ERR_OUT_OF_ORDER_SEQUENCE_NUMBER;
    let mut answers = vec![NO_ERROR, NO_ERROR, answer];
    answers.extend(std::iter::repeat_n(out_of_order, behind));
    cluster.request_errors(RDKafkaApiKey::Produce, &answers);
}

/// Checks the log and the errors of the records after a permanent error of the third batch.
async fn check_that_nothing_follows_a_rejected_batch(answer: Answer, blamed: DeliveryError) {
    let cluster = cluster(1, &[("topic", 1)]);
    reject_third_batch(&cluster, answer, REQUESTS_UNDER_WAY - 1);
    let mut sender = Sender::new(&cluster.bootstrap_servers(), SMALL);
    send_all(&sender, "topic", 0..RECORDS);
    let outcomes = sender.outcomes(RECORDS).await.clone();
    let log = log_of_single_partition(&cluster, "topic").await;
    let published = log.len();
    assert!(
        published > 1 && published < RECORDS,
        "{published} were published"
    );
    assert_eq!(
        log,
        (0..published).collect::<Vec<_>>(),
        "a gap, or another order"
    );
    let culprits = outcomes
        .values()
        .filter(|outcome| **outcome == Err(blamed))
        .count();
    assert!(
        (1..RECORDS - published).contains(&culprits),
        "{culprits} are blamed: {outcomes:?}"
    );
    for (record, outcome) in &outcomes {
        let expected = match *record {
            record if record < published => Ok(()),
            record if record < published + culprits => Err(blamed),
            _ => Err(DeliveryError::Purged),
        };
        assert_eq!(
            *outcome, expected,
            "record {record} of {published} published and {culprits} blamed"
        );
    }
    assert!(sender.producer.is_fatal());
    assert!(
        sender.send("topic", "key", RECORDS, 100).is_err(),
        "it takes no further record"
    );
}

#[tokio::test]
async fn message_too_large_is_fatal_and_leaves_no_gap() {
    check_that_nothing_follows_a_rejected_batch(
        Answer::RD_KAFKA_RESP_ERR_MSG_SIZE_TOO_LARGE,
        DeliveryError::Record(ProblemClass::RecordTooLarge),
    )
    .await;
}

#[tokio::test]
async fn invalid_record_is_fatal_and_leaves_no_gap() {
    check_that_nothing_follows_a_rejected_batch(Answer::RD_KAFKA_RESP_ERR_INVALID_RECORD, REJECTED)
        .await;
}

/// The producer marks the topic as bad: its waiting records get the same code as the rejected
/// batch. Those of other topics are purged.
#[tokio::test]
async fn topic_authorization_failed_is_fatal_blames_the_topic_alone_and_leaves_no_gap() {
    let cluster = cluster(2, &[("sick", 1), ("well", 1)]);
    for (topic, broker) in [("sick", 1), ("well", 2)] {
        let led = cluster.partition_leader(topic, 0, Some(broker));
        led.expect("a leader");
    }
    // So that records of the other topic wait.
    cluster.broker_down(2).expect("a broker");
    let mut sender = Sender::new(&cluster.bootstrap_servers(), SMALL);
    send_all(&sender, "sick", 0..1);
    sender.outcomes(1).await;
    cluster.request_errors(
        RDKafkaApiKey::Produce,
        &[Answer::RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED; REQUESTS_UNDER_WAY],
    );
    send_all(&sender, "sick", 1..RECORDS);
    send_all(&sender, "well", RECORDS..2 * RECORDS);
    let outcomes = sender.outcomes(2 * RECORDS).await.clone();
    let blamed = Err(DeliveryError::Topic(ProblemClass::TopicNotAuthorized));
    assert!(sender.producer.is_fatal());
    let sick: Vec<_> = outcomes
        .range(1..RECORDS)
        .map(|(_, outcome)| *outcome)
        .collect();
    let well: Vec<_> = outcomes
        .range(RECORDS..)
        .map(|(_, outcome)| *outcome)
        .collect();
    assert_eq!(sick[0], blamed);
    assert!(
        sick.iter()
            .all(|outcome| *outcome == blamed || *outcome == Err(DeliveryError::Purged)),
        "{sick:?}"
    );
    assert!(
        well.iter()
            .all(|outcome| *outcome == Err(DeliveryError::Purged)),
        "{well:?}"
    );
    cluster.broker_up(2).expect("a broker");
    assert_eq!(log_of_single_partition(&cluster, "sick").await, [0]);
    assert_eq!(log_of_single_partition(&cluster, "well").await, [0; 0]);
}

#[tokio::test]
async fn out_of_order_sequence_is_fatal_and_leaves_no_gap() {
    let blamed = DeliveryError::Cluster(ProblemClass::KafkaError);
    check_that_nothing_follows_a_rejected_batch(
        Answer::RD_KAFKA_RESP_ERR_OUT_OF_ORDER_SEQUENCE_NUMBER,
        blamed,
    )
    .await;
}

/// An error that a retry resolves is not reported.
async fn check_that_all_arrive_in_order_after(answer: Answer) {
    let cluster = cluster(1, &[("topic", 1)]);
    let failing = [&[NO_ERROR][..], &[answer; REQUESTS_UNDER_WAY]].concat();
    cluster.request_errors(RDKafkaApiKey::Produce, &failing.repeat(2));
    let mut sender = Sender::new(&cluster.bootstrap_servers(), SMALL);
    send_all(&sender, "topic", 0..RECORDS);
    assert!(sender.outcomes(RECORDS).await.values().all(Result::is_ok));
    assert_eq!(
        log_of_single_partition(&cluster, "topic").await,
        (0..RECORDS).collect::<Vec<_>>()
    );
    assert!(!sender.producer.is_fatal());
}

#[tokio::test]
async fn not_enough_replicas_is_retried_in_order() {
    check_that_all_arrive_in_order_after(Answer::RD_KAFKA_RESP_ERR_NOT_ENOUGH_REPLICAS).await;
}

#[tokio::test]
async fn not_enough_replicas_after_append_is_retried_in_order() {
    check_that_all_arrive_in_order_after(
        Answer::RD_KAFKA_RESP_ERR_NOT_ENOUGH_REPLICAS_AFTER_APPEND,
    )
    .await;
}

#[tokio::test]
async fn not_leader_is_retried_in_order() {
    check_that_all_arrive_in_order_after(Answer::RD_KAFKA_RESP_ERR_NOT_LEADER_FOR_PARTITION).await;
}

#[tokio::test]
async fn request_timed_out_is_retried_in_order() {
    check_that_all_arrive_in_order_after(Answer::RD_KAFKA_RESP_ERR_REQUEST_TIMED_OUT).await;
}

#[tokio::test]
async fn a_broken_connection_is_retried_in_order() {
    check_that_all_arrive_in_order_after(Answer::RD_KAFKA_RESP_ERR__TRANSPORT).await;
}

/// A producer without the relay's settings, but with these properties.
fn default_producer(servers: &str, differs: &[(&str, &str)]) -> BaseProducer {
    let mut config = ClientConfig::new();
    config
        .set("bootstrap.servers", servers)
        .set("enable.idempotence", "true")
        .set("max.in.flight", "1")
        .set("batch.size", "2048");
    for (name, value) in differs {
        config.set(*name, *value);
    }
    BaseProducer::from_config(&config).expect("a producer")
}

fn send_all_by_default_producer(producer: &BaseProducer, topic: &str) {
    for record in 0..RECORDS {
        let value = format!("{record}:{}", "x".repeat(100));
        producer
            .send(BaseRecord::to(topic).key("key").payload(&value))
            .map_err(|(error, _)| error)
            .expect("taken");
    }
}

/// librdkafka does not report the time as the reason if several records of a batch are invalid.
fn is_blamed(outcome: &Result<(), DeliveryError>) -> bool {
    [Err(REJECTED), Err(TIME_REJECTED)].contains(outcome)
}

/// Sends one batch of 200 records to a real broker, some with timestamps in the future. Returns the
/// records with errors. A real broker reports the numbers of invalid records.
async fn blamed_for_the_future(kafka: KafkaVersion, future: &[usize]) -> Vec<usize> {
    let topic = topic_name("future");
    // Kafka 4 accepts at most an hour ahead by default, earlier versions accept any time.
    let properties: &[_] = match kafka {
        KafkaVersion::V3_8 => &[("message.timestamp.difference.max.ms", "3600000")],
        KafkaVersion::V4_3 => &[],
    };
    kafka.create_topic_with(&topic, 1, properties).await;
    let mut sender = Sender::with(
        &kafka.servers(),
        BatchLimits::default(),
        &[("linger.ms", "1000")],
    );
    let now_ms = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .expect("after 1970")
        .as_millis() as i64;
    for record in 0..RECORDS {
        let ms = if future.contains(&record) {
            now_ms + 48 * 3_600_000
        } else {
            now_ms
        };
        sender
            .send_at(&topic, "key", record, 100, Some(ms))
            .expect("taken");
    }
    let outcomes = sender.outcomes(RECORDS).await.clone();
    let log = kafka.read(&topic).await;
    assert_eq!((log.len(), sender.producer.is_fatal()), (0, true));
    assert!(
        outcomes
            .values()
            .all(|outcome| is_blamed(outcome) || *outcome == Err(DeliveryError::Purged)),
        "{outcomes:?}"
    );
    outcomes
        .iter()
        .filter(|(_, outcome)| is_blamed(outcome))
        .map(|(record, _)| *record)
        .collect()
}

on_each_kafka!(of_a_batch_with_several_bad_records_only_these_are_blamed);
async fn of_a_batch_with_several_bad_records_only_these_are_blamed(kafka: KafkaVersion) {
    assert_eq!(blamed_for_the_future(kafka, &[50, 150]).await, [50, 150]);
}

on_each_kafka!(of_a_batch_with_one_bad_record_all_are_blamed);
/// librdkafka 2.12 gives the code of a single bad record to its whole batch. If a later version
/// reports only the bad record, this test may expect one.
async fn of_a_batch_with_one_bad_record_all_are_blamed(kafka: KafkaVersion) {
    assert_eq!(
        blamed_for_the_future(kafka, &[150]).await,
        (0..RECORDS).collect::<Vec<_>>()
    );
}

/// Control: the tests above would find the gap of an idempotent producer without the gapless
/// guarantee.
#[tokio::test]
async fn without_the_gapless_guarantee_a_rejected_batch_leaves_a_gap() {
    let cluster = cluster(1, &[("topic", 1)]);
    reject_third_batch(&cluster, Answer::RD_KAFKA_RESP_ERR_MSG_SIZE_TOO_LARGE, 0);
    let producer = default_producer(&cluster.bootstrap_servers(), &[]);
    send_all_by_default_producer(&producer, "topic");
    tokio::task::spawn_blocking(move || producer.flush(Duration::from_secs(60)))
        .await
        .expect("joined")
        .expect("flushed");
    let log = log_of_single_partition(&cluster, "topic").await;
    assert!(
        log.len() < RECORDS && log.last() == Some(&(RECORDS - 1)),
        "{log:?}"
    );
}

/// librdkafka tells in its log alone that it has a producer id, and the log's lines wait until the
/// producer is polled.
#[tokio::test]
async fn a_client_that_warms_up_learns_that_it_has_a_producer_id() {
    let cluster = cluster(1, &[("topic", 1)]);
    let sender = Sender::new(&cluster.bootstrap_servers(), SMALL);
    let warm_up = tokio::task::spawn_blocking(move || sender.producer.warm_up(["topic"]));
    assert!(warm_up.await.expect("no panic"));
}

/// The outage lasts until a producer with a timeout of one second has failed all its records.
#[tokio::test]
async fn no_record_fails_for_being_late() {
    let cluster = cluster(1, &[("topic", 1), ("impatient", 1)]);
    let mut sender = Sender::new(&cluster.bootstrap_servers(), SMALL);
    send_all(&sender, "topic", 0..1);
    sender.outcomes(1).await;
    let impatient = default_producer(
        &cluster.bootstrap_servers(),
        &[("message.timeout.ms", "1000")],
    );
    cluster.broker_down(1).expect("a broker");
    send_all(&sender, "topic", 1..RECORDS);
    send_all_by_default_producer(&impatient, "impatient");
    until("the impatient producer to give up", async || {
        impatient.poll(Duration::ZERO);
        (impatient.in_flight_count() == 0).then_some(())
    })
    .await;
    assert_eq!(
        sender.outcomes(1).await.len(),
        1,
        "reports during the outage"
    );
    assert_eq!(
        until("the cluster error", async || sender.cluster_error()).await,
        ProblemClass::KafkaUnreachable
    );
    cluster.broker_up(1).expect("a broker");
    assert!(sender.outcomes(RECORDS).await.values().all(Result::is_ok));
    assert_eq!(
        log_of_single_partition(&cluster, "topic").await,
        (0..RECORDS).collect::<Vec<_>>()
    );
}

/// A producer is replaced while records wait in it and one batch is in flight. Its successor starts
/// at the lowest record without success.
#[tokio::test]
async fn a_successor_of_a_purged_producer_repeats_but_never_skips_or_reorders() {
    let cluster = cluster(1, &[("topic", 1)]);
    cluster
        .broker_round_trip_time(1, Duration::from_millis(300))
        .expect("a broker");
    let mut sender = Sender::new(&cluster.bootstrap_servers(), SMALL);
    send_all(&sender, "topic", 0..RECORDS);
    sender.outcomes(1).await;
    sender.producer.purge();
    let outcomes = sender.outcomes(RECORDS).await.clone();
    let published = outcomes
        .values()
        .take_while(|outcome| outcome.is_ok())
        .count();
    assert!(
        published > 0
            && outcomes
                .values()
                .skip(published)
                .all(|outcome| *outcome == Err(DeliveryError::Purged)),
        "{outcomes:?}"
    );
    tokio::task::spawn_blocking(move || drop(sender))
        .await
        .expect("dropped");
    let mut successor = Sender::new(&cluster.bootstrap_servers(), SMALL);
    send_all(&successor, "topic", published..RECORDS);
    assert!(
        successor
            .outcomes(RECORDS - published)
            .await
            .values()
            .all(Result::is_ok)
    );
    let log = log_of_single_partition(&cluster, "topic").await;
    let mut firsts = Vec::new();
    for record in &log {
        if firsts.last().is_none_or(|last| record > last) {
            firsts.push(*record);
        }
    }
    assert_eq!(firsts, (0..RECORDS).collect::<Vec<_>>(), "{log:?}");
}

/// Three brokers process batches of two topics when one broker rejects a batch. That batch can be
/// distinguished from queued and in-flight batches, and no partition has a gap.
#[tokio::test]
async fn only_the_rejected_batch_of_many_partitions_is_blamed() {
    let cluster = cluster(3, &[("sick", 3), ("well", 3)]);
    for topic in ["sick", "well"] {
        for partition in 0..3 {
            cluster
                .partition_leader(topic, partition, Some(partition + 1))
                .expect("a leader");
        }
    }
    cluster.request_errors(
        RDKafkaApiKey::Produce,
        &[
            NO_ERROR,
            NO_ERROR,
            NO_ERROR,
            NO_ERROR,
            NO_ERROR,
            NO_ERROR,
            Answer::RD_KAFKA_RESP_ERR_INVALID_RECORD,
        ],
    );
    let mut sender = Sender::new(&cluster.bootstrap_servers(), SMALL);
    let topic_of = |record: usize| {
        if record.is_multiple_of(2) {
            "sick"
        } else {
            "well"
        }
    };
    for record in 0..10 * RECORDS {
        sender
            .send(
                topic_of(record),
                &format!("key-{}", record % 60),
                record,
                100,
            )
            .expect("taken");
    }
    let outcomes = sender.outcomes(10 * RECORDS).await.clone();
    assert!(sender.producer.is_fatal());
    let blamed: Vec<_> = outcomes
        .iter()
        .filter(|(_, outcome)| **outcome == Err(REJECTED))
        .map(|(record, _)| *record)
        .collect();
    assert!(!blamed.is_empty() && blamed.len() < 30, "{blamed:?}");
    let published = outcomes.values().filter(|outcome| outcome.is_ok()).count();
    let purged = outcomes
        .values()
        .filter(|outcome| **outcome == Err(DeliveryError::Purged))
        .count();
    assert_eq!(
        published + purged + blamed.len(),
        outcomes.len(),
        "{outcomes:?}"
    );
    for topic in ["sick", "well"] {
        let logs = log(&cluster, topic).await;
        let of_key = |record: &usize| record % 60;
        for key in 0..60 {
            let sent: Vec<_> = (key..10 * RECORDS)
                .step_by(60)
                .filter(|record| topic_of(*record) == topic)
                .collect();
            let arrived: Vec<_> = logs
                .values()
                .flatten()
                .copied()
                .filter(|record| of_key(record) == key)
                .collect();
            assert_eq!(arrived, sent[..arrived.len()], "key {key} of {topic}");
            assert!(
                arrived.iter().all(|record| !blamed.contains(record)),
                "a refused record is in the log"
            );
            let acknowledged = sent
                .iter()
                .filter(|record| outcomes[record].is_ok())
                .count();
            assert!(
                acknowledged <= arrived.len(),
                "key {key} of {topic}: {acknowledged} acknowledged, {} arrived",
                arrived.len()
            );
        }
    }
}
