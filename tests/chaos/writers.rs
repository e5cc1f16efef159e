//! Services that write: 1,000 keys, the first far more often than the last; 5 % of transactions are
//! rolled back, 1 % stay open for long.

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
    dice::{Dice, Zipf},
    facts::{During, Event, Fate},
    ledger::{Ledger, now_ms},
    servers::postgres,
    world::MORTAL,
};

const WRITERS: u64 = 12;
const KEYS: usize = 1000;
/// Keys of a topic that is created later.
const LATE_KEYS: u64 = 20;
/// Transactions that stay open at the same time, at most.
const HELD: usize = 12;
/// Keys of a burst, and how many events their transactions have in turn.
const BURST_KEYS: usize = 9;
const BURST: [u64; 6] = [40, 1, 1, 1, 1, 1];
/// For an answer of the database; a commit that takes longer may have happened, or not.
const ANSWER_MAX: Duration = Duration::from_secs(20);

/// How services write.
#[derive(Clone, Copy)]
pub(crate) struct Load {
    /// Transactions a second.
    pub(crate) rate: u32,
    /// Longest time that a transaction stays open.
    pub(crate) held_max: Duration,
}

pub(crate) struct Writers {
    load: Load,
    ledger: Arc<Ledger>,
    topics: Vec<String>,
    /// Topics that do not exist at the start; so many of them are written to.
    late: Vec<String>,
    late_open: AtomicUsize,
    zipf: Zipf,
    held: Arc<Semaphore>,
    /// So many faults let no transaction stay open.
    hold_nothing: AtomicUsize,
}

/// How the writers of a key take turns.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Turns {
    /// `enqueue` locks the key.
    Enqueue,
    /// The aggregate's row is locked first, and the event inserted directly.
    Row,
    /// Not at all.
    None,
}

impl Turns {
    fn of(key: &str) -> Self {
        match key.bytes().last().unwrap_or_default() {
            b'0'..=b'5' => Self::Enqueue,
            b'9' => Self::None,
            _ => Self::Row,
        }
    }
}

struct Plan {
    topic: String,
    key: String,
    turns: Turns,
    events: u64,
    /// Takes its transaction id long before it takes its turn.
    early_xid: bool,
    hold: Option<Duration>,
    rolls_back: bool,
    bouncer: bool,
}

impl Writers {
    pub(crate) fn new(load: Load, ledger: Arc<Ledger>, topics: &[String], late: &[String]) -> Self {
        let (topics, late) = (topics.to_vec(), late.to_vec());
        Self {
            load,
            ledger,
            topics,
            late,
            late_open: AtomicUsize::new(0),
            zipf: Zipf::of(KEYS),
            held: Arc::new(Semaphore::new(HELD)),
            hold_nothing: AtomicUsize::new(0),
        }
    }

    /// From now on rows are written for one more topic, which does not exist yet; its name. `None`
    /// when there are no more.
    pub(crate) fn open_late_topic(&self) -> Option<&str> {
        let open = self.late_open.load(Ordering::Relaxed);
        let name = self.late.get(open)?;
        self.late_open.store(open + 1, Ordering::Relaxed);
        Some(name)
    }

    /// From now on no transaction stays open, and none is when this returns.
    pub(crate) async fn hold_nothing(&self) {
        self.hold_nothing.fetch_add(1, Ordering::AcqRel);
        drop(self.held.acquire_many(HELD as u32).await);
    }

    /// Longest time that [`Self::hold_nothing`] takes.
    pub(crate) fn held_max(&self) -> Duration {
        self.load.held_max
    }

    /// As before.
    pub(crate) fn hold_again(&self) {
        self.hold_nothing.fetch_sub(1, Ordering::AcqRel);
    }

