//! What a relay could do at best: read, send and delete, both ends at once, and nothing else. No
//! leases, no faults, no order across failures: a limit to measure against. It runs in a process of
//! its own.

use std::{sync::Mutex, time::Duration};

use outbox_relay::outbox::READER_OPTIONS;
use rdkafka::{
    ClientConfig, ClientContext,
    message::{DeliveryResult, Header, OwnedHeaders},
    producer::{BaseProducer, BaseRecord, Producer, ProducerContext},
};
use sqlx::{
    ConnectOptions, PgConnection, PgPool, Row,
    postgres::{PgConnectOptions, PgPoolOptions, PgRow},
};
use tokio::task::JoinSet;
use uuid::Uuid;

use super::table::plain;

const LANES: i16 = 64;
const WINDOW: usize = 16_384;
pub(crate) const BATCH: usize = 1000;
/// When no lane has more to give.
const PAUSE: Duration = Duration::from_millis(5);
/// DELETEs under way at the same time.
const SETTLES: usize = 4;
const TAKE: &str = "select m.* from unnest($1::smallint[], $2::bigint[]) as u (lane, low) cross join lateral (
     select e.lane, e.id, e.topic, e.aggregate_id, e.payload, e.event_id, e.event_type, e.aggregate_type from outbox.event as e
     where e.lane = u.lane and e.id > u.low order by e.id limit $3) as m";
/// Through the index, as most would: the relay knows where its rows lie, and is faster.
pub(crate) const SETTLE: &str = "select settled from outbox.settle($1, $2, $3)";

/// As long as a relay's: the same records for the broker.
const CREATED_AT: &str = "2026-01-01T00:00:00.000000Z";

type Name = (i16, i64, Uuid);

/// Slots of records that were written.
#[derive(Default)]
struct Acks(Mutex<Vec<usize>>);

impl ClientContext for Acks {}

impl ProducerContext for Acks {
    type DeliveryOpaque = usize;

    fn delivery(&self, report: &DeliveryResult<'_>, slot: usize) {
        assert!(
            report.is_ok(),
            "a bare loop has no answer to a record that fails"
        );
        self.0.lock().expect("not poisoned").push(slot);
    }
}

/// Up to where each lane was read.
pub(crate) struct Lanes {
    lows: Vec<i64>,
    /// Those that gave as much as they were asked for: the next read is theirs.
    hungry: Vec<i16>,
}

impl Lanes {
    pub(crate) fn unread() -> Self {
        Self {
            lows: vec![0; LANES as usize],
            hungry: (0..LANES).collect(),
        }
    }

    /// The next rows, this many at most, or as many as there are lanes.
    pub(crate) async fn take(
        &mut self,
        reader: &mut PgConnection,
        rows: usize,
    ) -> anyhow::Result<Vec<PgRow>> {
        if self.hungry.is_empty() {
            self.hungry = (0..LANES).collect();
        }
        let of_each = (rows / self.hungry.len()).max(1);
        let lows: Vec<i64> = self
            .hungry
            .iter()
            .map(|lane| self.lows[*lane as usize])
            .collect();
        let rows = sqlx::query(TAKE)
            .bind(&self.hungry)
            .bind(&lows)
            .bind(of_each as i64)
            .fetch_all(reader)
            .await?;
        let mut came = [0; LANES as usize];
        for row in &rows {
            let (lane, id, _) = name(row);
            self.lows[lane as usize] = id;
            came[lane as usize] += 1;
        }
        self.hungry.retain(|lane| came[*lane as usize] == of_each);
        Ok(rows)
    }

    /// Whether the last read found the end of all lanes.
    pub(crate) fn are_read(&self) -> bool {
        self.hungry.is_empty()
    }
}

/// Lane, id and event id.
pub(crate) fn name(row: &PgRow) -> Name {
    (row.get(0), row.get(1), row.get(5))
}

