//! All that runs, and what is known of it on the way.

use std::{
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use anyhow::Context;
use sqlx::{FromRow, query, raw_sql};
use tokio::time::{Instant, sleep};
use uuid::Uuid;

use crate::{
    facts::{Facts, FaultWindow, Ms, Ownership},
    ledger::{Ledger, now_ms},
    schedule::SPHERES,
    servers::{
        kafka::{self, BROKERS, Kafka},
        net::{self, Host},
        postgres::{self, Postgres},
        proxy::Proxy,
        relays::{self, RELAYS_MAX, Relays},
    },
    topics,
    writers::{Load, SETUP, Writers},
};

pub(crate) use crate::servers::relays::CLOCKED;

pub(crate) const RELAYS: u8 = 3;
/// The relay whose network may be slow.
pub(crate) const DIVERTED: Host = Host::Relay(2);
/// A topic that may be deleted, with all that it holds.
pub(crate) const MORTAL: &str = "mortal";
/// Of this machine.
const STALL: Duration = Duration::from_secs(1);
/// So long after a stall a relay may still find that its lease was lost, and another take over.
const STALL_ECHO: Duration = Duration::from_secs(30);
pub(crate) const STALLED: &str = "this machine stood still";
/// Until relays, brokers and databases that nobody disturbs are as they should be.
const REST_MAX: Duration = Duration::from_secs(120);

pub(crate) struct World {
    /// Where this run keeps data and logs.
    pub(crate) folder: PathBuf,
    pub(crate) postgres: tokio::sync::Mutex<Postgres>,
    pub(crate) kafka: tokio::sync::Mutex<Kafka>,
    pub(crate) relays: tokio::sync::Mutex<Relays>,
    pub(crate) proxy: Proxy,
    pub(crate) ledger: Arc<Ledger>,
    pub(crate) writers: Arc<Writers>,
    pub(crate) topics: Vec<String>,
    /// Topics that exist, among those that relays know.
    pub(crate) created: Mutex<Vec<String>>,
    pub(crate) began: Instant,
    /// Until rows that were written before a fault was mended are published.
    pub(crate) heal_max: Duration,
    /// How often the database went back in time.
    pub(crate) life: AtomicUsize,
    /// One fault of each sphere at a time, also when this machine is slow.
    pub(crate) spheres: [tokio::sync::Mutex<()>; SPHERES],
    /// What faults add to the facts.
    notes: Mutex<Facts>,
}

/// How a world is made.
pub(crate) struct Options<'a> {
    pub(crate) root: &'a Path,
    pub(crate) folder: &'a Path,
    pub(crate) relay: &'a Path,
    /// Of another version.
    pub(crate) other_relay: &'a Path,
    pub(crate) relay_arguments: &'a [String],
    pub(crate) load: Load,
    /// Until rows that were written before a fault was mended are published.
    pub(crate) heal_max: Duration,
}

fn names(prefix: &str, count: u8) -> Vec<String> {
    (1..=count).map(|n| format!("{prefix}-{n}")).collect()
}

impl World {
    pub(crate) async fn create(options: &Options<'_>) -> anyhow::Result<Arc<Self>> {
        let (topics, late) = (names("orders", 3), names("late", 4));
        let hosts = [Host::Postgres]
            .into_iter()
            .chain((1..=BROKERS).map(Host::Broker))
            .chain((1..=RELAYS_MAX).map(Host::Relay));
        net::create(&hosts.collect::<Vec<_>>())?;
        let (postgres, cluster) = tokio::try_join!(
            Postgres::create(options.folder),
            Kafka::create(options.folder, options.root)
        )?;
        topics::create(&topics.iter().map(String::as_str).collect::<Vec<_>>())
            .await
            .context("cannot create topics")?;
        topics::create(&[MORTAL]).await?;
        let created: Vec<String> = topics.iter().cloned().chain([MORTAL.to_owned()]).collect();
        let known: Vec<String> = created.iter().chain(&late).cloned().collect();
        let relays = Relays::new(
            options.folder,
            options.relay,
            options.other_relay,
            &known,
            options.relay_arguments,
        )?;
        let ledger = Arc::new(Ledger::default());
        let brokers = (1..=BROKERS).map(|number| (Host::Broker(number), kafka::PORT));
        let servers: Vec<_> = brokers.chain([(Host::Postgres, postgres::PORT)]).collect();
        raw_sql(SETUP)
            .execute(&mut postgres::connect().await?)
            .await?;
        let mut world = Self {
            folder: options.folder.to_owned(),
            postgres: postgres.into(),
            kafka: cluster.into(),
            relays: relays.into(),
            proxy: Proxy::between(DIVERTED, &servers).await?,
            writers: Arc::new(Writers::new(
                options.load,
                Arc::clone(&ledger),
                &topics,
                &late,
            )),
            ledger,
            created: Mutex::new(created),
            topics,
            began: Instant::now(),
            heal_max: options.heal_max,
            life: AtomicUsize::new(0),
            spheres: Default::default(),
            notes: Mutex::default(),
        };
        for number in 1..=RELAYS {
            world.relays.lock().await.start(number)?;
        }
        world.rests().await?;
        world.began = Instant::now();
        Ok(Arc::new(world))
    }

