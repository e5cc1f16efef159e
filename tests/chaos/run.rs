//! One run: start the servers, write, inject faults, repair them, read Kafka, check the promises.

use std::{
    collections::{BTreeMap, HashSet},
    future::pending,
    sync::{Arc, PoisonError},
    time::Duration,
};

use anyhow::Context;
use futures::future::try_join_all;
use sqlx::PgConnection;
use tokio::{task::spawn_blocking, time::sleep};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::{
    Run,
    checker::{self, CheckReport},
    controls::{self, Control, PlantedBug},
    diagnostics,
    facts::Facts,
    faults::{self, Recovery},
    ledger::now_ms,
    schedule::Fault,
    servers::postgres,
    testbed::{self, MACHINE_STALLED, Options, Testbed},
    topics,
};

/// Time without faults before the writers stop. Duplicates are not allowed in it.
const FAULT_FREE_END: Duration = Duration::from_secs(5);
/// Limit for the remaining rows to be published after the writers have stopped.
const DRAIN_MAX: Duration = Duration::from_secs(120);
/// Limit for rows that were written before a repair to be published.
const RECOVERY_MAX: Duration = Duration::from_secs(120);
/// Replaces [`DRAIN_MAX`] and [`RECOVERY_MAX`] in a control: with a planted bug, rows may wait
/// until the end.
const CONTROL_WAIT_MAX: Duration = Duration::from_secs(30);
/// Interval of the checks whether a planted bug shows.
const CHECK_INTERVAL: Duration = Duration::from_secs(4);

/// Performs a run. Returns whether all promises were kept or, in a control, whether the planted bug
/// was found.
pub(crate) async fn run(arguments: Run) -> anyhow::Result<bool> {
    let Some(name) = &arguments.control else {
        let (seed, seconds) = (arguments.schedule.seed, arguments.schedule.seconds);
        let report = run_once(&arguments, arguments.schedule.draw(), None).await?;
        if report.passed() {
            println!("All promises kept.");
        } else {
            println!(
                "A promise was broken: CHAOS_SEED={seed} CHAOS_SECONDS={seconds} make chaos. \
                 Logs: {}",
                arguments.folder.display()
            );
        }
        return Ok(report.passed());
    };
    let control =
        controls::by_name(name).with_context(|| format!("there is no control '{name}'"))?;
    let report = run_once(
        &arguments,
        control.schedule(arguments.schedule.seed),
        Some(control),
    )
    .await?;
    let found = control.is_found(&report);
    println!(
        "{}: {}",
        control.name,
        if found {
            "found, as it must be"
        } else {
            "NOT FOUND: the chaos test does not detect it"
        }
    );
    Ok(found)
}

async fn run_once(
    arguments: &Run,
    faults: Vec<Fault>,
    control: Option<&Control>,
) -> anyhow::Result<CheckReport> {
    println!(
        "Chaos: seed {}, {} faults, {} topics of {} partitions, {} ms each way to one relay{}",
        arguments.schedule.seed,
        faults.len(),
        arguments.topics,
        topics::PARTITIONS,
        arguments.delay_ms,
        control.map_or(String::new(), |control| format!(", {}", control.name))
    );
    let planted = match control.map(|control| control.bug) {
        Some(PlantedBug::Relay(bug)) => vec!["--planted-bug".to_owned(), bug.to_owned()],
        // Otherwise relays would find the bug themselves, and publish nothing.
        Some(PlantedBug::Database(_)) => vec!["--planted-bug".to_owned(), "unguarded".to_owned()],
        _ => vec![],
    };
    let testbed = Testbed::create(&Options {
        root: &arguments.root,
        folder: &arguments.folder,
        relay: &arguments.relay,
        other_relay: arguments.other_relay.as_ref().unwrap_or(&arguments.relay),
        relay_arguments: &planted,
        load: arguments.load(),
        topics: arguments.topics,
        delay: Duration::from_millis(arguments.delay_ms),
        recovery_max: if control.is_some() {
            CONTROL_WAIT_MAX
        } else {
            RECOVERY_MAX
        },
    })
    .await
    .context("cannot start the servers")?;
    if let Some(PlantedBug::Database(sql)) = control.map(|control| control.bug) {
        sqlx::raw_sql(sql)
            .execute(&mut postgres::connect().await?)
            .await?;
    }
    tokio::select! {
        report = run_to_end(&testbed, arguments.schedule.seed, faults, control) => report,
        report = until_bug_found(&testbed, control) => {
            print_violations(&report);
            Ok(report)
        }
    }
}

/// Checks the records at intervals, and returns as soon as a planted bug shows. Never returns
/// without a control.
async fn until_bug_found(testbed: &Testbed, control: Option<&Control>) -> CheckReport {
    let Some(control) = control.filter(|control| control.is_found_while_writing()) else {
        return pending().await;
    };
    loop {
        sleep(CHECK_INTERVAL).await;
        // Fails while a broker is down.
        let Ok(facts) = collect_facts(testbed).await else {
            continue;
        };
        let Ok(mut report) = spawn_blocking(move || checker::check(&facts)).await else {
            continue;
        };
        if control.is_found(&report) {
            // Other promises cannot be checked while writers write.
            report
                .violations
                .retain(|promise, _| control.violates.contains(promise));
            testbed.log("the planted bug shows");
            return report;
        }
    }
}