/// Carries rows until it is stopped.
pub(crate) async fn run(url: &str, kafka: &str) -> anyhow::Result<()> {
    let producer = producer(kafka)?;
    let options = connect(url)?;
    let settlers = PgPoolOptions::new()
        .max_connections(2)
        .test_before_acquire(false)
        .connect_with(options.clone())
        .await?;
    let (mut reader, mut lanes) = (options.connect().await?, Lanes::unread());
    let (mut slots, mut free): (Vec<Name>, Vec<usize>) =
        (vec![(0, 0, Uuid::nil()); WINDOW], (0..WINDOW).collect());
    let (mut acked, mut settles) = (Vec::new(), JoinSet::new());
    loop {
        while settles.try_join_next().transpose()?.transpose()?.is_some() {}
        for slot in reports(&producer) {
            acked.push(slots[slot]);
            free.push(slot);
        }
        while settles.len() < SETTLES
            && (acked.len() >= BATCH || (free.len() == WINDOW && !acked.is_empty()))
        {
            settles.spawn(settle(
                settlers.clone(),
                acked.split_off(acked.len().saturating_sub(BATCH)),
            ));
        }
        if free.len() < WINDOW / 4 || acked.len() >= WINDOW {
            tokio::time::sleep(Duration::from_millis(1)).await;
            continue;
        }
        for row in lanes.take(&mut reader, free.len()).await? {
            let Some(slot) = free.pop() else {
                anyhow::bail!("more rows than were asked for")
            };
            slots[slot] = name(&row);
            send(&producer, &row, slot)?;
        }
        if lanes.are_read() {
            tokio::time::sleep(PAUSE).await;
        }
    }
}

/// With the planner's settings of a relay, and like all here without TLS.
pub(crate) fn connect(url: &str) -> anyhow::Result<PgConnectOptions> {
    Ok(plain(url)?.options(READER_OPTIONS.iter().copied()))
}

fn producer(kafka: &str) -> anyhow::Result<BaseProducer<Acks>> {
    let mut config = ClientConfig::new();
    config
        .set("bootstrap.servers", kafka)
        .set("enable.idempotence", "true")
        .set("acks", "all")
        .set("max.in.flight", "1");
    config
        .set("enable.gapless.guarantee", "true")
        .set("message.timeout.ms", "0")
        .set("linger.ms", "0");
    config
        .set("compression.type", "lz4")
        .set("partitioner", "murmur2_random")
        .set("queue.buffering.max.messages", "200000");
    Ok(config.create_with_context(Acks::default())?)
}

/// All that came: one call brings those of one batch at most.
fn reports(producer: &BaseProducer<Acks>) -> Vec<usize> {
    let mut all = Vec::new();
    loop {
        producer.poll(Duration::ZERO);
        match std::mem::take(&mut *producer.context().0.lock().expect("not poisoned")) {
            none if none.is_empty() => return all,
            brought => all.extend(brought),
        }
    }
}

/// Deletes.
async fn settle(settlers: PgPool, rows: Vec<Name>) -> anyhow::Result<()> {
    let (lanes, ids, event_ids): (Vec<i16>, Vec<i64>, Vec<Uuid>) = rows.into_iter().collect();
    sqlx::query(SETTLE)
        .bind(&lanes)
        .bind(&ids)
        .bind(&event_ids)
        .execute(&settlers)
        .await?;
    Ok(())
}

fn send(producer: &BaseProducer<Acks>, row: &PgRow, slot: usize) -> anyhow::Result<()> {
    let (event_id, sequence) = (
        row.get::<Uuid, _>(5).to_string(),
        row.get::<i64, _>(1).to_string(),
    );
    let named = [
        ("event_id", event_id.as_str()),
        ("event_type", row.get(6)),
        ("aggregate_type", row.get(7)),
        ("aggregate_id", row.get(3)),
        ("outbox_seq", &sequence),
        ("outbox_created_at", CREATED_AT),
    ];
    let headers = OwnedHeaders::new_with_capacity(named.len());
    let headers = named.into_iter().fold(headers, |all, (key, value)| {
        all.insert(Header {
            key,
            value: Some(value),
        })
    });
    let record = BaseRecord::with_opaque_to(row.get(2), slot)
        .key(row.get::<&str, _>(3))
        .payload(row.get::<&[u8], _>(4));
    producer
        .send(record.headers(headers))
        .map_err(|(error, _)| error.into())
}
