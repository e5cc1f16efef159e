//! Services that write to 1,000 keys, the first far more often than the last. 5 % of their
//! transactions are rolled back, and 1 % stay open for seconds.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use futures::future::join_all;
use sqlx::{ConnectOptions, PgConnection, Row, query, raw_sql};
use tokio::{
    sync::Semaphore,
    task::JoinSet,
    time::{Instant, MissedTickBehavior, interval, sleep, timeout},
};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::{
    facts::{CommitResult, CommitWindow, Event},
    ledger::{Ledger, now_ms},
    rng::{Rng, Zipf},
    servers::postgres,
    testbed::DELETABLE_TOPIC,
};

const WRITERS: u64 = 12;
const KEYS: usize = 1000;
/// Number of keys in each topic that is created or deleted while services write.
const LATE_KEYS: u64 = 20;
/// Most transactions that stay open for seconds at the same time.
const LONG_TRANSACTIONS_MAX: usize = 12;
/// Number of keys of a burst.
const BURST_KEYS: usize = 9;
/// Events per transaction of a burst, repeated in this order for each key.
const BURST_EVENTS: [u64; 6] = [40, 1, 1, 1, 1, 1];
/// Limit for an answer of the database. The result of a commit that takes longer is unknown.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(20);

/// The load that services create.
#[derive(Clone, Copy)]
pub(crate) struct Load {
    /// Transactions per second.
    pub(crate) rate: u32,
    /// Longest time that a transaction stays open.
    pub(crate) held_max: Duration,
}

/// All services of a run.
pub(crate) struct Writers {
    load: Load,
    ledger: Arc<Ledger>,
    topics: Vec<String>,
    /// Topics that do not exist at the start.
    late: Vec<String>,
    /// Number of topics of `late` that services write to.
    late_open: AtomicUsize,
    zipf: Zipf,
    long_transactions: Arc<Semaphore>,
    /// Number of faults that allow no long transactions now.
    long_transaction_pauses: AtomicUsize,
}

/// The lock that serialises the writers of a key.
#[derive(Clone, Copy, PartialEq, Eq)]
enum KeyLock {
    /// `enqueue` locks the key.
    Enqueue,
    /// The aggregate's row is locked first, and the event inserted directly.
    AggregateRow,
    /// No lock: commits have any order.
    None,
}

impl KeyLock {
    fn of(key: &str) -> Self {
        match key.bytes().last().unwrap_or_default() {
            b'0'..=b'5' => Self::Enqueue,
            b'9' => Self::None,
            _ => Self::AggregateRow,
        }
    }
}

/// One transaction before it begins.
struct Plan {
    topic: String,
    key: String,
    key_lock: KeyLock,
    events: u64,
    /// Draws its transaction id long before it locks the key.
    early_xid: bool,
    /// Time that the transaction stays open after its last insert.
    open_for: Option<Duration>,
    rolls_back: bool,
    bouncer: bool,
}

impl Writers {
    /// Services that write to `topics`, and later to topics of `late`.
    pub(crate) fn new(load: Load, ledger: Arc<Ledger>, topics: &[String], late: &[String]) -> Self {
        let (topics, late) = (topics.to_vec(), late.to_vec());
        Self {
            load,
            ledger,
            topics,
            late,
            late_open: AtomicUsize::new(0),
            zipf: Zipf::of(KEYS),
            long_transactions: Arc::new(Semaphore::new(LONG_TRANSACTIONS_MAX)),
            long_transaction_pauses: AtomicUsize::new(0),
        }
    }

    /// Starts writing rows for one more topic, which does not exist yet. Returns its name, or
    /// `None` if all exist.
    pub(crate) fn open_late_topic(&self) -> Option<&str> {
        let open = self.late_open.load(Ordering::Relaxed);
        let name = self.late.get(open)?;
        self.late_open.store(open + 1, Ordering::Relaxed);
        Some(name)
    }

    /// Allows no long transactions from now on, and waits until the last one has ended.
    pub(crate) async fn pause_long_transactions(&self) {
        self.long_transaction_pauses.fetch_add(1, Ordering::AcqRel);
        drop(
            self.long_transactions
                .acquire_many(LONG_TRANSACTIONS_MAX as u32)
                .await,
        );
    }

    /// Longest time that [`Self::pause_long_transactions`] takes.
    pub(crate) fn held_max(&self) -> Duration {
        self.load.held_max
    }

    /// Ends a pause of [`Self::pause_long_transactions`].
    pub(crate) fn resume_long_transactions(&self) {
        self.long_transaction_pauses.fetch_sub(1, Ordering::AcqRel);
    }

