//! One run: start, write, break, mend, read, judge.

use std::{
    collections::{BTreeMap, HashSet},
    sync::{Arc, PoisonError},
    time::Duration,
};

use anyhow::Context;
use futures::future::try_join_all;
use sqlx::PgConnection;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::{
    Run,
    checker::{self, Verdict},
    facts::Facts,
    faults::{self, Healed},
    ledger::now_ms,
    servers::postgres,
    topics,
    world::{self, Options, World},
};

/// Written after all has healed, when nothing may come twice any more.
const CALM_AT_THE_END: Duration = Duration::from_secs(5);
/// For the rows that are left when nobody writes any more.
const DRAIN_MAX: Duration = Duration::from_secs(120);

/// Whether all promises were kept.
pub(crate) async fn run(arguments: Run) -> anyhow::Result<bool> {
    let (seed, seconds, faults) = (arguments.schedule.seed, arguments.schedule.seconds, arguments.schedule.draw());
    println!("Chaos: {seconds} s, seed {seed}, {} faults", faults.len());
    let world = World::create(&Options {
        root: &arguments.root,
        folder: &arguments.folder,
        relay: &arguments.relay,
        relay_arguments: &[],
        load: arguments.load(),
    })
    .await
    .context("cannot start the servers")?;
    world.say("three brokers, PostgreSQL, PgBouncer and three relays are up; writers begin");
    let stop = CancellationToken::new();
    let writing = tokio::spawn(Arc::clone(&world.writers).run(seed, stop.clone()));
    let observing = tokio::spawn(Arc::clone(&world).observe());
    let healed = try_join_all(faults.into_iter().map(|fault| faults::inject(&world, fault))).await?;
    let rested = world.rests().await?;
    world.say(&format!("all is mended; all lanes have an owner after {:.1} s more", rested.as_secs_f64()));
    sleep(CALM_AT_THE_END).await;
    stop.cancel();
    writing.await?;
    let drained = world.settles(now_ms() + 1000, DRAIN_MAX).await;
    world.say(&format!(
        "writers have stopped; {}",
        drained.map_or("rows are left".to_owned(), |after| format!("no row is left after {:.1} s", after.as_secs_f64()))
    ));
    observing.abort();
    let facts = gather(&world).await?;
    let verdict = checker::check(&facts);
    print(&verdict, &healed);
    let kept = verdict.kept();
    if kept {
        println!("All promises kept.");
    } else {
        println!(
            "A promise was broken, with seed {seed}: CHAOS_SEED={seed} CHAOS_SECONDS={seconds} make chaos. Logs: {}",
            arguments.folder.display()
        );
    }
    Ok(kept)
}

async fn gather(world: &World) -> anyhow::Result<Facts> {
    let mut connection = postgres::connect().await?;
    let topics = world.created.lock().unwrap_or_else(PoisonError::into_inner).clone();
    let parked = "select (select count(*) from outbox.parked_key) + (select count(*) from outbox.parked_topic)";
    Ok(Facts {
        events: world.ledger.take(),
        journal: ids(&mut connection, "select event_id from app.journal").await?,
        waiting: ids(&mut connection, "select event_id from outbox.event").await?,
        dead_letters: ids(&mut connection, "select event_id from outbox.dead_letter").await?,
        partitions: topics.iter().map(|name| (name.clone(), topics::PARTITIONS as usize)).collect(),
        records: topics::read(topics).await.context("cannot read the topics")?,
        faults: world.faults(),
        owners: world.owners(),
        lanes_unowned: world::unowned().await?,
        parked: sqlx::query_scalar(parked).fetch_one(&mut connection).await?,
        ..Facts::default()
    })
}

async fn ids(connection: &mut PgConnection, select: &'static str) -> sqlx::Result<HashSet<Uuid>> {
    Ok(sqlx::query_scalar(select).fetch_all(connection).await?.into_iter().collect())
}

fn print(verdict: &Verdict, healed: &[Healed]) {
    println!();
    println!("   rows committed    {:>8}   of these the answer was lost: {} of all commits", verdict.committed, verdict.unknown);
    println!("   rows rolled back  {:>8}", verdict.rolled_back);
    println!("   records           {:>8}", verdict.records);
    if verdict.vanished > 0 {
        println!("   rows that the database lost {:>6}, of which consumers saw {}", verdict.vanished, verdict.vanished_seen);
    }
    println!();
    println!("   {:<28} {:>6} {:>10}   seconds until rows of before were published", "fault", "times", "duplicates");
    let mut kinds: BTreeMap<_, Vec<&Healed>> = BTreeMap::new();
    for one in healed {
        kinds.entry(one.kind).or_default().push(one);
    }
    for (kind, all) in kinds {
        let name = faults::name(kind);
        let times: Vec<_> =
            all.iter().map(|one| one.after.map_or("never".to_owned(), |after| format!("{:.1}", after.as_secs_f64()))).collect();
        println!("   {name:<28} {:>6} {:>10}   {}", all.len(), verdict.duplicates.get(name).unwrap_or(&0), times.join(" "));
    }
    println!("   {:<28} {:>6} {:>10}", "all", healed.len(), verdict.duplicates.values().sum::<usize>());
    println!();
    for (promise, broken) in &verdict.broken {
        println!("   BROKEN {promise:?}: {} times", broken.times);
        for example in &broken.examples {
            println!("      {example}");
        }
    }
}
