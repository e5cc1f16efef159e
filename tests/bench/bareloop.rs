//! The upper limit for a relay: a loop that only reads, sends and deletes. It has no leases,
//! handles no faults and keeps no order across failures. It runs in a separate process.

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
/// Most rows in flight.
const IN_FLIGHT_MAX: usize = 16_384;
/// Rows of one DELETE.
pub(crate) const BATCH: usize = 1000;
/// Pause after a read that found the ends of all lanes.
const PAUSE: Duration = Duration::from_millis(5);
/// Most DELETEs at the same time.
const SETTLES: usize = 4;
const FETCH: &str =
    "select m.* from unnest($1::smallint[], $2::bigint[]) as u (lane, low) cross join lateral (
     select e.lane, e.id, e.topic, e.aggregate_id, e.payload, e.event_id, e.event_type,
       e.aggregate_type from outbox.event as e
     where e.lane = u.lane and e.id > u.low order by e.id limit $3) as m";
/// Deletes through the index, as most programs do. The relay deletes by ctid, which is faster.
pub(crate) const SETTLE: &str = "select settled from outbox.settle($1, $2, $3)";

/// Value of the header, as long as a relay's, so that records have the same size.
const CREATED_AT: &str = "2026-01-01T00:00:00.000000Z";

/// Lane, id and event id of a row.
type RowKey = (i16, i64, Uuid);

/// Slots of acknowledged records.
#[derive(Default)]
struct Acks(Mutex<Vec<usize>>);

impl ClientContext for Acks {}

impl ProducerContext for Acks {
    type DeliveryOpaque = usize;

    fn delivery(&self, report: &DeliveryResult<'_>, slot: usize) {
        assert!(
            report.is_ok(),
            "the bare loop cannot handle a failed record"
        );
        self.0.lock().expect("not poisoned").push(slot);
    }
}

/// Positions of the reads in all lanes.
pub(crate) struct Lanes {
    /// Highest id that was read, by lane.
    read_up_to: Vec<i64>,
    /// Lanes that returned as many rows as requested. Only they are read next.
    with_more: Vec<i16>,
}

impl Lanes {
    pub(crate) fn unread() -> Self {
        Self {
            read_up_to: vec![0; LANES as usize],
            with_more: (0..LANES).collect(),
        }
    }

    /// Reads the next rows: `rows` at most, but at least one per lane.
    pub(crate) async fn fetch(
        &mut self,
        reader: &mut PgConnection,
        rows: usize,
    ) -> anyhow::Result<Vec<PgRow>> {
        if self.with_more.is_empty() {
            self.with_more = (0..LANES).collect();
        }
        let rows_per_lane = (rows / self.with_more.len()).max(1);
        let read_up_to: Vec<i64> = self
            .with_more
            .iter()
            .map(|lane| self.read_up_to[*lane as usize])
            .collect();
        let rows = sqlx::query(FETCH)
            .bind(&self.with_more)
            .bind(&read_up_to)
            .bind(rows_per_lane as i64)
            .fetch_all(reader)
            .await?;
        let mut counts = [0; LANES as usize];
        for row in &rows {
            let (lane, id, _) = row_key(row);
            self.read_up_to[lane as usize] = id;
            counts[lane as usize] += 1;
        }
        self.with_more
            .retain(|lane| counts[*lane as usize] == rows_per_lane);
        Ok(rows)
    }

    /// Whether the last read found the end of all lanes.
    pub(crate) fn are_read(&self) -> bool {
        self.with_more.is_empty()
    }
}

/// Lane, id and event id of a fetched row.
pub(crate) fn row_key(row: &PgRow) -> RowKey {
    (row.get(0), row.get(1), row.get(5))
}

/// Publishes rows until it is killed.
pub(crate) async fn run(url: &str, kafka: &str) -> anyhow::Result<()> {
    let producer = producer(kafka)?;
    let options = connect(url)?;
    let settlers = PgPoolOptions::new()
        .max_connections(2)
        .test_before_acquire(false)
        .connect_with(options.clone())
        .await?;
    let (mut reader, mut lanes) = (options.connect().await?, Lanes::unread());
    let (mut slots, mut free): (Vec<RowKey>, Vec<usize>) = (
        vec![(0, 0, Uuid::nil()); IN_FLIGHT_MAX],
        (0..IN_FLIGHT_MAX).collect(),
    );
    let (mut acked, mut settles) = (Vec::new(), JoinSet::new());
    loop {
        while settles.try_join_next().transpose()?.transpose()?.is_some() {}
        for slot in reports(&producer) {
            acked.push(slots[slot]);
            free.push(slot);
        }
        while settles.len() < SETTLES
            && (acked.len() >= BATCH || (free.len() == IN_FLIGHT_MAX && !acked.is_empty()))
        {
            settles.spawn(settle(
                settlers.clone(),
                acked.split_off(acked.len().saturating_sub(BATCH)),
            ));
        }
        if free.len() < IN_FLIGHT_MAX / 4 || acked.len() >= IN_FLIGHT_MAX {
            tokio::time::sleep(Duration::from_millis(1)).await;
            continue;
        }
        for row in lanes.fetch(&mut reader, free.len()).await? {
            let Some(slot) = free.pop() else {
                anyhow::bail!("more rows than requested")
            };
            slots[slot] = row_key(&row);
            send(&producer, &row, slot)?;
        }
        if lanes.are_read() {
            tokio::time::sleep(PAUSE).await;
        }
    }
}

/// Options to connect with a relay's planner settings, without TLS as all contenders.
pub(crate) fn connect(url: &str) -> anyhow::Result<PgConnectOptions> {
    Ok(plain(url)?.options(READER_OPTIONS.iter().copied()))
}

fn producer(kafka: &str) -> anyhow::Result<BaseProducer<Acks>> {
    let mut config = ClientConfig::new();
    config
        .set("bootstrap.servers", kafka)
        .set("enable.idempotence", "true")
        .set("acks", "all")
        .set("max.in.flight", "5");
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

/// All delivery reports so far. One poll returns those of one batch at most.
fn reports(producer: &BaseProducer<Acks>) -> Vec<usize> {
    let mut all = Vec::new();
    loop {
        producer.poll(Duration::ZERO);
        match std::mem::take(&mut *producer.context().0.lock().expect("not poisoned")) {
            reports if reports.is_empty() => return all,
            reports => all.extend(reports),
        }
    }
}

/// Deletes rows.
async fn settle(settlers: PgPool, rows: Vec<RowKey>) -> anyhow::Result<()> {
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
