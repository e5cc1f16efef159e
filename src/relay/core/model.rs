//! Every interleaving of a small world: two relays with the real [`Core`](super::Core), two lanes,
//! a few rows, and faults at any step. The contract holds in each state; and each planted bug
//! breaks it. Bugs are planted in the world around the core, never in the core.
//!
//! ```text
//!   L  a row is deleted only when Kafka has it, and no row is below a mark; once every fault has
//!      ended, all rows are published
//!   O  a key's rows are first written in commit order, without a gap
//!   D  a row is written twice only if it was in flight at a fault
//!   R  a row whose id was drawn before is neither lost nor taken for another one, nor dropped by a
//!      consumer that compares ids
//! ```

mod database;
mod lives;
mod process;
mod shared;
mod world;

use std::{collections::HashSet, time::Instant};

use database::Key;
use shared::fingerprint;
use world::{Step, Violation, World};

/// A bug that a careful engineer could still write.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
enum Bug {
    None,
    /// A record counts as published when it is sent.
    AckBeforeReport,
    /// A row in flight that a fetch returns again is taken again.
    NoInFlightCheck,
    /// A row is forgotten as soon as its DELETE has returned, while an older fetch is under way.
    ForgetAtOnce,
    /// A DELETE names rows by lane and id.
    SettleById,
    /// The mark is the highest id that was read.
    ForwardOnly,
    /// A new producer sends before the last reports of the old one are in.
    NextProducerEarly,
    /// A producer goes on behind a record that failed.
    GapfulProducer,
    /// The second record of a producer to a partition follows the first at once.
    NoFirstRecordGate,
    /// The probe producer alone ignores its first-record gate.
    NoProbeFirstRecordGate,
    /// The second record of a partition to the client that it moved to follows the first at once.
    NoFirstRecordGateAfterMove,
    /// A partition moves to another client while records of it are out.
    MoveWithRecordsOut,
    /// Requests of a producer that was purged are written in any order.
    LateRequestsUnordered,
    /// Lanes are given back while rows of them are in flight.
    ReleaseUndrained,
    /// Rows are sent although their ids were drawn before.
    SendRegressed,
}

/// A fault that may happen at any step.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
enum Fault {
    Kill,
    Pause,
    LoseLease,
    /// A topic takes no records for a moment.
    Refuse,
    /// Kafka rejects a record of either producer for its own sake.
    Reject,
    Retire,
    AnswerLost,
    /// No fault, but bounded in number like one: a lane is given to another relay.
    GiveBack,
    /// No fault, but bounded in number like one: the main producer has a client more or less.
    Resize,
    TopicMissing,
    RestartIds,
}

/// A small world.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
struct Scenario {
    processes: usize,
    keys: &'static [Key],
    /// Keys of the rows that are written, in this order.
    script: &'static [usize],
    written_at_start: usize,
    in_flight: usize,
    rows_per_lane: usize,
    deletions_max: usize,
    /// A fetch, a delivery report and a DELETE take several steps each. If false, a fetch reads
    /// when it begins, a report arrives at once, and a DELETE runs when it is sent.
    fine: bool,
    /// A relay that ended is restarted even while another one runs.
    restarts: bool,
    faults: &'static [Fault],
    faults_max: u8,
    bug: Bug,
}

impl Scenario {
    fn topics(&self) -> u8 {
        self.keys.iter().map(|key| key.topic + 1).max().unwrap_or(1)
    }
}

/// Number of states, and the shortest sequence of steps found that breaks the contract.
struct Explored {
    states: usize,
    violation: Option<(Violation, Vec<Step>)>,
}

