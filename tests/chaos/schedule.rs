//! The schedule of a run: what is broken, when and for how long. A seed determines it. Pure.

use std::time::Duration;

use crate::rng::Rng;

/// Kinds of faults. The schedule depends on their order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, clap::ValueEnum)]
pub(crate) enum FaultKind {
    /// A relay is killed with SIGKILL. Another one is started in its place.
    KillRelay,
    /// A relay is paused with SIGSTOP for half to three times the length of a lease.
    PauseRelay,
    /// Replicas change to 1, then 5, then 2, then 3 again.
    Scale,
    /// A relay of another version runs with the others.
    OtherVersion,
    /// The clock of a relay is stepped by hours, and back.
    StepClock,
    KillBroker,
    /// Two of three brokers are killed, so that no partition has a leader.
    KillTwoBrokers,
    PauseBroker,
    /// Leaders of partitions move to other brokers.
    ElectLeaders,
    /// A topic is created while rows for it wait.
    CreateTopic,
    /// A topic accepts only small batches.
    LimitBatches,
    /// A topic is deleted and created again.
    RecreateTopic,
    KillPostgres,
    PausePostgres,
    TerminateBackends,
    /// A transaction pins the horizon of vacuum.
    PinXmin,
    /// PgBouncer is killed with SIGKILL and started again.
    RestartBouncer,
    /// The disk of PostgreSQL is full.
    FillDisk,
    /// TRUNCATE. The next rows get the ctids of the old ones, and ids continue.
    Empty,
    /// TRUNCATE RESTART IDENTITY: ids restart at one.
    Truncate,
    /// TRUNCATE, and the sequence is set back to the ids of the rows that waited.
    SetBack,
    /// A standby that lags becomes the primary.
    FailOver,
    /// A backup replaces the database.
    Restore,
    /// No packets pass between a relay and PostgreSQL, a relay and a broker, or two brokers.
    Cut,
    /// A relay or a broker loses some of the packets that it should receive.
    Loss,
    /// The network of one relay is slow in both directions.
    Latency,
}

/// Part of the system that a fault affects. Each domain has one fault at a time: two at once may
/// be more than a relay has to survive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FaultDomain {
    Relays,
    Brokers,
    Database,
    Topics,
    Network,
}

pub(crate) const FAULT_DOMAINS: usize = 5;

/// Length of a relay's lease in seconds, as in `src/relay/core/lane_share.rs`.
const LEASE_SECONDS: f64 = 15.0;

impl FaultKind {
    /// The domain that the fault affects.
    pub(crate) fn domain(self) -> FaultDomain {
        match self {
            Self::KillRelay
            | Self::PauseRelay
            | Self::Scale
            | Self::OtherVersion
            | Self::StepClock => FaultDomain::Relays,
            Self::KillBroker | Self::KillTwoBrokers | Self::PauseBroker | Self::ElectLeaders => {
                FaultDomain::Brokers
            }
            Self::CreateTopic | Self::LimitBatches | Self::RecreateTopic => FaultDomain::Topics,
            Self::KillPostgres
            | Self::PausePostgres
            | Self::TerminateBackends
            | Self::PinXmin
            | Self::RestartBouncer => FaultDomain::Database,
            Self::FillDisk
            | Self::Empty
            | Self::Truncate
            | Self::SetBack
            | Self::FailOver
            | Self::Restore => FaultDomain::Database,
            Self::Cut | Self::Loss | Self::Latency => FaultDomain::Network,
        }
    }

    /// Whether no transaction may be open when the fault begins. TRUNCATE would wait for it, and
    /// its rows could not get new ids (docs/restore.md).
    pub(crate) fn needs_no_open_transactions(self) -> bool {
        matches!(
            self,
            Self::Empty | Self::Truncate | Self::SetBack | Self::FailOver | Self::Restore
        )
    }

