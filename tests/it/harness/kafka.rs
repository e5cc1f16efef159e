//! Creates topics for a test on the rig's broker, and reads their records.

use std::{
    collections::BTreeMap,
    sync::atomic::{AtomicU32, Ordering},
    time::{Duration, Instant},
};

use rdkafka::{
    ClientConfig, Message, Offset, TopicPartitionList,
    admin::{
        AdminClient, AdminOptions, AlterConfig, NewPartitions, NewTopic, ResourceSpecifier,
        TopicReplication,
    },
    client::DefaultClientContext,
    consumer::{BaseConsumer, Consumer},
    message::Headers,
    types::RDKafkaErrorCode,
};

use uuid::Uuid;

use super::rig::rig;

static NEXT: AtomicU32 = AtomicU32::new(0);

/// Makes a test per version of Kafka from an async function, which gets the version.
macro_rules! on_each_kafka {
    ($check:ident) => {
        mod $check {
            use crate::harness::kafka::KafkaVersion;

            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn on_3_8() {
                Box::pin(super::$check(KafkaVersion::V3_8)).await;
            }

            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn on_4_3() {
                Box::pin(super::$check(KafkaVersion::V4_3)).await;
            }
        }
    };
}

/// A version of Kafka. The rig has brokers of each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum KafkaVersion {
    V3_8,
    V4_3,
}

impl KafkaVersion {
    /// Name of the rig's part for this version, and of the folder of its programs.
    pub(crate) fn part(self) -> &'static str {
        match self {
            Self::V3_8 => "kafka-3.8",
            Self::V4_3 => "kafka",
        }
    }

    /// Bootstrap servers without TLS and login.
    pub(crate) fn servers(self) -> String {
        rig(&self.variable(""))
    }

    /// Name of the rig's variable with the bootstrap servers of a listener, such as `_SASL_SSL`.
    pub(crate) fn variable(self, listener: &str) -> String {
        match self {
            Self::V3_8 => format!("RIG_KAFKA_3_8{listener}"),
            Self::V4_3 => format!("RIG_KAFKA{listener}"),
        }
    }

    /// Creates a topic with a number of partitions and these properties.
    pub(crate) async fn create_topic_with(
        self,
        name: &str,
        partitions: i32,
        properties: &[(&str, &str)],
    ) {
        let topic = NewTopic::new(name, partitions, TopicReplication::Fixed(1));
        let topic = properties
            .iter()
            .fold(topic, |topic, (property, value)| topic.set(property, value));
        create_topic_at(&self.servers(), &topic).await;
    }

    /// Creates a topic with 6 partitions.
    pub(crate) async fn create_topic(self, name: &str) {
        self.create_topic_with(name, 6, &[]).await;
    }

    /// Deletes a topic with its records.
    pub(crate) async fn delete_topic(self, name: &str) {
        let deleted = self
            .admin()
            .delete_topics(&[name], &AdminOptions::new())
            .await
            .expect("an answer");
        assert!(deleted.iter().all(Result::is_ok), "{deleted:?}");
    }

    /// Changes a setting of a topic. Its other settings are reset to their defaults.
    pub(crate) async fn alter_topic(self, name: &str, key: &str, value: &str) {
        let change = AlterConfig::new(ResourceSpecifier::Topic(name)).set(key, value);
        let changed = self
            .admin()
            .alter_configs([&change], &AdminOptions::new())
            .await
            .expect("an answer");
        assert!(changed.iter().all(Result::is_ok), "{changed:?}");
    }

    /// Increases the number of partitions of a topic to `partitions`.
    pub(crate) async fn grow_topic(self, name: &str, partitions: usize) {
        let grown = self
            .admin()
            .create_partitions(
                [&NewPartitions::new(name, partitions)],
                &AdminOptions::new(),
            )
            .await
            .expect("an answer");
        assert!(grown.iter().all(Result::is_ok), "{grown:?}");
    }

    /// Reads all records of a topic, by partition.
    pub(crate) async fn read(self, topic: &str) -> Vec<Record> {
        let topic = topic.to_owned();
        tokio::task::spawn_blocking(move || read_all_at(&self.servers(), &topic))
            .await
            .expect("read")
    }

    fn admin(self) -> AdminClient<DefaultClientContext> {
        client_of(&self.servers())
            .create()
            .expect("an admin client")
    }
}

/// A record as a consumer sees it.
#[derive(Clone, Debug)]
pub(crate) struct Record {
    pub(crate) partition: i32,
    pub(crate) key: String,
    /// Whether the record has a key, which may be empty.
    pub(crate) has_key: bool,
    pub(crate) value: Option<Vec<u8>>,
    pub(crate) headers: BTreeMap<String, String>,
    pub(crate) timestamp_ms: Option<i64>,
}

impl Record {
    pub(crate) fn event_id(&self) -> Uuid {
        self.headers["event_id"].parse().expect("a uuid")
    }
}

/// A topic name that no other test uses.
pub(crate) fn topic_name(of: &str) -> String {
    format!(
        "it-{}-{}-{of}",
        std::process::id(),
        NEXT.fetch_add(1, Ordering::Relaxed)
    )
}

/// Creates a topic with 6 partitions.
pub(crate) async fn create_topic(name: &str) {
    create_topic_with(name, 6, &[]).await;
}

/// Creates a topic with a number of partitions and these properties.
pub(crate) async fn create_topic_with(name: &str, partitions: i32, properties: &[(&str, &str)]) {
    KafkaVersion::V4_3
        .create_topic_with(name, partitions, properties)
        .await;
}

