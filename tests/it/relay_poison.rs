//! Rows that Kafka rejects: they block at most their own key, all other rows are published, and an
//! administrator decides what happens to them.

use std::{collections::BTreeMap, time::Instant};

use outbox_relay::{report::ProblemClass, settings::OnPoison};

use crate::harness::{
    kafka::{KafkaVersion, Record, create_topic, create_topic_with, read_all, topic_name},
    outbox::{topic, topic_with, until_rows},
    postgres::{Database, execute, value},
    relay::{Relay, until},
};

/// Limit of the batches of a topic.
const SMALL: &[(&str, &str)] = &[("max.message.bytes", "100000")];

/// Number of rows of the parked topic. `OUTBOX_TEST_MOUNTAIN_ROWS` overrides it.
fn parked_topic_rows() -> u32 {
    std::env::var("OUTBOX_TEST_MOUNTAIN_ROWS")
        .map_or(200_000, |rows| rows.parse().expect("a number"))
}

/// Writes the small rows `from` to `to`, row n with key `k<n % 100>`. The rows in `poison` have
/// 300 kB that do not compress.
async fn insert(database: &Database, topic: &str, from: u32, to: u32, poison: &[u32]) {
    let poison: Vec<String> = poison.iter().map(u32::to_string).collect();
    let sql = format!(
        "insert into outbox.event (aggregate_type, aggregate_id, event_type, topic, payload)
         select 'a', 'k' || n % 100, 'E', '{topic}', case when n = any (array[{}]::int[])
           then (select string_agg(sha256(int4send(g)), '') from generate_series(1, 9500) g) \
           else convert_to(n::text, 'UTF8') end
         from generate_series({from}, {to}) n order by n",
        poison.join(",")
    );
    execute(&mut database.as_admin().await, &sql).await;
}

async fn parked(database: &Database) -> i64 {
    value(
        &mut database.as_admin().await,
        "select count(*) from outbox.parked_key",
    )
    .await
}

async fn read(topic: &str) -> Vec<Record> {
    let topic = topic.to_owned();
    tokio::task::spawn_blocking(move || read_all(&topic))
        .await
        .expect("read")
}

/// The numbers of a key's small records, only first occurrences.
fn firsts(records: &[Record], key: &str) -> Vec<u32> {
    let mut firsts = Vec::new();
    for record in records.iter().filter(|record| record.key == key) {
        let number = String::from_utf8_lossy(record.value.as_deref().unwrap_or_default())
            .parse()
            .unwrap_or(0);
        if !firsts.contains(&number) {
            firsts.push(number);
        }
    }
    firsts
}

on_each_kafka!(no_row_overtakes_a_rejected_one_that_was_the_first_in_its_partition);
/// Brokers detect a gap only in partitions where they know the producer. Here each poison row is
/// the first of its key, in empty partitions.
async fn no_row_overtakes_a_rejected_one_that_was_the_first_in_its_partition(kafka: KafkaVersion) {
    let database = Database::create(15).await.migrated().await;
    let name = topic_name("first");
    kafka.create_topic_with(&name, 24, SMALL).await;
    insert(&database, &name, 0, 299, &(0..24).collect::<Vec<_>>()).await;
    let _relay = Relay::start(
        &database,
        &database.publishing_to(kafka, vec![topic(&name)]),
    )
    .await;
    // All three rows of 24 keys wait, and no rows of the other 76 keys.
    until_rows(&database, 72).await;
    until("24 parked keys", async || {
        (parked(&database).await == 24).then_some(())
    })
    .await;
    let records = kafka.read(&name).await;
    for key in 0..24 {
        assert_eq!(firsts(&records, &format!("k{key}")), [0; 0], "key {key}");
    }
    for key in 24..100 {
        assert_eq!(
            firsts(&records, &format!("k{key}")),
            [key, key + 100, key + 200]
        );
    }
}