    /// Shortest and longest time until the fault is repaired, in seconds.
    fn seconds(self) -> (f64, f64) {
        match self {
            Self::KillRelay => (0.5, 5.0),
            Self::PauseRelay => (0.5 * LEASE_SECONDS, 3.0 * LEASE_SECONDS),
            Self::Scale => (8.0, 14.0),
            Self::OtherVersion | Self::StepClock => (5.0, 12.0),
            Self::KillBroker | Self::KillTwoBrokers | Self::PauseBroker => (1.0, 12.0),
            Self::ElectLeaders | Self::CreateTopic | Self::RecreateTopic => (2.0, 4.0),
            Self::FillDisk => (2.0, 6.0),
            Self::Empty | Self::Truncate | Self::SetBack => (0.1, 0.2),
            Self::FailOver => (0.2, 1.5),
            Self::Restore => (3.0, 8.0),
            Self::KillPostgres | Self::PausePostgres => (0.5, 6.0),
            Self::TerminateBackends => (0.1, 0.5),
            Self::LimitBatches => (3.0, 6.0),
            Self::PinXmin => (10.0, 30.0),
            Self::RestartBouncer => (0.2, 3.0),
            Self::Cut => (1.0, 20.0),
            Self::Loss | Self::Latency => (5.0, 15.0),
        }
    }
}

/// One fault of a schedule.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Fault {
    pub(crate) kind: FaultKind,
    /// Time from the start of the writers.
    pub(crate) at: Duration,
    /// Time until the fault is repaired.
    pub(crate) duration: Duration,
    /// Random number that selects the relay, broker or topic.
    pub(crate) victim: u64,
}

/// Time before the first fault. The checker also checks a run without faults this way.
pub(crate) const FAULT_FREE_START: Duration = Duration::from_secs(8);

/// Draws faults that end before `end`. Each kind comes once before one comes twice.
pub(crate) fn draw(seed: u64, end: Duration, kinds: &[FaultKind]) -> Vec<Fault> {
    let (mut rng, mut bag, mut faults) = (Rng::from_seed(seed), Vec::new(), Vec::new());
    let (mut clock, mut free) = (FAULT_FREE_START, [FAULT_FREE_START; FAULT_DOMAINS]);
    while clock < end && !kinds.is_empty() {
        if bag.is_empty() {
            bag = kinds.to_vec();
            rng.shuffle(&mut bag);
        }
        let Some(kind) = bag.pop() else { break };
        let (least, most) = kind.seconds();
        let domain = kind.domain() as usize;
        let at = clock.max(free[domain]);
        let fault = Fault {
            kind,
            at,
            duration: Duration::from_secs_f64(rng.between(least, most)),
            victim: rng.next(),
        };
        clock += Duration::from_secs_f64(rng.between(1.0, 6.0));
        if fault.at + fault.duration <= end {
            free[domain] =
                fault.at + fault.duration + Duration::from_secs_f64(rng.between(1.0, 5.0));
            faults.push(fault);
        }
    }
    faults.sort_by_key(|fault| fault.at);
    faults
}

#[cfg(test)]
mod tests {
    use clap::ValueEnum;

    use super::*;

    #[test]
    fn a_seed_always_draws_the_same_faults_and_another_seed_different_ones() {
        assert_eq!(
            draw(7, Duration::from_secs(300), FaultKind::value_variants()),
            draw(7, Duration::from_secs(300), FaultKind::value_variants())
        );
        assert_ne!(
            draw(7, Duration::from_secs(300), FaultKind::value_variants()),
            draw(8, Duration::from_secs(300), FaultKind::value_variants())
        );
    }

    #[test]
    fn faults_begin_after_the_fault_free_start_end_in_time_and_never_share_a_domain() {
        for seed in 0..200 {
            let faults = draw(seed, Duration::from_secs(300), FaultKind::value_variants());
            assert!(faults.iter().all(|fault| fault.at >= FAULT_FREE_START
                && fault.at + fault.duration <= Duration::from_secs(300)));
            for (n, fault) in faults.iter().enumerate() {
                let overlaps = |other: &&Fault| {
                    other.kind.domain() == fault.kind.domain()
                        && other.at < fault.at + fault.duration
                };
                assert_eq!(
                    faults[n + 1..].iter().find(overlaps),
                    None,
                    "seed {seed}: {fault:?}"
                );
            }
        }
    }

    #[test]
    fn every_kind_comes_within_ten_minutes() {
        for seed in 0..50 {
            let faults = draw(seed, Duration::from_secs(600), FaultKind::value_variants());
            for kind in FaultKind::value_variants() {
                assert!(
                    faults.iter().any(|fault| fault.kind == *kind),
                    "seed {seed}: no {kind:?}"
                );
            }
        }
    }
}
