//! One run: start, write, break, mend, read, judge.

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
    checker::{self, Verdict},
    controls::{self, Control, Plant},
    facts::Facts,
    faults::{self, Healed},
    ledger::now_ms,
    schedule::Fault,
    servers::postgres,
    testimony, topics,
    world::{self, Options, STALLED, World},
};

/// Written after all has healed, when nothing may come twice any more.
const CALM_AT_THE_END: Duration = Duration::from_secs(5);
/// For the rows that are left when nobody writes any more.
const DRAIN_MAX: Duration = Duration::from_secs(120);
/// Until rows that were written before a fault was mended are published.
const HEAL_MAX: Duration = Duration::from_secs(120);
/// With a planted bug neither may ever be.
const OF_CONTROL_MAX: Duration = Duration::from_secs(30);
/// How often it is looked whether a planted bug shows by now.
const LOOK_EVERY: Duration = Duration::from_secs(4);

/// Whether all promises were kept; with a planted bug: whether it was found.
pub(crate) async fn run(arguments: Run) -> anyhow::Result<bool> {
    let Some(name) = &arguments.control else {
        let (seed, seconds) = (arguments.schedule.seed, arguments.schedule.seconds);
        let verdict = play(&arguments, arguments.schedule.draw(), None).await?;
        if verdict.kept() {
            println!("All promises kept.");
        } else {
            println!(
                "A promise was broken: CHAOS_SEED={seed} CHAOS_SECONDS={seconds} make chaos. \
                 Logs: {}",
                arguments.folder.display()
            );
        }
        return Ok(verdict.kept());
    };
    let control = controls::named(name).with_context(|| format!("there is no control '{name}'"))?;
    let verdict = play(
        &arguments,
        control.schedule(arguments.schedule.seed),
        Some(control),
    )
    .await?;
    let found = control.is_found(&verdict);
    println!(
        "{}: {}",
        control.name,
        if found {
            "found, as it must be"
        } else {
            "NOT FOUND: this harness is blind to it"
        }
    );
    Ok(found)
}

async fn play(
    arguments: &Run,
    faults: Vec<Fault>,
    control: Option<&Control>,
) -> anyhow::Result<Verdict> {
    println!(
        "Chaos: seed {}, {} faults{}",
        arguments.schedule.seed,
        faults.len(),
        control.map_or(String::new(), |it| format!(", {}", it.name))
    );
    let planted = match control.map(|control| control.plant) {
        Some(Plant::Relay(bug)) => vec!["--planted-bug".to_owned(), bug.to_owned()],
        _ => vec![],
    };
    let world = World::create(&Options {
        root: &arguments.root,
        folder: &arguments.folder,
        relay: &arguments.relay,
        other_relay: arguments.other_relay.as_ref().unwrap_or(&arguments.relay),
        relay_arguments: &planted,
        load: arguments.load(),
        heal_max: if control.is_some() {
            OF_CONTROL_MAX
        } else {
            HEAL_MAX
        },
    })
    .await
    .context("cannot start the servers")?;
    if let Some(Plant::Database(sql)) = control.map(|control| control.plant) {
        sqlx::raw_sql(sql)
            .execute(&mut postgres::connect().await?)
            .await?;
    }
    tokio::select! {
        verdict = to_the_end(&world, arguments.schedule.seed, faults, control) => verdict,
        verdict = shows(&world, control) => {
            print_broken(&verdict);
            Ok(verdict)
        }
    }
}

/// The verdict as soon as a planted bug shows; never, without one.
async fn shows(world: &World, control: Option<&Control>) -> Verdict {
    let Some(control) = control.filter(|control| control.shows_early()) else {
        return pending().await;
    };
    loop {
        sleep(LOOK_EVERY).await;
        // A broker that is down now cannot be asked.
        let Ok(facts) = gather(world).await else {
            continue;
        };
        let Ok(mut verdict) = spawn_blocking(move || checker::check(&facts)).await else {
            continue;
        };
        if control.is_found(&verdict) {
            // Others cannot be judged while writers write.
            verdict
                .broken
                .retain(|promise, _| control.breaks.contains(promise));
            world.say("it shows");
            return verdict;
        }
    }
}