fn explore(scenario: &Scenario) -> Explored {
    let now = Instant::now();
    let first = World::new(scenario.clone(), now);
    let mut seen = HashSet::from([fingerprint(&first)]);
    // How each state was reached: the one before, and the step.
    let mut ways: Vec<(usize, Step)> = vec![(0, Step::Write)];
    let mut stack = vec![(first, 0)];
    while let Some((world, at)) = stack.pop() {
        for step in world.steps() {
            let mut next = world.clone();
            let made = next
                .apply(step)
                .map(|made| made && seen.insert(fingerprint(&next)));
            match made.and_then(|new| check(&next, new)) {
                Ok(false) => {}
                Ok(true) => {
                    ways.push((at, step));
                    stack.push((next, ways.len() - 1));
                }
                Err(violation) => {
                    ways.push((at, step));
                    return Explored {
                        states: seen.len(),
                        violation: Some(shortest(scenario, now, violation, way(&ways))),
                    };
                }
            }
        }
    }
    Explored {
        states: seen.len(),
        violation: None,
    }
}

/// Checks that a state in which nothing is under way can still publish all rows.
fn check(world: &World, made: bool) -> Result<bool, Violation> {
    if made && world.is_quiet() {
        world.clone().heal()?;
    }
    Ok(made)
}

fn way(ways: &[(usize, Step)]) -> Vec<Step> {
    let (mut steps, mut at) = (Vec::new(), ways.len() - 1);
    while at > 0 {
        steps.push(ways[at].1);
        at = ways[at].0;
    }
    steps.reverse();
    steps
}

/// Leaves out steps as long as the rest still breaks the same promise.
fn shortest(
    scenario: &Scenario,
    now: Instant,
    violation: Violation,
    steps: Vec<Step>,
) -> (Violation, Vec<Step>) {
    let mut found = (violation, steps);
    let mut at = 0;
    while at < found.1.len() {
        let mut fewer = found.1.clone();
        fewer.remove(at);
        match walk(scenario, now, &fewer) {
            Err(violation) if violation.0 == found.0.0 => (found, at) = ((violation, fewer), 0),
            _ => at += 1,
        }
    }
    found
}

fn walk(scenario: &Scenario, now: Instant, steps: &[Step]) -> Result<(), Violation> {
    let mut world = World::new(scenario.clone(), now);
    for step in steps {
        let made = world.apply(*step)?;
        check(&world, made)?;
    }
    Ok(())
}

const A: Key = Key {
    name: 0,
    lane: 0,
    topic: 0,
};
const B: Key = Key {
    name: 1,
    lane: 1,
    topic: 0,
};
const OTHER_TOPIC: Key = Key {
    name: 2,
    lane: 1,
    topic: 1,
};

/// Two relays, two lanes, three rows: two of one key, one of another in the other lane.
const SMALL: Scenario = Scenario {
    processes: 2,
    keys: &[A, B, OTHER_TOPIC],
    script: &[0, 1, 0],
    written_at_start: 3,
    in_flight: 4,
    rows_per_lane: 2,
    deletions_max: 1,
    fine: false,
    restarts: false,
    faults: &[],
    faults_max: 1,
    bug: Bug::None,
};

/// All rows have one key, in the lane of the first relay; the other relay takes over.
const TWO_ROWS: Scenario = Scenario {
    keys: &[A, B],
    script: &[0, 0],
    written_at_start: 2,
    ..SMALL
};
/// A second topic shares the lane of B.
const TWO_TOPICS: Scenario = Scenario {
    processes: 1,
    script: &[1, 2, 1],
    ..SMALL
};
/// One key, whose last row is written while the others are being sent.
const ONE_KEY: Scenario = Scenario {
    processes: 1,
    keys: &[A],
    script: &[0, 0, 0],
    written_at_start: 2,
    rows_per_lane: 3,
    ..SMALL
};
/// Ids start again at 1 at some step after the second row.
const IDS_RESTART: Scenario = Scenario {
    script: &[0, 1, 0],
    written_at_start: 2,
    faults: &[Fault::RestartIds],
    processes: 1,
    ..SMALL
};

