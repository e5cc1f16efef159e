//! Bugs that a careful engineer could still write, one at a time, so that `make chaos-controls` can show that a run of chaos finds them. Only
//! builds for that have any: without the feature `planted-bugs` nothing here is ever true.

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
    /// The next producer sends while the one before still has records in flight.
    NextProducerEarly,
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

/// Producers that were replaced before their last reports were in.
#[cfg(feature = "planted-bugs")]
static REPLACED: std::sync::Mutex<Vec<Producer>> = std::sync::Mutex::new(Vec::new());

#[cfg(feature = "planted-bugs")]
fn of_replaced<T>(look: impl FnOnce(&mut Vec<Producer>) -> T) -> T {
    look(&mut REPLACED.lock().unwrap_or_else(std::sync::PoisonError::into_inner))
}

/// Another producer takes over, though this one still has records in flight.
pub fn replaced(producer: Producer) {
    #[cfg(feature = "planted-bugs")]
    of_replaced(|producers| producers.push(producer));
    #[cfg(not(feature = "planted-bugs"))]
    drop(producer);
}

/// What became of records of replaced producers.
#[must_use]
pub fn late_reports() -> Vec<Report> {
    #[cfg(feature = "planted-bugs")]
    return of_replaced(|producers| producers.iter().flat_map(Producer::poll).collect());
    #[cfg(not(feature = "planted-bugs"))]
    vec![]
}

/// Throws out whatever replaced producers have.
pub fn purge_replaced() {
    #[cfg(feature = "planted-bugs")]
    of_replaced(|producers| producers.iter().for_each(Producer::purge));
}

/// The order in which a statement reads rows.
#[must_use]
pub fn order(statement: &'static str) -> &'static str {
    if !has(Bug::OrderByXid) {
        return statement;
    }
    let of_one = statement.replace("order by e.id\n  limit u", "order by e.xact, e.id\n  limit u");
    of_one.replace("order by page.id\n  limit u", "order by page.xact, page.id\n  limit u").leak()
}