async fn to_the_end(
    world: &Arc<World>,
    seed: u64,
    faults: Vec<Fault>,
    control: Option<&Control>,
) -> anyhow::Result<Verdict> {
    world.say("three brokers, PostgreSQL, PgBouncer and three relays are up; writers begin");
    let stop = CancellationToken::new();
    let writing = tokio::spawn(Arc::clone(&world.writers).run(seed, stop.clone()));
    let watching = tokio::spawn(Arc::clone(world).watch_machine());
    let observing = tokio::spawn(Arc::clone(world).observe());
    let healed = try_join_all(faults.into_iter().map(|fault| faults::inject(world, fault))).await?;
    world
        .reaches(Duration::from_secs(
            control.map_or(0, |control| control.seconds),
        ))
        .await;
    match world.rests().await {
        Ok(after) => world.say(&format!(
            "all is mended; all lanes have an owner after {:.1} s more",
            after.as_secs_f64()
        )),
        Err(error) => testimony::not_at_rest(world, error.to_string()).await?,
    }
    sleep(CALM_AT_THE_END).await;
    stop.cancel();
    writing.await?;
    let patience = if control.is_some() {
        OF_CONTROL_MAX
    } else {
        DRAIN_MAX
    };
    match world.settles(now_ms() + 1000, patience).await {
        Some(after) => world.say(&format!(
            "writers have stopped; no row is left after {:.1} s",
            after.as_secs_f64()
        )),
        None => {
            testimony::not_at_rest(
                world,
                format!("{patience:?} after writers stopped rows are left"),
            )
            .await?
        }
    }
    observing.abort();
    watching.abort();
    let verdict = checker::check(&gather(world).await?);
    print(&verdict, &healed);
    Ok(verdict)
}

/// What is known by now. In this order: what was committed and waits no more has a record by the
/// time that records are read.
async fn gather(world: &World) -> anyhow::Result<Facts> {
    let mut connection = postgres::connect().await?;
    let topics = world
        .created
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .clone();
    let parked = "select (select count(*) from outbox.parked_key) + (select count(*) from \
        outbox.parked_topic)";
    Ok(Facts {
        events: world.ledger.copy(),
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
        lanes_unowned: world::unowned().await?,
        parked: sqlx::query_scalar(parked)
            .fetch_one(&mut connection)
            .await?,
        ..world.note(|notes| notes.clone())
    })
}

async fn ids(connection: &mut PgConnection, select: &'static str) -> sqlx::Result<HashSet<Uuid>> {
    Ok(sqlx::query_scalar(select)
        .fetch_all(connection)
        .await?
        .into_iter()
        .collect())
}

fn print(verdict: &Verdict, healed: &[Healed]) {
    println!();
    println!(
        "   rows committed    {:>8}   of these the answer was lost: {} of all commits",
        verdict.committed, verdict.unknown
    );
    println!("   rows rolled back  {:>8}", verdict.rolled_back);
    println!("   records           {:>8}", verdict.records);
    if verdict.vanished > 0 {
        println!(
            "   rows that the database lost {:>6}, of which consumers saw {}",
            verdict.vanished, verdict.vanished_seen
        );
    }
    println!();
    println!(
        "   {:<28} {:>6} {:>10}   seconds until rows of before were published",
        "fault", "times", "duplicates"
    );
    let mut kinds: BTreeMap<_, Vec<&Healed>> = BTreeMap::new();
    for one in healed {
        kinds.entry(one.kind).or_default().push(one);
    }
    for (kind, all) in kinds {
        let name = faults::name(kind);
        let times: Vec<_> = all
            .iter()
            .map(|one| {
                one.after.map_or("never".to_owned(), |after| {
                    format!("{:.1}", after.as_secs_f64())
                })
            })
            .collect();
        println!(
            "   {name:<28} {:>6} {:>10}   {}",
            all.len(),
            verdict.duplicates.get(name).unwrap_or(&0),
            times.join(" ")
        );
    }
    if let Some(duplicates) = verdict.duplicates.get(STALLED) {
        println!("   {STALLED:<28} {:>6} {duplicates:>10}", "");
    }
    println!(
        "   {:<28} {:>6} {:>10}",
        "all",
        healed.len(),
        verdict.duplicates.values().sum::<usize>()
    );
    println!();
    print_broken(verdict);
}

fn print_broken(verdict: &Verdict) {
    for (promise, broken) in &verdict.broken {
        println!("   BROKEN {promise:?}: {} times", broken.times);
        for example in &broken.examples {
            println!("      {example}");
        }
    }
}
