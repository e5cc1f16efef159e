//! When what is broken, and for how long: drawn from a seed. Pure.

use std::time::Duration;

use crate::dice::Dice;

/// What can be broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, clap::ValueEnum)]
pub(crate) enum Kind {
    /// kill -9; another one is started in its place.
    KillRelay,
    /// SIGSTOP, half to three times as long as a lease.
    PauseRelay,
    /// Replicas 1, then 5, then 2, then 3 again.
    Scale,
    /// A relay of another version works beside ours.
    OtherVersion,
    /// The clock of a relay is set to another hour, and back.
    StepClock,
    KillBroker,
    /// So many that no partition has a leader.
    KillTwoBrokers,
    PauseBroker,
    /// Leaders move to other brokers, and back.
    ElectLeaders,
    /// A topic is created while rows for it wait.
    CreateTopic,
    /// A topic takes small batches only.
    LimitBatches,
    /// A topic is deleted, and made again.
    RecreateTopic,
    KillPostgres,
    PausePostgres,
    TerminateBackends,
    /// A transaction pins the horizon of vacuum.
    PinXmin,
    /// PgBouncer goes by SIGKILL, and comes back.
    RestartBouncer,
    /// The disk of PostgreSQL is full.
    FillDisk,
    /// Rows that wait are gone, by TRUNCATE, and the next ones take their places; ids go on.
    Empty,
    /// The same, and ids begin at one again.
    Truncate,
    /// The same, and ids begin with those of the rows that waited.
    SetBack,
    /// A standby that lags takes over.
    FailOver,
    /// A backup takes the place of the database.
    Restore,
    /// A relay and PostgreSQL, or a relay and a broker, or two brokers: neither hears the other.
    Cut,
    /// A relay or a broker loses some of the packets that come.
    Loss,
    /// What one relay says and hears comes late.
    Latency,
}

/// What a fault touches: of each sphere one fault at a time, else nobody could say what it takes to
/// survive it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sphere {
    Relays,
    Brokers,
    Database,
    Topics,
    Network,
}

pub(crate) const SPHERES: usize = 5;

/// Of a relay, as in `src/relay/lanes.rs`.
const LEASE: f64 = 15.0;

impl Kind {
    pub(crate) fn sphere(self) -> Sphere {
        match self {
            Self::KillRelay
            | Self::PauseRelay
            | Self::Scale
            | Self::OtherVersion
            | Self::StepClock => Sphere::Relays,
            Self::KillBroker | Self::KillTwoBrokers | Self::PauseBroker | Self::ElectLeaders => {
                Sphere::Brokers
            }
            Self::CreateTopic | Self::LimitBatches | Self::RecreateTopic => Sphere::Topics,
            Self::KillPostgres
            | Self::PausePostgres
            | Self::TerminateBackends
            | Self::PinXmin
            | Self::RestartBouncer => Sphere::Database,
            Self::FillDisk
            | Self::Empty
            | Self::Truncate
            | Self::SetBack
            | Self::FailOver
            | Self::Restore => Sphere::Database,
            Self::Cut | Self::Loss | Self::Latency => Sphere::Network,
        }
    }

    /// Whether no transaction may be open when it comes: rows of its own could not move
    /// (docs/restore.md), and TRUNCATE would wait for it.
    pub(crate) fn minds_open_transactions(self) -> bool {
        matches!(
            self,
            Self::Empty | Self::Truncate | Self::SetBack | Self::FailOver | Self::Restore
        )
    }

    /// Least and longest time until it is mended, in seconds.
    fn seconds(self) -> (f64, f64) {
        match self {
            Self::KillRelay => (0.5, 5.0),
            Self::PauseRelay => (0.5 * LEASE, 3.0 * LEASE),
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

/// One fault.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Fault {
    pub(crate) kind: Kind,
    /// After the first row.
    pub(crate) at: Duration,
    pub(crate) during: Duration,
    /// Whose turn it is, among relays, brokers or topics.
    pub(crate) victim: u64,
}

/// Nothing is broken before: what a calm run looks like is asserted, too.
pub(crate) const CALM: Duration = Duration::from_secs(8);

/// Faults that end so long after the start; each kind comes once before one comes twice.
pub(crate) fn draw(seed: u64, end: Duration, kinds: &[Kind]) -> Vec<Fault> {
    let (mut dice, mut bag, mut faults) = (Dice::seeded(seed), Vec::new(), Vec::new());
    let (mut clock, mut free) = (CALM, [CALM; SPHERES]);
    while clock < end && !kinds.is_empty() {
        if bag.is_empty() {
            bag = kinds.to_vec();
            dice.shuffle(&mut bag);
        }
        let Some(kind) = bag.pop() else { break };
        let (least, most) = kind.seconds();
        let sphere = kind.sphere() as usize;
        let at = clock.max(free[sphere]);
        let fault = Fault {
            kind,
            at,
            during: Duration::from_secs_f64(dice.between(least, most)),
            victim: dice.next(),
        };
        clock += Duration::from_secs_f64(dice.between(1.0, 6.0));
        if fault.at + fault.during <= end {
            free[sphere] =
                fault.at + fault.during + Duration::from_secs_f64(dice.between(1.0, 5.0));
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
    fn a_seed_draws_the_same_faults_again_and_another_seed_others() {
        assert_eq!(
            draw(7, Duration::from_secs(300), Kind::value_variants()),
            draw(7, Duration::from_secs(300), Kind::value_variants())
        );
        assert_ne!(
            draw(7, Duration::from_secs(300), Kind::value_variants()),
            draw(8, Duration::from_secs(300), Kind::value_variants())
        );
    }

    #[test]
    fn faults_begin_after_the_calm_end_before_the_end_and_share_no_sphere() {
        for seed in 0..200 {
            let faults = draw(seed, Duration::from_secs(300), Kind::value_variants());
            assert!(faults.iter().all(
                |fault| fault.at >= CALM && fault.at + fault.during <= Duration::from_secs(300)
            ));
            for (n, fault) in faults.iter().enumerate() {
                let meets = |other: &&Fault| {
                    other.kind.sphere() == fault.kind.sphere() && other.at < fault.at + fault.during
                };
                assert_eq!(
                    faults[n + 1..].iter().find(meets),
                    None,
                    "seed {seed}: {fault:?}"
                );
            }
        }
    }

    #[test]
    fn within_ten_minutes_every_kind_comes() {
        for seed in 0..50 {
            let faults = draw(seed, Duration::from_secs(600), Kind::value_variants());
            for kind in Kind::value_variants() {
                assert!(
                    faults.iter().any(|fault| fault.kind == *kind),
                    "seed {seed}: no {kind:?}"
                );
            }
        }
    }
}