    /// Writes until `stop` is cancelled. Returns when all transactions have ended.
    pub(crate) async fn run(self: Arc<Self>, seed: u64, stop: CancellationToken) {
        let mut writers = JoinSet::new();
        for number in 0..WRITERS {
            writers.spawn(Arc::clone(&self).write(
                Rng::from_seed(seed.wrapping_mul(1000).wrapping_add(number)),
                number,
                stop.clone(),
            ));
        }
        while writers.join_next().await.is_some() {}
        // All long transactions have returned their permits.
        drop(
            self.long_transactions
                .acquire_many(LONG_TRANSACTIONS_MAX as u32)
                .await,
        );
    }

    async fn write(self: Arc<Self>, mut rng: Rng, number: u64, stop: CancellationToken) {
        let mut ticks = interval(Duration::from_secs(1) * WRITERS as u32 / self.load.rate);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut connection = None;
        loop {
            tokio::select! {
                _ = ticks.tick() => {}
                () = stop.cancelled() => return,
            }
            let plan = self.plan(&mut rng, number.is_multiple_of(4));
            if plan.open_for.is_none() {
                connection = self.run_transaction(connection, plan).await;
            } else if self.long_transaction_pauses.load(Ordering::Acquire) == 0
                && let Ok(permit) = Arc::clone(&self.long_transactions).try_acquire_owned()
            {
                let writers = Arc::clone(&self);
                tokio::spawn(async move {
                    writers.run_transaction(None, plan).await;
                    drop(permit);
                });
            }
        }
    }

    /// Writes for the hottest keys of a topic as fast as possible: large transactions, each
    /// followed by small ones.
    pub(crate) async fn burst(self: Arc<Self>, topic: String, duration: Duration) {
        let first = self
            .topics
            .iter()
            .position(|name| *name == topic)
            .unwrap_or_default();
        let keys = (first..KEYS).step_by(self.topics.len()).take(BURST_KEYS);
        join_all(
            keys.map(|key| self.burst_of(&topic, format!("key-{key}"), Instant::now() + duration)),
        )
        .await;
    }

    async fn burst_of(&self, topic: &str, key: String, end: Instant) {
        let mut connection = None;
        for events in BURST_EVENTS
            .into_iter()
            .cycle()
            .take_while(|_| Instant::now() < end)
        {
            let (topic, key, key_lock) = (topic.to_owned(), key.clone(), KeyLock::of(&key));
            let plan = Plan {
                topic,
                key,
                key_lock,
                events,
                early_xid: false,
                open_for: None,
                rolls_back: false,
                bouncer: false,
            };
            connection = self.run_transaction(connection, plan).await;
        }
    }

    fn plan(&self, rng: &mut Rng, bouncer: bool) -> Plan {
        let open_for = rng
            .percent(1.0)
            .then(|| Duration::from_secs_f64(rng.between(1.0, self.load.held_max.as_secs_f64())));
        let late = self.late_open.load(Ordering::Relaxed);
        // A long transaction draws its key evenly. Otherwise the others would soon wait for the hot
        // keys.
        let key = if open_for.is_some() {
            rng.below(KEYS as u64) as usize
        } else {
            self.zipf.draw(rng)
        };
        let (topic, key) = if rng.percent(5.0) {
            (
                DELETABLE_TOPIC.to_owned(),
                format!("{DELETABLE_TOPIC}-{}", rng.below(LATE_KEYS)),
            )
        } else if late > 0 && rng.percent(10.0) {
            let topic = &self.late[rng.below(late as u64) as usize];
            (topic.clone(), format!("{topic}-{}", rng.below(LATE_KEYS)))
        } else {
            (
                self.topics[key % self.topics.len()].clone(),
                format!("key-{key}"),
            )
        };
        let key_lock = KeyLock::of(&key);
        // Some write many events at once, which become a batch of many records.
        let events = if rng.percent(2.0) {
            10 + rng.below(50)
        } else {
            1 + rng.below(6) / 3
        };
        let (early_xid, rolls_back) = (rng.percent(20.0), rng.percent(5.0));
        Plan {
            topic,
            key,
            key_lock,
            events,
            early_xid,
            open_for,
            rolls_back,
            bouncer,
        }
    }

    /// Performs a transaction, on a new connection if there is none. Returns the connection if it
    /// still works.
    async fn run_transaction(
        &self,
        connection: Option<PgConnection>,
        plan: Plan,
    ) -> Option<PgConnection> {
        let mut connection = match connection {
            Some(connection) => connection,
            None => {
                match timeout(ANSWER_TIMEOUT, postgres::options(plan.bouncer).connect()).await {
                    Ok(Ok(connection)) => connection,
                    _ => {
                        sleep(Duration::from_millis(200)).await;
                        return None;
                    }
                }
            }
        };
        let mut ids = Vec::new();
        let time_limit = ANSWER_TIMEOUT + plan.open_for.unwrap_or_default();
        let written = timeout(
            time_limit,
            self.write_rows(&mut connection, &plan, &mut ids),
        )
        .await;
        if !matches!(written, Ok(Ok(()))) || plan.rolls_back {
            self.ledger.set_result(&ids, CommitResult::RolledBack);
            let undone =
                timeout(ANSWER_TIMEOUT, raw_sql("rollback").execute(&mut connection)).await;
            return matches!((written, undone), (Ok(_), Ok(Ok(_)))).then_some(connection);
        }
        let requested = now_ms();
        match timeout(ANSWER_TIMEOUT, raw_sql("commit").execute(&mut connection)).await {
            Ok(Ok(_)) => {
                self.ledger.set_result(
                    &ids,
                    CommitResult::Committed(CommitWindow {
                        requested,
                        answered: now_ms(),
                    }),
                );
                Some(connection)
            }
            // The result remains unknown.
            _ => None,
        }
    }

