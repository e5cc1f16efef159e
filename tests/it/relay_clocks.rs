//! Clocks that are wrong. The time of a record is the row's, by the clock of the database: neither
//! the node's clock nor a limit of the topic makes a row wait, or is its fault.

use std::collections::{BTreeMap, BTreeSet};

use outbox_relay::{report::ProblemClass, settings::OnPoison};

use rdkafka::admin::{NewTopic, TopicReplication};

use crate::{
    cli::Cli,
    harness::{
        brokers::Brokers,
        fake_clock::FakeClock,
        kafka::{KafkaVersion, Record, create_topic_at, read_all_at, topic_name},
        outbox::{topic, topic_with, wait_until_drained},
        postgres::{Database, execute, value, values},
        relay::{Relay, until},
        writers::{Steady, verify},
    },
};

const S: i64 = 1000;
const MIN: i64 = 60 * S;
const HOUR: i64 = 60 * MIN;
const DAY: i64 = 24 * HOUR;

/// Writes a row for each age in ms; a negative one is ahead. Each has a key of its own.
async fn insert(database: &Database, topic: &str, ages_ms: &[i64]) {
    let sql = format!(
        "insert into outbox.event (aggregate_type, aggregate_id, event_type, topic, payload, created_at)
         select 'a', 'key-' || n, 'E', '{topic}', 'p', clock_timestamp() - age * interval '1 ms'
         from unnest(array{ages_ms:?}::bigint[]) with ordinality as ages (age, n)"
    );
    execute(&mut database.as_admin().await, &sql).await;
}

/// Time of the database, ms since 1970.
async fn database_ms(database: &Database) -> i64 {
    let sql = "select (extract(epoch from clock_timestamp()) * 1000)::bigint";
    value(&mut database.as_admin().await, sql).await
}

/// `created_at` of the waiting rows by event id, in ms since 1970.
async fn created_ms(database: &Database) -> BTreeMap<String, i64> {
    let sql =
        "select event_id || ' ' || floor(extract(epoch from created_at) * 1000) from outbox.event";
    let rows = values::<String>(&mut database.as_admin().await, sql).await;
    let split = |row: &String| {
        let (id, ms) = row.split_once(' ').expect("two");
        (id.to_owned(), ms.parse().expect("a number"))
    };
    rows.iter().map(split).collect()
}

/// Nothing is parked, and nothing is a dead letter.
async fn nothing_is_blamed(database: &Database) {
    let sql = "select (select count(*) from outbox.parked_key) + (select count(*) from outbox.dead_letter)";
    assert_eq!(value::<i64>(&mut database.as_admin().await, sql).await, 0);
}

fn ids(records: &[Record]) -> BTreeSet<String> {
    records
        .iter()
        .map(|record| record.event_id().to_string())
        .collect()
}

/// A topic, the greatest age of its records' timestamps in ms, and what happens to rejected rows.
struct Expected {
    topic: String,
    age_max_ms: i64,
    on_poison: OnPoison,
}

/// Creates two topics with a property: one for each thing that can happen to rejected rows.
async fn create_topics(
    kafka: KafkaVersion,
    (property, limit): (&str, &str),
    age_max_ms: i64,
) -> [Expected; 2] {
    let [block, dead_letter] = [topic_name("block"), topic_name("dead-letter")];
    for name in [&block, &dead_letter] {
        kafka.create_topic_with(name, 3, &[(property, limit)]).await;
    }
    [
        (block, OnPoison::Block),
        (dead_letter, OnPoison::DeadLetter),
    ]
    .map(|(topic, on_poison)| Expected {
        topic,
        age_max_ms,
        on_poison,
    })
}