    /// Writes until it is stopped, and returns when all transactions have ended.
    pub(crate) async fn run(self: Arc<Self>, seed: u64, stop: CancellationToken) {
        let mut writers = JoinSet::new();
        for number in 0..WRITERS {
            writers.spawn(Arc::clone(&self).write(
                Dice::seeded(seed.wrapping_mul(1000).wrapping_add(number)),
                number,
                stop.clone(),
            ));
        }
        while writers.join_next().await.is_some() {}
        // All held transactions have given back their permits.
        drop(self.held.acquire_many(HELD as u32).await);
    }

    async fn write(self: Arc<Self>, mut dice: Dice, number: u64, stop: CancellationToken) {
        let mut ticks = interval(Duration::from_secs(1) * WRITERS as u32 / self.load.rate);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut connection = None;
        loop {
            tokio::select! {
                _ = ticks.tick() => {}
                () = stop.cancelled() => return,
            }
            let plan = self.plan(&mut dice, number.is_multiple_of(4));
            if plan.hold.is_none() {
                connection = self.transact(connection, plan).await;
            } else if self.hold_nothing.load(Ordering::Acquire) == 0
                && let Ok(permit) = Arc::clone(&self.held).try_acquire_owned()
            {
                let writers = Arc::clone(&self);
                tokio::spawn(async move {
                    writers.transact(None, plan).await;
                    drop(permit);
                });
            }
        }
    }

    /// Writes for the hottest keys of a topic as fast as it can: large transactions, each with
    /// small ones at its heels.
    pub(crate) async fn burst(self: Arc<Self>, topic: String, during: Duration) {
        let first = self
            .topics
            .iter()
            .position(|name| *name == topic)
            .unwrap_or_default();
        let keys = (first..KEYS).step_by(self.topics.len()).take(BURST_KEYS);
        join_all(
            keys.map(|key| self.burst_of(&topic, format!("key-{key}"), Instant::now() + during)),
        )
        .await;
    }

    async fn burst_of(&self, topic: &str, key: String, end: Instant) {
        let mut connection = None;
        for events in BURST
            .into_iter()
            .cycle()
            .take_while(|_| Instant::now() < end)
        {
            let (topic, key, turns) = (topic.to_owned(), key.clone(), Turns::of(&key));
            let plan = Plan {
                topic,
                key,
                turns,
                events,
                early_xid: false,
                hold: None,
                rolls_back: false,
                bouncer: false,
            };
            connection = self.transact(connection, plan).await;
        }
    }

    fn plan(&self, dice: &mut Dice, bouncer: bool) -> Plan {
        let hold = dice
            .percent(1.0)
            .then(|| Duration::from_secs_f64(dice.between(1.0, self.load.held_max.as_secs_f64())));
        let late = self.late_open.load(Ordering::Relaxed);
        // One that stays open takes a key by lot: else all would soon wait for the same few.
        let key = if hold.is_some() {
            dice.below(KEYS as u64) as usize
        } else {
            self.zipf.draw(dice)
        };
        let (topic, key) = if dice.percent(5.0) {
            (
                MORTAL.to_owned(),
                format!("{MORTAL}-{}", dice.below(LATE_KEYS)),
            )
        } else if late > 0 && dice.percent(10.0) {
            let topic = &self.late[dice.below(late as u64) as usize];
            (topic.clone(), format!("{topic}-{}", dice.below(LATE_KEYS)))
        } else {
            (
                self.topics[key % self.topics.len()].clone(),
                format!("key-{key}"),
            )
        };
        let turns = Turns::of(&key);
        // Some write many at once, which become a batch of many records.
        let events = if dice.percent(2.0) {
            10 + dice.below(50)
        } else {
            1 + dice.below(6) / 3
        };
        let (early_xid, rolls_back) = (dice.percent(20.0), dice.percent(5.0));
        Plan {
            topic,
            key,
            turns,
            events,
            early_xid,
            hold,
            rolls_back,
            bouncer,
        }
    }