on_each_kafka!(a_poison_row_among_10_000_rows_of_100_keys_blocks_one_key_until_it_is_skipped);
async fn a_poison_row_among_10_000_rows_of_100_keys_blocks_one_key_until_it_is_skipped(
    kafka: KafkaVersion,
) {
    let database = Database::create(15).await.migrated().await;
    let name = topic_name("poison");
    kafka.create_topic_with(&name, 6, SMALL).await;
    insert(&database, &name, 1, 10_000, &[5_042]).await;
    let relay = Relay::start(
        &database,
        &database.publishing_to(kafka, vec![topic(&name)]),
    )
    .await;

    // The rows 5042, 5142, ... 9942 of key k42 wait.
    until_rows(&database, 50).await;
    until("the parked key", async || {
        (parked(&database).await == 1).then_some(())
    })
    .await;
    let mut admin = database.as_admin().await;
    let of_key = format!(
        "select format('%s %s %s', key, class, head_id) from outbox.parked_key where topic = \
         '{name}'"
    );
    let head = "select id from outbox.event where octet_length(payload) > 1000";
    let head: i64 = value(&mut admin, head).await;
    assert_eq!(
        value::<String>(&mut admin, &of_key).await,
        format!("k42 RecordTooLarge {head}")
    );
    until("the report of the key", async || {
        let report = relay.report().await?;
        let is_reported = report
            .problems
            .iter()
            .any(|problem| problem.class == ProblemClass::RecordTooLarge);
        (is_reported && report.parked_keys == Some(1)).then_some(())
    })
    .await;

    // A retry changes nothing: the key is parked again, and no row overtakes.
    execute(&mut admin, "delete from outbox.parked_key").await;
    until("the key to be parked again", async || {
        (parked(&database).await == 1).then_some(())
    })
    .await;
    until_rows(&database, 50).await;
    assert_eq!(
        value::<i32>(&mut admin, "select attempts from outbox.parked_key").await,
        1,
        "a new parking"
    );

    execute(
        &mut admin,
        &format!("select outbox.skip_parked('{name}', 'k42')"),
    )
    .await;
    until_rows(&database, 0).await;
    assert_eq!(
        value::<i64>(&mut admin, "select count(*) from outbox.dead_letter").await,
        1
    );
    let records = kafka.read(&name).await;
    for key in 0..100 {
        let expected: Vec<u32> = (1..=10_000)
            .filter(|n| n % 100 == key && *n != 5_042)
            .collect();
        assert_eq!(firsts(&records, &format!("k{key}")), expected, "key k{key}");
    }
}

on_each_kafka!(a_dead_letter_unblocks_its_key_and_follows_all_sent_rows_when_requeued);
async fn a_dead_letter_unblocks_its_key_and_follows_all_sent_rows_when_requeued(
    kafka: KafkaVersion,
) {
    let database = Database::create(15).await.migrated().await;
    let name = topic_name("dead");
    kafka.create_topic_with(&name, 6, SMALL).await;
    insert(&database, &name, 1, 2_000, &[777, 778]).await;
    let _relay = Relay::start(
        &database,
        &database.publishing_to(kafka, vec![topic_with(&name, OnPoison::DeadLetter)]),
    )
    .await;
    until_rows(&database, 0).await;
    let mut admin = database.as_admin().await;
    let dead = "select string_agg(format('%s %s', event_key is null, class), ',' order by id) \
        from outbox.dead_letter";
    assert_eq!(
        value::<String>(&mut admin, dead).await,
        "t RecordTooLarge,t RecordTooLarge"
    );
    assert_eq!(parked(&database).await, 0);

    kafka
        .alter_topic(&name, "max.message.bytes", "1000000")
        .await;
    execute(
        &mut admin,
        "select outbox.requeue(event_id) from outbox.dead_letter order by id",
    )
    .await;
    until_rows(&database, 0).await;
    let records = kafka.read(&name).await;
    for (key, dead) in [("k77", 777), ("k78", 778)] {
        let small: Vec<u32> = (1..=2_000)
            .filter(|n| n % 100 == dead % 100 && *n != dead)
            .collect();
        let all: Vec<u32> = small.into_iter().chain([0]).collect();
        assert_eq!(
            firsts(&records, key),
            all,
            "the large record is read as 0 and is the last one"
        );
    }
}