/// Publishes rows of these ages to each topic, and checks that each record has the time of its row,
/// moved to the nearest one that is neither too old nor ahead, within a second.
async fn check_times(kafka: KafkaVersion, clock: &FakeClock, topics: &[Expected], ages_ms: &[i64]) {
    let database = Database::create(15).await.migrated().await;
    let declared = topics.iter().map(|of| topic_with(&of.topic, of.on_poison));
    let settings = database.publishing_to(kafka, declared.collect());
    for of in topics {
        insert(&database, &of.topic, ages_ms).await;
    }
    let (created, before) = (created_ms(&database).await, database_ms(&database).await);
    let _relay = Relay::start_at(clock, &database, &settings).await;
    wait_until_drained(&database).await;
    let after = database_ms(&database).await;
    for of in topics {
        let records = kafka.read(&of.topic).await;
        let rows = ages_ms.len();
        assert_eq!((records.len(), ids(&records).len()), (rows, rows));
        for record in &records {
            let own = created[&record.event_id().to_string()];
            let timestamp = record.timestamp_ms.expect("a time");
            let earliest = own.clamp(before - of.age_max_ms, before) - S;
            let latest = own.clamp(after - of.age_max_ms, after) + S;
            assert!(
                (earliest..=latest).contains(&timestamp),
                "{} ms: created {} ms before the start, the record {} ms",
                of.age_max_ms,
                before - own,
                before - timestamp
            );
        }
    }
    nothing_is_blamed(&database).await;
}

/// Problems of clocks that the relay reports: those that stop nothing, or those of topics.
async fn clock_skew(relay: &Relay, advice: bool) -> Vec<String> {
    let report = relay.report().await;
    let problems = report.into_iter().flat_map(|report| report.problems);
    problems
        .filter(|problem| problem.class == ProblemClass::ClockSkew && problem.advice == advice)
        .map(|problem| problem.message)
        .collect()
}

/// The brokers reject times that are more than an hour ahead, by their default.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rows_keep_their_times_when_the_clock_of_the_node_is_a_day_off() {
    let (kafka, hour) = (KafkaVersion::V4_3, ("retention.ms", "3600000"));
    for ahead in [-DAY / S, 3605, DAY / S] {
        let topics = create_topics(kafka, hour, 30 * MIN).await;
        let ages = [0, 20 * MIN, 3 * HOUR, 400 * DAY, -2 * HOUR];
        check_times(kafka, &FakeClock::ahead_by(ahead), &topics, &ages).await;
    }
}

on_each_kafka!(limits_of_timestamps_make_no_row_wait_however_old_or_far_ahead_it_is);
async fn limits_of_timestamps_make_no_row_wait_however_old_or_far_ahead_it_is(kafka: KafkaVersion) {
    let mut topics = Vec::new();
    for (property, limit, age_max_ms) in [
        ("message.timestamp.before.max.ms", "60000", 30 * S),
        ("message.timestamp.after.max.ms", "1000", 30 * MIN),
        ("message.timestamp.difference.max.ms", "60000", 30 * S),
        ("retention.ms", "600000", 5 * MIN),
        ("retention.ms", "-1", 30 * MIN),
    ] {
        // Kafka 4 removed it.
        if kafka == KafkaVersion::V3_8 || !property.contains("difference") {
            topics.extend(create_topics(kafka, (property, limit), age_max_ms).await);
        }
    }
    let ages = [0, 20 * S, 75 * S, 10 * MIN, 2 * HOUR, -30 * S, -DAY];
    check_times(kafka, &FakeClock::ahead_by(0), &topics, &ages).await;
}

/// A broker judges times when it appends records: after an outage, those that were sent before it
/// are too old. Only the time of the records is at fault.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn records_that_became_too_old_on_their_way_are_sent_again_with_another_time() {
    let brokers = Brokers::start(1).await;
    let name = topic_name("outage");
    let topics = NewTopic::new(&name, 3, TopicReplication::Fixed(1));
    let topics = topics.set("message.timestamp.before.max.ms", "2000");
    create_topic_at(&brokers.servers(), &topics).await;
    let database = Database::create(15).await.migrated().await;
    let mut settings = database.publishing(vec![topic_with(&name, OnPoison::DeadLetter)]);
    settings.kafka.bootstrap_servers = vec![brokers.servers()];
    let relay = Relay::start(&database, &settings).await;
    insert(&database, &name, &[0; 10]).await;
    wait_until_drained(&database).await;
    let rejected = format!("outbox_events_failed_total{{class=\"ClockSkew\",topic=\"{name}\"}}");
    let mut written = 10;
    // On a busy machine the breaker opens meanwhile: then the rows are read again, with new times.
    for _ in 0..5 {
        let before = relay.metric("outbox_events_added_total").await;
        brokers.signal(1, "STOP");
        insert(&database, &name, &[0; 50]).await;
        written += 50;
        until("rows to be with a producer", async || {
            (relay.metric("outbox_events_added_total").await > before).then_some(())
        })
        .await;
        let stopped = database_ms(&database).await;
        until("their times to be too old", async || {
            (database_ms(&database).await > stopped + 3 * S).then_some(())
        })
        .await;
        brokers.signal(1, "CONT");
        wait_until_drained(&database).await;
        if relay.metric(&rejected).await > 0.0 {
            break;
        }
    }
    assert!(relay.metric(&rejected).await > 0.0, "none was rejected");
    let (servers, read) = (brokers.servers(), name.clone());
    let records = tokio::task::spawn_blocking(move || read_all_at(&servers, &read));
    assert_eq!(ids(&records.await.expect("read")).len(), written);
    nothing_is_blamed(&database).await;
}

