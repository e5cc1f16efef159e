//! The servers, relays and writers of a run, and the facts that are collected while they run.

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
    schedule::FAULT_DOMAINS,
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

pub(crate) use crate::servers::relays::STEPPED_CLOCK_RELAY;

/// Number of relays without faults.
pub(crate) const RELAYS: u8 = 3;
/// The relay whose servers are not next door, and whose network can be slow: its connections go
/// through the proxy.
pub(crate) const PROXIED_HOST: Host = Host::Relay(2);
/// A topic that faults may delete with all its records.
pub(crate) const DELETABLE_TOPIC: &str = "deletable";
/// A pause of this program of at least this length counts as a stall of the machine.
const STALL_MIN: Duration = Duration::from_secs(1);
/// Time after a stall in which a relay may still lose its lease to another one.
const STALL_EFFECT_MAX: Duration = Duration::from_secs(30);
/// Name of a stall of the machine in the output.
pub(crate) const MACHINE_STALLED: &str = "this machine stalled";
/// Limit for all lanes to get live owners after the last fault.
const ALL_OWNED_MAX: Duration = Duration::from_secs(120);

/// All parts of a run.
pub(crate) struct Testbed {
    /// Folder for data and logs of this run.
    pub(crate) folder: PathBuf,
    pub(crate) postgres: tokio::sync::Mutex<Postgres>,
    pub(crate) kafka: tokio::sync::Mutex<Kafka>,
    pub(crate) relays: tokio::sync::Mutex<Relays>,
    pub(crate) proxy: Proxy,
    pub(crate) ledger: Arc<Ledger>,
    pub(crate) writers: Arc<Writers>,
    /// Topics that exist from the start and are never deleted.
    pub(crate) topics: Vec<String>,
    /// Topics that exist now, of those in the manifests of the relays.
    pub(crate) created: Mutex<Vec<String>>,
    /// Time at which the writers started.
    pub(crate) began: Instant,
    /// Limit for rows that were written before a repair to be published.
    pub(crate) recovery_max: Duration,
    /// How often the database went back in time.
    pub(crate) generation: AtomicUsize,
    /// A lock for each domain: one fault at a time, also if this machine is slow.
    pub(crate) domains: [tokio::sync::Mutex<()>; FAULT_DOMAINS],
    /// Facts that faults and observers record.
    facts: Mutex<Facts>,
}

/// Options of a run.
pub(crate) struct Options<'a> {
    pub(crate) root: &'a Path,
    pub(crate) folder: &'a Path,
    pub(crate) relay: &'a Path,
    /// Program of the relay of another version.
    pub(crate) other_relay: &'a Path,
    pub(crate) relay_arguments: &'a [String],
    pub(crate) load: Load,
    /// Number of topics that exist from the start and are never deleted.
    pub(crate) topics: u8,
    /// Delay each way between [`PROXIED_HOST`] and its servers.
    pub(crate) delay: Duration,
    /// Limit for rows that were written before a repair to be published.
    pub(crate) recovery_max: Duration,
}

fn names(prefix: &str, count: u8) -> Vec<String> {
    (1..=count).map(|n| format!("{prefix}-{n}")).collect()
}

impl Testbed {
    /// Starts all servers and relays.
    ///
    /// # Errors
    ///
    /// If one of them does not start.
    pub(crate) async fn create(options: &Options<'_>) -> anyhow::Result<Arc<Self>> {
        let (topics, late) = (names("orders", options.topics), names("late", 4));
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
        topics::create(&[DELETABLE_TOPIC]).await?;
        let created: Vec<String> = topics
            .iter()
            .cloned()
            .chain([DELETABLE_TOPIC.to_owned()])
            .collect();
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
        let mut testbed = Self {
            folder: options.folder.to_owned(),
            postgres: postgres.into(),
            kafka: cluster.into(),
            relays: relays.into(),
            proxy: Proxy::between(PROXIED_HOST, &servers, options.delay).await?,
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
            recovery_max: options.recovery_max,
            generation: AtomicUsize::new(0),
            domains: Default::default(),
            facts: Mutex::default(),
        };
        for number in 1..=RELAYS {
            testbed.relays.lock().await.start(number)?;
        }
        testbed.wait_until_all_owned().await?;
        testbed.began = Instant::now();
        Ok(Arc::new(testbed))
    }

    /// Prints a line with the time since the writers started.
    pub(crate) fn log(&self, message: &str) {
        println!(
            "   {:>6.1} s  {message}",
            self.began.elapsed().as_secs_f64()
        );
    }

