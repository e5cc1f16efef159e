//! Bugs that a careful engineer could still write, one at a time, so that `make chaos-controls` can
//! show that a run of chaos finds them. Only builds for that have any: without the feature
//! `planted-bugs` nothing here is ever true.

use std::time::Instant;
#[cfg(feature = "planted-bugs")]
use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use crate::kafka::{Producer, Report};

#[cfg(all(feature = "planted-bugs", not(debug_assertions)))]
compile_error!("planted-bugs is for tests: build without it, or without --release");

/// What is wrong on purpose.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Bug {
    /// A record that fails for good lets later ones pass.
    GaplessOff,
    /// Records fail when they are late.
    MessageTimeout,
    /// Rows are read in the order of their transactions.
    OrderByXid,
    /// Rows are read above the highest id only, and nobody looks below.
    ForwardOnly,
    /// A record counts as published when it is sent.
    AckBeforeReport,
    /// A row that a fetch shows again is sent again.
    NoInFlightCheck,
    /// A row is forgotten as soon as its DELETE has returned, while an older fetch is under way.
    ForgetAtOnce,
    /// The next producer sends before the last reports of the one before are in, which is looked at
    /// now and then.
    NextProducerEarly,
    /// Clients of Kafka are kept, whatever became of the clock.
    ClockUnnoticed,
}

#[cfg(feature = "planted-bugs")]
static PLANTED: std::sync::OnceLock<Bug> = std::sync::OnceLock::new();

/// Plants a bug in this process.
#[cfg(feature = "planted-bugs")]
pub fn plant(bug: Bug) {
    PLANTED.get_or_init(|| bug);
}

/// Whether this bug is planted.
#[must_use]
pub fn has(bug: Bug) -> bool {
    #[cfg(feature = "planted-bugs")]
    return PLANTED.get() == Some(&bug);
    #[cfg(not(feature = "planted-bugs"))]
    {
        let _ = bug;
        false
    }
}

/// Producers that were replaced before their last reports were in, and when somebody last looked.
#[cfg(feature = "planted-bugs")]
struct Replaced {
    producers: Vec<Producer>,
    looked: Option<Instant>,
}

#[cfg(feature = "planted-bugs")]
static REPLACED: Mutex<Replaced> = Mutex::new(Replaced {
    producers: Vec::new(),
    looked: None,
});

#[cfg(feature = "planted-bugs")]
fn of_replaced() -> MutexGuard<'static, Replaced> {
    REPLACED.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Another producer takes over, though reports of this one are not in.
pub fn replaced(producer: Producer) {
    #[cfg(feature = "planted-bugs")]
    of_replaced().producers.push(producer);
    #[cfg(not(feature = "planted-bugs"))]
    drop(producer);
}

/// What became of records of replaced producers: looked at once a second.
#[must_use]
pub fn late_reports(now: Instant) -> Vec<Report> {
    #[cfg(feature = "planted-bugs")]
    {
        let mut replaced = of_replaced();
        if replaced
            .looked
            .is_none_or(|at| now.saturating_duration_since(at) >= Duration::from_secs(1))
        {
            replaced.looked = Some(now);
            let mut reports = Vec::new();
            replaced
                .producers
                .iter()
                .for_each(|producer| producer.poll(&mut reports));
            return reports;
        }
    }
    let _ = now;
    vec![]
}

/// Throws out whatever replaced producers have.
pub fn purge_replaced() {
    #[cfg(feature = "planted-bugs")]
    of_replaced().producers.iter().for_each(Producer::purge);
}

/// The order in which a statement reads rows.
#[must_use]
pub fn order(statement: &'static str) -> &'static str {
    if !has(Bug::OrderByXid) {
        return statement;
    }
    let of_one = statement.replace(
        "order by e.id\n  limit u",
        "order by e.xact, e.id\n  limit u",
    );
    of_one
        .replace(
            "order by page.id\n  limit u",
            "order by page.xact, page.id\n  limit u",
        )
        .leak()
}