/// The clock is set on and back by a day while rows are written. The clients of Kafka are replaced
/// when it was set back, and nothing is published twice.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_clock_that_is_stepped_under_load_changes_nothing_of_what_is_published() {
    let database = Database::create(15).await.migrated().await;
    let (name, kafka) = (topic_name("stepped"), KafkaVersion::V4_3);
    kafka.create_topic(&name).await;
    let settings = database.publishing_to(kafka, vec![topic_with(&name, OnPoison::DeadLetter)]);
    let clock = FakeClock::ahead_by(0);
    let relay = Relay::start_at(&clock, &database, &settings).await;
    let steady = Steady::start(&database, &name, 20);
    let mut rows = 0;
    for (ahead, words) in [
        (86_400, Some("24 h ahead of")),
        (-86_400, Some("24 h behind")),
        (-3600, Some("60 min behind")),
        (0, None),
    ] {
        rows += 400;
        steady.wait_until_written(rows).await;
        clock.set(ahead);
        until(&format!("the problem of {ahead} s"), async || {
            let found = clock_skew(&relay, true).await;
            let is_right = match words {
                Some(words) => found.iter().any(|message| message.contains(words)),
                None => found.is_empty(),
            };
            is_right.then_some(())
        })
        .await;
        let metric = format!("outbox_events_published_total{{topic=\"{name}\"}}");
        let published = relay.metric(&metric).await;
        until("rows to be published after the step", async || {
            (relay.metric(&metric).await >= published + 100.0).then_some(())
        })
        .await;
    }
    let committed = steady.stop().await;
    wait_until_drained(&database).await;
    let records = kafka.read(&name).await;
    assert_eq!(verify(&committed, &records), 0, "duplicates");
    for record in &records {
        let created: jiff::Timestamp = record.headers["outbox_created_at"].parse().expect("a time");
        let timestamp = record.timestamp_ms.expect("a time");
        let apart = (timestamp - created.as_millisecond()).abs();
        assert!(apart < S, "{created} became {timestamp}");
    }
    nothing_is_blamed(&database).await;
    let latency = relay.metric("outbox_publish_latency_seconds_sum").await;
    assert!(
        latency < 3600.0,
        "{latency} s in total: the clock of the node is in it"
    );
}