/// Ids start again for two relays. Each notices it separately, and one may have moved the sequence
/// forward before the other notices.
const IDS_RESTART_FOR_TWO: Scenario = Scenario {
    keys: &[A, B],
    script: &[0, 0],
    written_at_start: 1,
    processes: 2,
    restarts: true,
    ..IDS_RESTART
};

fn holds(name: &str, scenario: Scenario) -> usize {
    let began = Instant::now();
    let explored = explore(&scenario);
    eprintln!(
        "{name}: {} states in {:?}",
        explored.states,
        began.elapsed()
    );
    assert_eq!(
        explored.violation, None,
        "{name}, after {} states of {scenario:#?}",
        explored.states
    );
    explored.states
}

#[test]
fn two_relays_keep_the_contract_without_a_fault() {
    holds("no fault", SMALL);
    holds(
        "no fault, fine steps",
        Scenario {
            fine: true,
            ..ONE_KEY
        },
    );
}

#[test]
fn a_relay_may_be_killed_at_any_step() {
    holds(
        "killed",
        Scenario {
            faults: &[Fault::Kill],
            ..SMALL
        },
    );
}

#[test]
fn a_relay_may_be_paused_until_its_lease_is_over() {
    holds(
        "paused",
        Scenario {
            faults: &[Fault::Pause],
            ..TWO_ROWS
        },
    );
    holds(
        "paused, fine steps",
        Scenario {
            faults: &[Fault::Pause],
            fine: true,
            ..ONE_KEY
        },
    );
}

#[test]
fn a_relay_may_lose_its_lease_at_any_step() {
    holds(
        "lease lost",
        Scenario {
            faults: &[Fault::LoseLease],
            ..SMALL
        },
    );
}

#[test]
fn a_producer_may_be_retired_at_any_step() {
    holds(
        "producer retired",
        Scenario {
            faults: &[Fault::Retire],
            processes: 1,
            ..SMALL
        },
    );
    holds(
        "producer retired, fine steps",
        Scenario {
            faults: &[Fault::Retire],
            fine: true,
            ..ONE_KEY
        },
    );
}

#[test]
fn partitions_may_move_between_clients_at_any_step() {
    holds(
        "clients added and removed",
        Scenario {
            faults: &[Fault::Resize],
            faults_max: 2,
            processes: 1,
            ..SMALL
        },
    );
    holds(
        "clients added and removed, fine steps",
        Scenario {
            faults: &[Fault::Resize],
            faults_max: 2,
            fine: true,
            ..ONE_KEY
        },
    );
    holds(
        "client added, producer retired",
        Scenario {
            faults: &[Fault::Resize, Fault::Retire],
            faults_max: 2,
            ..ONE_KEY
        },
    );
    holds(
        "client added, record rejected",
        Scenario {
            faults: &[Fault::Resize, Fault::Reject],
            faults_max: 2,
            written_at_start: 3,
            ..ONE_KEY
        },
    );
    holds(
        "client added, killed",
        Scenario {
            faults: &[Fault::Resize, Fault::Kill],
            faults_max: 2,
            ..TWO_ROWS
        },
    );
}

#[test]
fn any_answer_of_the_database_may_be_lost() {
    holds(
        "answer lost",
        Scenario {
            faults: &[Fault::AnswerLost],
            ..SMALL
        },
    );
    holds(
        "answer lost, fine steps",
        Scenario {
            faults: &[Fault::AnswerLost],
            fine: true,
            ..ONE_KEY
        },
    );
}

#[test]
fn a_lane_may_change_hands_at_any_step() {
    holds(
        "lane given back",
        Scenario {
            faults: &[Fault::GiveBack],
            ..SMALL
        },
    );
    holds(
        "lane given back, an answer lost",
        Scenario {
            faults: &[Fault::GiveBack, Fault::AnswerLost],
            faults_max: 2,
            ..TWO_ROWS
        },
    );
}