/// Injects all faults, waits until the relays have recovered, and checks the promises.
async fn run_to_end(
    testbed: &Arc<Testbed>,
    seed: u64,
    faults: Vec<Fault>,
    control: Option<&Control>,
) -> anyhow::Result<CheckReport> {
    testbed.log("three brokers, PostgreSQL, PgBouncer and three relays are up; writers start");
    let stop = CancellationToken::new();
    let writers = tokio::spawn(Arc::clone(&testbed.writers).run(seed, stop.clone()));
    let stall_detector = tokio::spawn(Arc::clone(testbed).detect_stalls());
    let owner_recorder = tokio::spawn(Arc::clone(testbed).record_lane_owners());
    let recoveries = try_join_all(
        faults
            .into_iter()
            .map(|fault| faults::inject(testbed, fault)),
    )
    .await?;
    testbed
        .sleep_until(Duration::from_secs(
            control.map_or(0, |control| control.seconds),
        ))
        .await;
    match testbed.wait_until_all_owned().await {
        Ok(after) => testbed.log(&format!(
            "all faults are repaired; all lanes have an owner after {:.1} s more",
            after.as_secs_f64()
        )),
        Err(error) => diagnostics::record_not_recovered(testbed, error.to_string()).await?,
    }
    sleep(FAULT_FREE_END).await;
    stop.cancel();
    writers.await?;
    let time_limit = if control.is_some() {
        CONTROL_WAIT_MAX
    } else {
        DRAIN_MAX
    };
    match testbed
        .wait_until_published(now_ms() + 1000, time_limit)
        .await
    {
        Some(after) => testbed.log(&format!(
            "writers have stopped; no row is left after {:.1} s",
            after.as_secs_f64()
        )),
        None => {
            diagnostics::record_not_recovered(
                testbed,
                format!("rows are left {time_limit:?} after the writers stopped"),
            )
            .await?;
        }
    }
    owner_recorder.abort();
    stall_detector.abort();
    let report = checker::check(&collect_facts(testbed).await?);
    print_report(&report, &recoveries);
    Ok(report)
}

/// Collects the facts of the run so far. Records are read last: a committed event that no longer
/// waits has a record by then.
async fn collect_facts(testbed: &Testbed) -> anyhow::Result<Facts> {
    let mut connection = postgres::connect().await?;
    let topics = testbed
        .created
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .clone();
    let parked = "select (select count(*) from outbox.parked_key) + (select count(*) \
        from outbox.parked_topic)";
    Ok(Facts {
        events: testbed.ledger.snapshot(),
        journal: ids(&mut connection, "select event_id from app.journal").await?,
        waiting: ids(&mut connection, "select event_id from outbox.event").await?,
        dead_letters: ids(&mut connection, "select event_id from outbox.dead_letter").await?,
        partitions: topics
            .iter()
            .map(|name| (name.clone(), topics::PARTITIONS as usize))
            .collect(),
        records: topics::read(topics)
            .await
            .context("cannot read the topics")?,
        lanes_unowned: testbed::unowned_lanes().await?,
        parked: sqlx::query_scalar(parked)
            .fetch_one(&mut connection)
            .await?,
        ..testbed.update_facts(|facts| facts.clone())
    })
}

async fn ids(connection: &mut PgConnection, select: &'static str) -> sqlx::Result<HashSet<Uuid>> {
    Ok(sqlx::query_scalar(select)
        .fetch_all(connection)
        .await?
        .into_iter()
        .collect())
}

fn print_report(report: &CheckReport, recoveries: &[Recovery]) {
    println!();
    println!(
        "   rows committed    {:>8}   commits whose answer was lost: {}",
        report.committed, report.unknown
    );
    println!("   rows rolled back  {:>8}", report.rolled_back);
    println!("   records           {:>8}", report.records);
    if report.lost_by_database > 0 {
        println!(
            "   rows that the database lost {:>6}, of which consumers saw {}",
            report.lost_by_database, report.lost_but_published
        );
    }
    println!();
    println!(
        "   {:<28} {:>6} {:>10}   seconds from repair until earlier rows were published",
        "fault", "times", "duplicates"
    );
    let mut kinds: BTreeMap<_, Vec<&Recovery>> = BTreeMap::new();
    for recovery in recoveries {
        kinds.entry(recovery.kind).or_default().push(recovery);
    }
    for (kind, all) in kinds {
        let name = faults::name(kind);
        let times: Vec<_> = all
            .iter()
            .map(|recovery| {
                recovery
                    .published_after
                    .map_or("never".to_owned(), |after| {
                        format!("{:.1}", after.as_secs_f64())
                    })
            })
            .collect();
        println!(
            "   {name:<28} {:>6} {:>10}   {}",
            all.len(),
            report.duplicates.get(name).unwrap_or(&0),
            times.join(" ")
        );
    }
    if let Some(duplicates) = report.duplicates.get(MACHINE_STALLED) {
        println!("   {MACHINE_STALLED:<28} {:>6} {duplicates:>10}", "");
    }
    println!(
        "   {:<28} {:>6} {:>10}",
        "all",
        recoveries.len(),
        report.duplicates.values().sum::<usize>()
    );
    println!();
    print_violations(report);
}

fn print_violations(report: &CheckReport) {
    for (promise, violations) in &report.violations {
        println!("   BROKEN {promise:?}: {} times", violations.count);
        for example in &violations.examples {
            println!("      {example}");
        }
    }
}