    /// One transaction, on a connection that may be there already; it comes back if it still works.
    async fn transact(&self, connection: Option<PgConnection>, plan: Plan) -> Option<PgConnection> {
        let mut connection = match connection {
            Some(connection) => connection,
            None => match timeout(ANSWER_MAX, postgres::options(plan.bouncer).connect()).await {
                Ok(Ok(connection)) => connection,
                _ => {
                    sleep(Duration::from_millis(200)).await;
                    return None;
                }
            },
        };
        let mut ids = Vec::new();
        let patience = ANSWER_MAX + plan.hold.unwrap_or_default();
        let written = timeout(patience, self.fill(&mut connection, &plan, &mut ids)).await;
        if !matches!(written, Ok(Ok(()))) || plan.rolls_back {
            self.ledger.ended(&ids, Fate::RolledBack);
            let undone = timeout(ANSWER_MAX, raw_sql("rollback").execute(&mut connection)).await;
            return matches!((written, undone), (Ok(_), Ok(Ok(_)))).then_some(connection);
        }
        let asked = now_ms();
        match timeout(ANSWER_MAX, raw_sql("commit").execute(&mut connection)).await {
            Ok(Ok(_)) => {
                self.ledger.ended(
                    &ids,
                    Fate::Committed(During {
                        asked,
                        answered: now_ms(),
                    }),
                );
                Some(connection)
            }
            // It stays unknown.
            _ => None,
        }
    }

    async fn fill(
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
            let id = self.event(plan);
            ids.push(id);
            match plan.turns {
                Turns::Enqueue => {
                    self.insert(connection, ENQUEUE, id, plan).await?;
                    self.take_turn(connection, id, plan).await?;
                }
                Turns::Row => {
                    self.take_turn(connection, id, plan).await?;
                    self.insert(connection, INSERT, id, plan).await?;
                }
                Turns::None => self.insert(connection, INSERT, id, plan).await?,
            }
            query("insert into app.journal (event_id) values ($1)")
                .bind(id)
                .persistent(false)
                .execute(&mut *connection)
                .await?;
        }
        if let Some(hold) = plan.hold {
            sleep(hold).await;
        }
        Ok(())
    }

    /// A new event, in the ledger before its row is in the table.
    fn event(&self, plan: &Plan) -> Uuid {
        let id = Uuid::new_v4();
        // Random, for what a codec makes small fills no batch.
        let filling: String = (0..id.as_bytes()[0] / 16)
            .map(|_| Uuid::new_v4().simple().to_string())
            .collect();
        let payload = format!(
            r#"{{"key":"{}","event":"{id}","filling":"{filling}"}}"#,
            plan.key
        )
        .into_bytes();
        let correlation_id = format!("correlation-{}", id.as_u128() % 1_000_000);
        let (topic, key) = (plan.topic.clone(), plan.key.clone());
        self.ledger.meant(
            id,
            Event {
                topic,
                key,
                turn: None,
                payload,
                correlation_id,
                fate: Fate::Unknown,
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

    async fn take_turn(
        &self,
        connection: &mut PgConnection,
        id: Uuid,
        plan: &Plan,
    ) -> sqlx::Result<()> {
        let row = query(TURN)
            .bind(&plan.key)
            .persistent(false)
            .fetch_one(&mut *connection)
            .await?;
        self.ledger.turn(id, row.try_get(0)?);
        Ok(())
    }
}

/// What services have beside the outbox: whose turn it is, and what was committed.
pub(crate) const SETUP: &str = "create schema app;
    create table app.aggregate (key text primary key, n bigint not null default 0);
    create table app.journal (event_id uuid primary key)";
const TURN: &str = "insert into app.aggregate (key, n) values ($1, 1)
    on conflict (key) do update set n = aggregate.n + 1 returning n";
const ENQUEUE: &str =
    "select outbox.enqueue(event_id => $1, aggregate_type => 'thing', aggregate_id => $2, event_type => 'Happened', topic => $3,
    payload => $4, headers => jsonb_build_object('correlation_id', $5::text))";
const INSERT: &str = "insert into outbox.event (event_id, aggregate_type, aggregate_id, event_type, topic, payload, headers)
    values ($1, 'thing', $2, 'Happened', $3, $4, jsonb_build_object('correlation_id', $5::text))";
