//! Failpoints: bugs that a careful engineer could still write, one at a time, so that
//! `make chaos-controls` can show that a chaos run finds them. Without the feature `planted-bugs`
//! no failpoint is ever enabled.

#[cfg(all(feature = "planted-bugs", not(debug_assertions)))]
compile_error!("planted-bugs is for tests: build without it, or without --release");

/// A bug that a test build can enable with `--planted-bug`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Bug {
    /// Later records pass a record that failed for good.
    GaplessOff,
    /// Records fail when they are not acknowledged in time.
    MessageTimeout,
    /// Fetches read rows in the order of their transaction ids.
    OrderByXid,
    /// Fetches read rows above the highest id only, and there is no gap scan.
    ForwardOnly,
    /// A record counts as published as soon as it is sent.
    AckBeforeReport,
    /// A row in flight that a fetch returns again is sent again.
    NoInFlightCheck,
    /// A row is removed from the rows in flight as soon as its DELETE has returned, even while an
    /// older fetch is running.
    ForgetAtOnce,
    /// A new producer sends before the last delivery reports of the previous one have arrived;
    /// those are collected once a second.
    NextProducerEarly,
    /// Records of a partition go to any client of the main producer, in turn.
    MoveWithRecordsOut,
    /// The second record of a producer to a partition follows the first at once.
    SecondRecordEarly,
    /// Kafka clients are kept when the wall clock is set back.
    ClockUnnoticed,
    /// A schema that was changed by hand is used. It lets bugs that are planted in the database
    /// show.
    Unguarded,
}

#[cfg(feature = "planted-bugs")]
static ENABLED: std::sync::OnceLock<Bug> = std::sync::OnceLock::new();

/// Enables a bug in this process. Only the first call has an effect.
#[cfg(feature = "planted-bugs")]
pub fn enable(bug: Bug) {
    ENABLED.get_or_init(|| bug);
}

/// Whether this bug is enabled in this process.
#[must_use]
pub fn has(bug: Bug) -> bool {
    #[cfg(feature = "planted-bugs")]
    return ENABLED.get() == Some(&bug);
    #[cfg(not(feature = "planted-bugs"))]
    {
        let _ = bug;
        false
    }
}

/// The statement, with its rows in the order that [`Bug::OrderByXid`] asks for if that bug is
/// enabled.
#[must_use]
pub fn order(statement: &'static str) -> &'static str {
    if !has(Bug::OrderByXid) {
        return statement;
    }
    let mut by_xid = statement.to_owned();
    for row in ["e", "page"] {
        for limit in ["\n  limit u", "\n    limit u"] {
            let by_id = format!("order by {row}.id{limit}");
            by_xid = by_xid.replace(&by_id, &format!("order by {row}.xact, {row}.id{limit}"));
        }
    }
    by_xid.leak()
}
