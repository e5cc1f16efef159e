//! Where keys go: to the partition that Java's producers choose, so that topics written by both can be joined and keep their order.

use outbox_relay::kafka::Sizes;

use crate::harness::{
    kafka::{create_topic, read_all, topic_name},
    producer::{Sender, number},
    rig::rig,
};

/// The hash of Kafka's Java producer: murmur2 in 32 bits, with its seed.
fn murmur2(key: &[u8]) -> i32 {
    const M: u32 = 0x5bd1_e995;
    let mut hash: u32 = 0x9747_b28c ^ key.len() as u32;
    let mut words = key.chunks_exact(4);
    for word in &mut words {
        let mut k = u32::from_le_bytes(word.try_into().expect("four bytes")).wrapping_mul(M);
        k ^= k >> 24;
        hash = hash.wrapping_mul(M) ^ k.wrapping_mul(M);
    }
    let rest = words.remainder();
    if !rest.is_empty() {
        let tail = rest.iter().rev().fold(0, |tail, byte| tail << 8 | u32::from(*byte));
        hash = (hash ^ tail).wrapping_mul(M);
    }
    hash ^= hash >> 13;
    hash = hash.wrapping_mul(M);
    (hash ^ hash >> 15).cast_signed()
}

fn partition(key: &[u8], partitions: i32) -> i32 {
    (murmur2(key) & 0x7fff_ffff) % partitions
}

/// Published with Kafka's own client.
#[test]
fn the_hash_is_the_one_of_javas_producer() {
    for (key, hash) in [
        ("21", -973_932_308),
        ("foobar", -790_332_482),
        ("a-little-bit-long-string", -985_981_536),
        ("a-little-bit-longer-string", -1_486_304_829),
        ("lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58_897_971),
        ("abc", 479_470_107),
    ] {
        assert_eq!(murmur2(key.as_bytes()), hash, "{key}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_is_in_the_partition_that_javas_producer_chooses() {
    let topic = topic_name("keys");
    create_topic(&topic).await;
    let mut keys: Vec<String> = (0..100).map(|n| format!("key-{n}")).collect();
    keys.extend(["", "ä", "日本語", "🦀", "a\u{301}", " ", "\t\n", "a\u{1}b"].map(str::to_owned));
    keys.push("ключ".repeat(12_500));
    let mut sender = Sender::new(&rig("RIG_KAFKA"), Sizes::default());
    for (record, key) in keys.iter().enumerate() {
        sender.send(&topic, key, record, 10).expect("taken");
    }
    assert!(sender.outcomes(keys.len()).await.values().all(Result::is_ok));
    let records = tokio::task::spawn_blocking(move || read_all(&topic)).await.expect("read");
    assert_eq!(records.len(), keys.len());
    for record in records {
        let key = &keys[number(record.value.as_deref().expect("a value"))];
        assert_eq!((&record.key, record.has_key), (key, true));
        assert_eq!(record.partition, partition(key.as_bytes(), 6), "a key of {} bytes", key.len());
    }
}