/// Creates a topic unless it exists. For names that tests share: a test looks only at records with
/// its own keys.
pub(crate) async fn ensure_topic(name: &str, partitions: i32) {
    let topic = NewTopic::new(name, partitions, TopicReplication::Fixed(1));
    let created = KafkaVersion::V4_3
        .admin()
        .create_topics([&topic], &AdminOptions::new())
        .await
        .expect("an answer");
    for result in created {
        match result {
            Ok(_) | Err((_, RDKafkaErrorCode::TopicAlreadyExists)) => {}
            Err((topic, code)) => panic!("{topic}: {code}"),
        }
    }
}

/// Number of partitions of a topic. Blocks.
pub(crate) fn partitions_of(topic: &str) -> usize {
    let client = client_of(&KafkaVersion::V4_3.servers());
    let consumer: BaseConsumer = client.create().expect("a consumer");
    let metadata = consumer
        .fetch_metadata(Some(topic), Duration::from_secs(10))
        .expect("metadata");
    metadata.topics()[0].partitions().len()
}

/// Creates a topic on other brokers than the rig's.
pub(crate) async fn create_topic_at(servers: &str, topic: &NewTopic<'_>) {
    let admin: AdminClient<DefaultClientContext> =
        client_of(servers).create().expect("an admin client");
    let created = admin
        .create_topics([topic], &AdminOptions::new())
        .await
        .expect("an answer");
    assert!(created.iter().all(Result::is_ok), "{created:?}");
}

/// Sets the password of a user for SCRAM-SHA-512.
pub(crate) async fn set_scram_password(user: &str, password: &str) {
    set_scram_password_at(&rig("RIG_KAFKA"), user, password).await;
}

/// Sets the password of a user for SCRAM-SHA-512 on other brokers than the rig's.
pub(crate) async fn set_scram_password_at(servers: &str, user: &str, password: &str) {
    let config = format!("SCRAM-SHA-512=[password={password}]");
    let whose = ["--entity-type", "users", "--entity-name", user];
    alter_configs_at(servers, &whose, &["--add-config", &config]).await;
}

/// Sets how many bytes per second each client id may produce, on other brokers than the rig's.
/// `None` removes the quota.
pub(crate) async fn set_producer_quota_at(servers: &str, bytes_per_second: Option<u32>) {
    let config = bytes_per_second.map(|bytes| format!("producer_byte_rate={bytes}"));
    let change = match &config {
        Some(config) => ["--add-config", config],
        None => ["--delete-config", "producer_byte_rate"],
    };
    let whose = ["--entity-type", "clients", "--entity-default"];
    alter_configs_at(servers, &whose, &change).await;
}

/// Runs the rig's tool for dynamic configurations.
async fn alter_configs_at(servers: &str, whose: &[&str], change: &[&str]) {
    let mut tool =
        std::process::Command::new(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/rig/kafka/tool"));
    tool.env("RIG", rig("RIG"))
        .args(["configs", "--bootstrap-server", servers, "--alter"])
        .args(whose)
        .args(change);
    let output = tokio::task::spawn_blocking(move || tool.output())
        .await
        .expect("not cancelled")
        .expect("the rig's tool runs");
    assert!(
        output.status.success(),
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
}

/// Deletes a topic with its records.
pub(crate) async fn delete_topic(name: &str) {
    KafkaVersion::V4_3.delete_topic(name).await;
}

/// Changes a setting of a topic. Its other settings are reset to their defaults.
pub(crate) async fn alter_topic(name: &str, key: &str, value: &str) {
    KafkaVersion::V4_3.alter_topic(name, key, value).await;
}

/// Reads all records of a topic, by partition. Blocks.
pub(crate) fn read_all(topic: &str) -> Vec<Record> {
    read_all_at(&rig("RIG_KAFKA"), topic)
}

/// Reads all records of a topic on other brokers than the rig's. Blocks.
pub(crate) fn read_all_at(servers: &str, topic: &str) -> Vec<Record> {
    let consumer: BaseConsumer = client_of(servers).create().expect("a consumer");
    let metadata = consumer
        .fetch_metadata(Some(topic), Duration::from_secs(10))
        .expect("metadata");
    let mut ends = BTreeMap::new();
    let mut assignment = TopicPartitionList::new();
    for partition in metadata.topics()[0].partitions() {
        let (_, end) = consumer
            .fetch_watermarks(topic, partition.id(), Duration::from_secs(10))
            .expect("watermarks");
        if end > 0 {
            ends.insert(partition.id(), end);
            assignment
                .add_partition_offset(topic, partition.id(), Offset::Beginning)
                .expect("valid");
        }
    }
    consumer.assign(&assignment).expect("assigned");
    let (mut records, deadline) = (Vec::new(), Instant::now() + Duration::from_secs(60));
    while !ends.is_empty() {
        assert!(
            Instant::now() < deadline,
            "only {} records of {topic} were read within 60 s, missing up to: {ends:?}",
            records.len()
        );
        let Some(message) = consumer.poll(Duration::from_millis(500)) else {
            continue;
        };
        let message = message.expect("a record");
        if message.offset() + 1 >= ends.get(&message.partition()).copied().unwrap_or(0) {
            ends.remove(&message.partition());
        }
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let headers = message.headers().into_iter().flat_map(Headers::iter);
        records.push(Record {
            partition: message.partition(),
            has_key: message.key().is_some(),
            key: message.key().map(text).unwrap_or_default(),
            value: message.payload().map(<[u8]>::to_vec),
            headers: headers
                .map(|header| {
                    (
                        header.key.to_owned(),
                        header.value.map(text).unwrap_or_default(),
                    )
                })
                .collect(),
            timestamp_ms: message.timestamp().to_millis(),
        });
    }
    records
}

fn client_of(servers: &str) -> ClientConfig {
    let mut config = ClientConfig::new();
    config
        .set("bootstrap.servers", servers)
        .set("group.id", "it")
        .set("enable.partition.eof", "false");
    config
}
