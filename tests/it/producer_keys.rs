//! Keys go to the partition that Kafka's Java producer chooses. Topics of both producers can
//! therefore be joined, and keys stay in order.

use outbox_relay::kafka::{BatchLimits, partition_of};

use crate::harness::{
    kafka::{create_topic, read_all, topic_name},
    producer::{Sender, number},
    rig::rig,
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_is_in_the_partition_that_javas_producer_chooses() {
    let topic = topic_name("keys");
    create_topic(&topic).await;
    let mut keys: Vec<String> = (0..100).map(|n| format!("key-{n}")).collect();
    keys.extend(["", "ä", "日本語", "🦀", "a\u{301}", " ", "\t\n", "a\u{1}b"].map(str::to_owned));
    keys.push("ключ".repeat(12_500));
    let mut sender = Sender::new(&rig("RIG_KAFKA"), BatchLimits::default());
    for (record, key) in keys.iter().enumerate() {
        sender.send(&topic, key, record, 10).expect("taken");
    }
    assert!(
        sender
            .outcomes(keys.len())
            .await
            .values()
            .all(Result::is_ok)
    );
    let records = tokio::task::spawn_blocking(move || read_all(&topic))
        .await
        .expect("read");
    assert_eq!(records.len(), keys.len());
    for record in records {
        let key = &keys[number(record.value.as_deref().expect("a value"))];
        assert_eq!((&record.key, record.has_key), (key, true));
        assert_eq!(
            record.partition as usize,
            partition_of(key.as_bytes(), 6),
            "a key of {} bytes",
            key.len()
        );
    }
}