    /// Waits until the writers have run for this time.
    pub(crate) async fn sleep_until(&self, at: Duration) {
        sleep(at.saturating_sub(self.began.elapsed())).await;
    }

    /// Waits until all lanes have a live owner and each running relay owns some. Returns how long
    /// that took.
    ///
    /// # Errors
    ///
    /// If that takes longer than [`ALL_OWNED_MAX`].
    pub(crate) async fn wait_until_all_owned(&self) -> anyhow::Result<Duration> {
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
            if lanes == 64 && idle == 0 && unowned_lanes().await.is_ok_and(|count| count == 0) {
                return Ok(began.elapsed());
            }
            anyhow::ensure!(
                began.elapsed() < ALL_OWNED_MAX,
                "{ALL_OWNED_MAX:?} after the last fault relays {running:?} own only {lanes} lanes"
            );
            sleep(Duration::from_millis(200)).await;
        }
    }

    /// Waits until all rows that were written before a time are published. Returns how long that
    /// took, or `None` if it took longer than `time_limit`.
    pub(crate) async fn wait_until_published(
        &self,
        written_before: Ms,
        time_limit: Duration,
    ) -> Option<Duration> {
        let began = Instant::now();
        while began.elapsed() < time_limit {
            if waiting_rows(written_before)
                .await
                .is_ok_and(|rows| rows == 0)
            {
                return Some(began.elapsed());
            }
            sleep(Duration::from_millis(200)).await;
        }
        None
    }

    /// Records the start of a fault. Returns its index for [`Self::fault_ended`].
    pub(crate) fn fault_started(&self, name: &'static str) -> usize {
        self.update_facts(|facts| {
            facts.faults.push(FaultWindow {
                name,
                from: now_ms(),
                until: Ms::MAX,
            });
            facts.faults.len() - 1
        })
    }

    /// Records that the rows which a fault delayed are published.
    pub(crate) fn fault_ended(&self, fault: usize) {
        self.update_facts(|facts| facts.faults[fault].until = now_ms());
    }

    /// Changes or reads the facts.
    pub(crate) fn update_facts<T>(&self, change: impl FnOnce(&mut Facts) -> T) -> T {
        change(&mut self.facts.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Records when this machine stalls, for example because others use its cores. Relays may lose
    /// their leases then, as with any other fault.
    pub(crate) async fn detect_stalls(self: Arc<Self>) {
        loop {
            let (from, began) = (now_ms(), Instant::now());
            sleep(STALL_MIN / 10).await;
            if began.elapsed() > STALL_MIN {
                let until = now_ms() + STALL_EFFECT_MAX.as_millis() as Ms;
                self.update_facts(|facts| {
                    facts.faults.push(FaultWindow {
                        name: MACHINE_STALLED,
                        from,
                        until,
                    });
                });
            }
        }
    }

    /// Records the owners of all lanes four times a second.
    pub(crate) async fn record_lane_owners(self: Arc<Self>) {
        loop {
            sleep(Duration::from_millis(250)).await;
            let generation = self.generation.load(Ordering::Acquire);
            let Ok(mut connection) = postgres::connect().await else {
                continue;
            };
            while let Ok(rows) =
                query("select lane, epoch, owner from outbox.lane where owner is not null")
                    .fetch_all(&mut connection)
                    .await
            {
                if self.generation.load(Ordering::Acquire) != generation {
                    break;
                }
                let rows = rows
                    .iter()
                    .filter_map(|row| <(i16, i64, Uuid)>::from_row(row).ok());
                let seen = rows.map(|(lane, epoch, owner)| Ownership {
                    generation,
                    lane,
                    epoch,
                    owner,
                });
                self.update_facts(|facts| facts.owners.extend(seen));
                sleep(Duration::from_millis(250)).await;
            }
        }
    }
}

/// Counts the lanes without a live owner.
pub(crate) async fn unowned_lanes() -> sqlx::Result<i64> {
    let sql = "select count(*) from outbox.lane as l where not exists (
        select from outbox.relay as r
        where r.instance = l.owner and r.lease_until > clock_timestamp())";
    sqlx::query_scalar(sql)
        .fetch_one(&mut postgres::connect().await?)
        .await
}

/// Counts the rows in the table that were written before a time.
async fn waiting_rows(written_before: Ms) -> sqlx::Result<i64> {
    let sql =
        "select count(*) from outbox.event where created_at < to_timestamp($1::float8 / 1000)";
    sqlx::query_scalar(sql)
        .bind(written_before)
        .fetch_one(&mut postgres::connect().await?)
        .await
}