on_each_kafka!(a_record_above_every_limit_parks_its_key_alone);
async fn a_record_above_every_limit_parks_its_key_alone(kafka: KafkaVersion) {
    let database = Database::create(15).await.migrated().await;
    let (parked_topic, other_topic) = (topic_name("parked"), topic_name("other"));
    kafka.create_topic(&parked_topic).await;
    kafka.create_topic(&other_topic).await;
    let topics = vec![topic(&parked_topic), topic(&other_topic)];
    let _relay = Relay::start(&database, &database.publishing_to(kafka, topics)).await;
    let large = format!(
        "insert into outbox.event (aggregate_type, aggregate_id, event_type, topic, payload)
         values ('a', 'k7', 'E', '{parked_topic}', convert_to(repeat('x', 9000000), 'UTF8'))"
    );
    execute(&mut database.as_admin().await, &large).await;
    insert(&database, &parked_topic, 1, 100, &[]).await;
    insert(&database, &other_topic, 1, 100, &[]).await;
    until_rows(&database, 2).await;
    assert_eq!(
        (
            parked(&database).await,
            kafka.read(&other_topic).await.len(),
            kafka.read(&parked_topic).await.len()
        ),
        (1, 100, 99)
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn parked_rows_are_no_backlog_even_behind_rows_that_wait_for_another_reason() {
    let database = Database::create(15).await.migrated().await;
    let (of_key, of_topic) = (topic_name("key"), topic_name("topic"));
    create_topic_with(&of_key, 6, SMALL).await;
    create_topic(&of_topic).await;
    let mut admin = database.as_admin().await;
    execute(
        &mut admin,
        &format!("insert into outbox.parked_topic (topic) values ('{of_topic}')"),
    )
    .await;
    // Rows 1 to 100 of an undeclared topic, then the rows 142 and 242 of key k42, and 2,000 rows of
    // the parked topic.
    insert(&database, "undeclared", 1, 100, &[]).await;
    insert(&database, &of_key, 101, 300, &[142]).await;
    insert(&database, &of_topic, 301, 2_300, &[]).await;
    let relay = Relay::start(
        &database,
        &database.publishing(vec![topic(&of_key), topic(&of_topic)]),
    )
    .await;
    until_rows(&database, 2_102).await;
    until("the parked key", async || {
        (parked(&database).await == 1).then_some(())
    })
    .await;
    // They are found and reported although fetches exclude parked rows, and the gap scan finds
    // nothing.
    until("the problem", async || {
        relay
            .report()
            .await?
            .problems
            .into_iter()
            .find(|problem| problem.class == ProblemClass::TopicNotDeclared)
    })
    .await;
    assert_eq!(relay.metric("outbox_stragglers_found_total").await, 0.0);
    let backlog = until("a backlog of 100", async || {
        relay
            .report()
            .await?
            .backlog
            .filter(|backlog| backlog.rows == 100)
    })
    .await;
    let oldest = "select to_char(min(created_at) at time zone 'utc', 'YYYY-MM-DD\"T\"HH24:MI:SS') \
        from outbox.event where topic = 'undeclared'";
    let oldest: String = value(&mut admin, oldest).await;
    assert_eq!(
        (
            backlog.capped,
            &backlog.oldest_at.expect("the oldest")[..19]
        ),
        (false, &*oldest)
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_rows_of_a_parked_topic_block_no_others_and_are_published_in_order_when_retried() {
    let database = Database::create(15).await.migrated().await;
    let (parked_topic, other) = (topic_name("parked"), topic_name("other"));
    create_topic(&parked_topic).await;
    create_topic(&other).await;
    let mut admin = database.as_admin().await;
    execute(
        &mut admin,
        &format!("insert into outbox.parked_topic (topic) values ('{parked_topic}')"),
    )
    .await;
    let height = parked_topic_rows();
    insert(&database, &parked_topic, 1, height, &[]).await;
    insert(&database, &other, 1, 64, &[]).await;
    let topics = vec![topic(&parked_topic), topic(&other)];
    let began = Instant::now();
    let relay = Relay::start(&database, &database.publishing(topics)).await;
    until_rows(&database, height.into()).await;
    eprintln!(
        "64 rows behind {height} parked ones after {:?}",
        began.elapsed()
    );
    assert_eq!(
        (read(&other).await.len(), read(&parked_topic).await.len()),
        (64, 0)
    );
    // Later rows also pass the parked rows. Those are not part of the backlog, which would need
    // action.
    insert(&database, &other, 65, 128, &[]).await;
    let began = Instant::now();
    until_rows(&database, height.into()).await;
    eprintln!("64 later ones after {:?}", began.elapsed());
    until("an empty backlog", async || {
        relay
            .report()
            .await?
            .backlog
            .filter(|backlog| backlog.rows == 0)
    })
    .await;

    execute(&mut admin, "delete from outbox.parked_topic").await;
    let began = Instant::now();
    until_rows(&database, 0).await;
    eprintln!("the parked rows after {:?}", began.elapsed());
    let mut by_key: BTreeMap<String, Vec<u32>> = BTreeMap::new();
    for record in read(&parked_topic).await {
        by_key.entry(record.key).or_default().push(
            String::from_utf8_lossy(&record.value.expect("a value"))
                .parse()
                .expect("a number"),
        );
    }
    assert_eq!(
        by_key.values().map(Vec::len).sum::<usize>(),
        height as usize
    );
    assert!(by_key.values().all(|numbers| numbers.is_sorted()));
}