#[test]
fn any_topic_may_fail() {
    holds(
        "topic failed",
        Scenario {
            faults: &[Fault::Refuse],
            ..ONE_KEY
        },
    );
    holds(
        "topic failed, two topics",
        Scenario {
            faults: &[Fault::Refuse],
            ..TWO_TOPICS
        },
    );
}

#[test]
fn kafka_may_reject_any_record_for_good() {
    let all_at_once = Scenario {
        written_at_start: 3,
        faults: &[Fault::Reject],
        ..ONE_KEY
    };
    holds(
        "record rejected",
        Scenario {
            written_at_start: 2,
            ..all_at_once
        },
    );
    holds(
        "two records rejected",
        Scenario {
            faults_max: 2,
            ..all_at_once
        },
    );
    holds(
        "record rejected, a topic created again",
        Scenario {
            faults: &[Fault::Reject, Fault::TopicMissing],
            faults_max: 2,
            ..all_at_once
        },
    );
}

#[test]
fn a_topic_may_be_missing_for_a_while() {
    holds(
        "topic missing",
        Scenario {
            faults: &[Fault::TopicMissing],
            ..ONE_KEY
        },
    );
    holds(
        "topic missing, two topics",
        Scenario {
            faults: &[Fault::TopicMissing],
            ..TWO_TOPICS
        },
    );
}

#[test]
fn rows_whose_ids_are_drawn_again_are_neither_lost_nor_confused() {
    holds("ids that are drawn again", IDS_RESTART);
    holds("ids that are drawn again, two relays", IDS_RESTART_FOR_TWO);
}

#[test]
fn each_planted_bug_is_found() {
    use Fault::*;
    let cases: [(Bug, char, Scenario); 14] = [
        (
            Bug::AckBeforeReport,
            'L',
            Scenario {
                faults: &[Kill],
                ..SMALL
            },
        ),
        (Bug::NoInFlightCheck, 'D', SMALL),
        (Bug::ForgetAtOnce, 'D', SMALL),
        (Bug::SettleById, 'R', IDS_RESTART),
        (
            Bug::ForwardOnly,
            'L',
            Scenario {
                faults: &[Kill],
                ..SMALL
            },
        ),
        (
            Bug::NextProducerEarly,
            'O',
            Scenario {
                faults: &[Retire],
                fine: true,
                ..ONE_KEY
            },
        ),
        (
            Bug::GapfulProducer,
            'O',
            Scenario {
                faults: &[Refuse],
                ..ONE_KEY
            },
        ),
        (
            Bug::NoFirstRecordGate,
            'O',
            Scenario {
                faults: &[Reject],
                ..ONE_KEY
            },
        ),
        (
            Bug::NoProbeFirstRecordGate,
            'O',
            Scenario {
                faults: &[Reject],
                faults_max: 2,
                written_at_start: 3,
                ..ONE_KEY
            },
        ),
        (
            Bug::NoFirstRecordGateAfterMove,
            'O',
            Scenario {
                faults: &[Resize, Reject],
                faults_max: 2,
                written_at_start: 3,
                ..ONE_KEY
            },
        ),
        (
            Bug::MoveWithRecordsOut,
            'O',
            Scenario {
                faults: &[Resize],
                ..ONE_KEY
            },
        ),
        (
            Bug::LateRequestsUnordered,
            'O',
            Scenario {
                faults: &[Retire],
                ..ONE_KEY
            },
        ),
        (Bug::SendRegressed, 'R', IDS_RESTART),
        (
            Bug::ReleaseUndrained,
            'D',
            Scenario {
                faults: &[GiveBack],
                ..SMALL
            },
        ),
    ];
    for (bug, broken, scenario) in cases {
        let began = Instant::now();
        let Explored { states, violation } = explore(&Scenario { bug, ..scenario });
        eprintln!(
            "{bug:?}: {states} states in {:?}: {violation:?}",
            began.elapsed()
        );
        assert_eq!(
            violation.map(|((letter, _), _)| letter),
            Some(broken),
            "{bug:?}"
        );
    }
}