    /// With the time since writers began.
    pub(crate) fn say(&self, words: &str) {
        println!("   {:>6.1} s  {words}", self.began.elapsed().as_secs_f64());
    }

    /// Waits until so long after writers began.
    pub(crate) async fn reaches(&self, at: Duration) {
        sleep(at.saturating_sub(self.began.elapsed())).await;
    }

    /// Waits until all lanes have a live owner, and each relay that runs has some.
    pub(crate) async fn rests(&self) -> anyhow::Result<Duration> {
        let began = Instant::now();
        loop {
            let running = self.relays.lock().await.running();
            let (mut lanes, mut idle) = (0, 0);
            for number in &running {
                let owned = relays::report(*number)
                    .await
                    .map_or(0, |report| report.lanes);
                lanes += owned;
                idle += u32::from(owned == 0);
            }
            if lanes == 64 && idle == 0 && unowned().await.is_ok_and(|unowned| unowned == 0) {
                return Ok(began.elapsed());
            }
            anyhow::ensure!(
                began.elapsed() < REST_MAX,
                "{REST_MAX:?} after the last fault relays {running:?} own {lanes} lanes"
            );
            sleep(Duration::from_millis(200)).await;
        }
    }

    /// Waits until no row is left that was written before; how long that took, `None` if it never
    /// came to that.
    pub(crate) async fn settles(&self, written_before: Ms, patience: Duration) -> Option<Duration> {
        let began = Instant::now();
        while began.elapsed() < patience {
            if waiting(written_before).await.is_ok_and(|rows| rows == 0) {
                return Some(began.elapsed());
            }
            sleep(Duration::from_millis(200)).await;
        }
        None
    }

    pub(crate) fn fault_began(&self, name: &'static str) -> usize {
        self.note(|notes| {
            notes.faults.push(FaultWindow {
                name,
                from: now_ms(),
                until: Ms::MAX,
            });
            notes.faults.len() - 1
        })
    }

    pub(crate) fn fault_healed(&self, fault: usize) {
        self.note(|notes| notes.faults[fault].until = now_ms());
    }

    pub(crate) fn note<T>(&self, change: impl FnOnce(&mut Facts) -> T) -> T {
        change(&mut self.notes.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Notices when this machine has no time for anybody: relays may lose their leases then, as by
    /// any other fault.
    pub(crate) async fn watch_machine(self: Arc<Self>) {
        loop {
            let (from, began) = (now_ms(), Instant::now());
            sleep(STALL / 10).await;
            if began.elapsed() > STALL {
                let until = now_ms() + STALL_ECHO.as_millis() as Ms;
                self.note(|notes| {
                    notes.faults.push(FaultWindow {
                        name: STALLED,
                        from,
                        until,
                    })
                });
            }
        }
    }

    /// Looks now and then who owns which lane.
    pub(crate) async fn observe(self: Arc<Self>) {
        loop {
            sleep(Duration::from_millis(250)).await;
            let life = self.life.load(Ordering::Acquire);
            let Ok(mut connection) = postgres::connect().await else {
                continue;
            };
            while let Ok(rows) =
                query("select lane, epoch, owner from outbox.lane where owner is not null")
                    .fetch_all(&mut connection)
                    .await
            {
                if self.life.load(Ordering::Acquire) != life {
                    break;
                }
                let rows = rows
                    .iter()
                    .filter_map(|row| <(i16, i64, Uuid)>::from_row(row).ok());
                let seen = rows.map(|(lane, epoch, owner)| Ownership {
                    life,
                    lane,
                    epoch,
                    owner,
                });
                self.note(|notes| notes.owners.extend(seen));
                sleep(Duration::from_millis(250)).await;
            }
        }
    }
}

/// Lanes without a live owner.
pub(crate) async fn unowned() -> sqlx::Result<i64> {
    let lanes = "select count(*) from outbox.lane as l
        where not exists (select from outbox.relay as r where r.instance = l.owner and r.lease_until > clock_timestamp())";
    sqlx::query_scalar(lanes)
        .fetch_one(&mut postgres::connect().await?)
        .await
}

async fn waiting(written_before: Ms) -> sqlx::Result<i64> {
    let rows =
        "select count(*) from outbox.event where created_at < to_timestamp($1::float8 / 1000)";
    sqlx::query_scalar(rows)
        .bind(written_before)
        .fetch_one(&mut postgres::connect().await?)
        .await
}