    /// Begins a transaction and writes its rows. Adds their event ids to `ids`.
    async fn write_rows(
        &self,
        connection: &mut PgConnection,
        plan: &Plan,
        ids: &mut Vec<Uuid>,
    ) -> sqlx::Result<()> {
        raw_sql("begin; set local lock_timeout = '5s'")
            .execute(&mut *connection)
            .await?;
        if plan.early_xid {
            raw_sql("select pg_current_xact_id()")
                .execute(&mut *connection)
                .await?;
            sleep(Duration::from_millis(20)).await;
        }
        for _ in 0..plan.events {
            let id = self.new_event(plan);
            ids.push(id);
            match plan.key_lock {
                KeyLock::Enqueue => {
                    self.insert(connection, ENQUEUE, id, plan).await?;
                    self.draw_version(connection, id, plan).await?;
                }
                KeyLock::AggregateRow => {
                    self.draw_version(connection, id, plan).await?;
                    self.insert(connection, INSERT, id, plan).await?;
                }
                KeyLock::None => self.insert(connection, INSERT, id, plan).await?,
            }
            query("insert into app.journal (event_id) values ($1)")
                .bind(id)
                .persistent(false)
                .execute(&mut *connection)
                .await?;
        }
        if let Some(open_for) = plan.open_for {
            sleep(open_for).await;
        }
        Ok(())
    }

    /// Makes an event and adds it to the ledger before its row is in the table.
    fn new_event(&self, plan: &Plan) -> Uuid {
        let id = Uuid::new_v4();
        // Random, because compressible data fills no batch.
        let padding: String = (0..id.as_bytes()[0] / 16)
            .map(|_| Uuid::new_v4().simple().to_string())
            .collect();
        let payload = format!(
            r#"{{"key":"{}","event":"{id}","padding":"{padding}"}}"#,
            plan.key
        )
        .into_bytes();
        let correlation_id = format!("correlation-{}", id.as_u128() % 1_000_000);
        let (topic, key) = (plan.topic.clone(), plan.key.clone());
        self.ledger.add(
            id,
            Event {
                topic,
                key,
                version: None,
                payload,
                correlation_id,
                commit_result: CommitResult::Unknown,
            },
        );
        id
    }

    async fn insert(
        &self,
        connection: &mut PgConnection,
        statement: &'static str,
        id: Uuid,
        plan: &Plan,
    ) -> sqlx::Result<()> {
        let (payload, correlation_id) = self.ledger.content(id);
        let insert = query(statement)
            .bind(id)
            .bind(&plan.key)
            .bind(&plan.topic)
            .bind(payload)
            .bind(correlation_id);
        insert.persistent(false).execute(&mut *connection).await?;
        Ok(())
    }

    /// Draws the next version of the aggregate, and locks its row until the transaction ends.
    async fn draw_version(
        &self,
        connection: &mut PgConnection,
        id: Uuid,
        plan: &Plan,
    ) -> sqlx::Result<()> {
        let row = query(NEXT_VERSION)
            .bind(&plan.key)
            .persistent(false)
            .fetch_one(&mut *connection)
            .await?;
        self.ledger.set_version(id, row.try_get(0)?);
        Ok(())
    }
}

/// Tables of the services beside the outbox: versions of aggregates and a journal of committed
/// events.
pub(crate) const SETUP: &str = "create schema app;
    create table app.aggregate (key text primary key, n bigint not null default 0);
    create table app.journal (event_id uuid primary key)";
const NEXT_VERSION: &str = "insert into app.aggregate (key, n) values ($1, 1)
    on conflict (key) do update set n = aggregate.n + 1 returning n";
const ENQUEUE: &str =
    "select outbox.enqueue(event_id => $1, aggregate_type => 'thing', aggregate_id => $2,
    event_type => 'Happened', topic => $3, payload => $4,
    headers => jsonb_build_object('correlation_id', $5::text))";
const INSERT: &str = "insert into outbox.event
    (event_id, aggregate_type, aggregate_id, event_type, topic, payload, headers)
    values ($1, 'thing', $2, 'Happened', $3, $4, jsonb_build_object('correlation_id', $5::text))";