/// Brokers whose clock is two hours behind reject all times of the database, by their default.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_topic_whose_brokers_have_another_time_waits_without_blame_until_it_is_corrected() {
    let brokers = Brokers::start_at(FakeClock::ahead_by(-7200)).await;
    let (own, appended) = (topic_name("own"), topic_name("appended"));
    for (name, kind) in [(&own, "CreateTime"), (&appended, "LogAppendTime")] {
        let topic = NewTopic::new(name, 2, TopicReplication::Fixed(1));
        create_topic_at(
            &brokers.servers(),
            &topic.set("message.timestamp.type", kind),
        )
        .await;
    }
    let database = Database::create(15).await.migrated().await;
    let topics = [topic(&own), topic_with(&appended, OnPoison::DeadLetter)];
    let mut settings = database.publishing(topics.to_vec());
    settings.kafka.bootstrap_servers = vec![brokers.servers()];
    for name in [&own, &appended] {
        insert(&database, name, &[0; 50]).await;
    }
    let relay = Relay::start(&database, &settings).await;
    until("the problem of the topic", async || {
        let found = clock_skew(&relay, false).await;
        found
            .iter()
            .any(|message| message.contains(&own))
            .then_some(())
    })
    .await;
    until("the problem of the brokers", async || {
        let found = clock_skew(&relay, true).await;
        found
            .iter()
            .any(|message| message.contains("2 h behind"))
            .then_some(())
    })
    .await;
    let waiting = "select string_agg(distinct topic, ',') from outbox.event";
    until("the other topic's rows to be published", async || {
        let waiting = value::<String>(&mut database.as_admin().await, waiting).await;
        (waiting == own).then_some(())
    })
    .await;
    nothing_is_blamed(&database).await;
    brokers.set_clock(0);
    wait_until_drained(&database).await;
    nothing_is_blamed(&database).await;
    for name in [own.clone(), appended] {
        let servers = brokers.servers();
        let records = tokio::task::spawn_blocking(move || read_all_at(&servers, &name))
            .await
            .expect("read");
        assert_eq!((records.len(), ids(&records).len()), (50, 50));
    }
    until("the problem of the topic to end", async || {
        clock_skew(&relay, false).await.is_empty().then_some(())
    })
    .await;
}

on_oldest_and_newest_server! {
/// Rows of a topic that does not exist wait, so that all that shows waiting rows is asked, too.
async fn times_that_rfc_3339_cannot_hold_are_the_nearest_that_it_can(database: Database) {
    const FIRST: &str = "0001-01-01T00:00:00.000000Z";
    const LAST: &str = "9999-12-31T23:59:59.999999Z";
    let times = [
        ("-infinity", FIRST),
        ("4713-01-01 00:00:00+00 BC", FIRST),
        ("0001-12-31 23:59:59.999999+00 BC", FIRST),
        ("0001-01-01 00:00:00+00", FIRST),
        ("9999-12-31 23:59:59.999999+00", LAST),
        ("10000-01-01 00:00:00+00", LAST),
        ("294276-12-31 23:59:59.999999+00", LAST),
        ("infinity", LAST),
    ];
    let database = database.migrated().await;
    let (name, kafka) = (topic_name("odd-times"), KafkaVersion::V4_3);
    let settings = database.publishing_to(kafka, vec![topic(&name)]);
    let relay = Relay::start(&database, &settings).await;
    let mut admin = database.as_admin().await;
    let oldest = async || relay.report().await?.backlog?.oldest_at;
    // The last one first: while it is alone, it is the oldest.
    for (time, expected) in times.iter().rev() {
        let sql = format!(
            "insert into outbox.event (aggregate_type, aggregate_id, event_type, topic, created_at) \
             values ('a', '{expected}', 'E', '{name}', '{time}')"
        );
        execute(&mut admin, &sql).await;
        let shown = Cli::new(&database).json("status").to_string();
        let seconds = expected.split('.').next().expect("a time");
        assert!(shown.contains(seconds), "{time}: {shown}");
        if *time == "infinity" || *time == "-infinity" {
            until(&format!("{time} as the oldest time"), async || {
                (oldest().await.as_deref() == Some(*expected)).then_some(())
            })
            .await;
        }
    }
    kafka.create_topic(&name).await;
    wait_until_drained(&database).await;
    let records = kafka.read(&name).await;
    assert_eq!(records.len(), times.len());
    for record in &records {
        assert_eq!(record.headers["outbox_created_at"], record.key);
    }
    nothing_is_blamed(&database).await;
    let dead = format!(
        "insert into outbox.dead_letter (id, lane, event_id, aggregate_type, aggregate_id, event_type, \
         destination, headers, created_at, class, attempts, first_failed_at) values \
         (1, 1, gen_random_uuid(), 'a', 'k', 'E', '{name}', '{{}}', 'infinity', 'RecordRejected', 1, now())"
    );
    execute(&mut admin, &dead).await;
    let dead = Cli::new(&database).json("dead-letters list");
    assert!(dead.to_string().contains("9999-12-31T23:59:59Z"), "{dead}");
}
}
