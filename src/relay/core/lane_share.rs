//! Which lanes a relay should own: how many to claim or to give back, and how long a lease is
//! valid. Pure.

use std::time::{Duration, Instant};

pub use crate::report::LANES;

use crate::outbox::{Others, Survey};

/// Time for which a lease is valid, on the database's clock.
pub const LEASE_TTL: Duration = Duration::from_secs(15);
/// Pause between two renewals.
pub const RENEW_EVERY: Duration = Duration::from_secs(4);
/// Pause between two reads of who owns which lanes, while there is nothing to publish.
const SURVEY_EVERY: Duration = Duration::from_secs(1);
/// Such a pause while rows are published: those of a relay that is stopped wait until another one
/// reads that its lanes are free.
const SURVEY_WHILE_BUSY: Duration = Duration::from_millis(500);
/// Such a pause while lanes are on their way from one relay to another.
const SURVEY_WHILE_LANES_MOVE: Duration = Duration::from_millis(100);
/// A relay stops this long before another one may claim its lanes.
const LEASE_SAFETY_MARGIN: Duration = Duration::from_secs(3);
/// Upper bound of the lanes to claim in one round while other relays live, so that one relay does
/// not take what another is about to claim.
const CLAIM_LANES_MAX: u32 = 16;

/// Until when a lease is valid, on the monotonic clock of this process: counted from the moment
/// *before* the renewal was sent.
#[must_use]
pub fn lease_deadline(renewal_sent: Instant) -> Instant {
    renewal_sent + LEASE_TTL - LEASE_SAFETY_MARGIN
}

/// How the number of lanes of this relay should change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Share {
    Keep,
    Claim { lanes_max: u32 },
    GiveBack { lanes: u32 },
}

/// Whether Kafka takes the records of this relay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Health {
    /// Nothing indicates that Kafka does not take them.
    Healthy,
    /// The breaker is Open; `for_long`: long enough for other relays to have found out whether
    /// Kafka takes their records.
    Open { for_long: bool },
}

/// The share of this relay, which owns `owned` lanes. A relay with an open breaker claims none
/// while Kafka takes the records of others: the fault may be its own.
#[must_use]
pub fn share(survey: Survey, owned: u32, health: Health) -> Share {
    match health {
        Health::Healthy => fair_share(survey.well, survey.free, owned),
        Health::Open { .. } if survey.well.count == 0 => {
            fair_share(survey.others, survey.free, owned)
        }
        Health::Open { for_long: true } if owned > 0 => Share::GiveBack { lanes: owned },
        Health::Open { .. } => Share::Keep,
    }
}

/// The fair share. A relay keeps no more than the rounded-up share while another relay has less,
/// and no more than the rounded-down one while another has less than that. `owned` does not count
/// lanes that are leaving.
fn fair_share(others: Others, free: u32, owned: u32) -> Share {
    let live = others.count + 1;
    let (least, most) = (LANES as u32 / live, (LANES as u32).div_ceil(live));
    let another_has_less_than = |share: u32| others.fewest.is_some_and(|fewest| fewest < share);
    // The rounded-up share is for when every relay has the rounded-down one. Otherwise two relays
    // would pass a lane back and forth that a third one needs.
    let fair = if another_has_less_than(least) {
        least
    } else {
        most
    };
    if owned > fair && another_has_less_than(most) {
        let lanes = owned - fair;
        return Share::GiveBack { lanes };
    }
    claim(free, fair.saturating_sub(owned), others.count)
}

/// Claims `missing` lanes, as far as they are free and one round may take.
fn claim(free: u32, missing: u32, others: u32) -> Share {
    match free.min(missing).min(round_max(others)) {
        0 => Share::Keep,
        lanes_max => Share::Claim { lanes_max },
    }
}

/// Whether lanes are on their way from one relay to another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LaneMoves {
    None,
    UnderWay,
}

/// Whether rows were published lately.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Traffic {
    Idle,
    Busy,
}

/// Whether lanes are on their way from one relay to another, as a survey shows that also led to
/// this `share` of a relay with `owned` lanes: this relay changes its share, or has fewer lanes
/// than all relays can have.
#[must_use]
pub fn lane_moves(share: Share, survey: Survey, owned: u32) -> LaneMoves {
    if share != Share::Keep || owned < LANES as u32 / (survey.others.count + 1) {
        LaneMoves::UnderWay
    } else {
        LaneMoves::None
    }
}

/// Pause after a round of the lease.
#[must_use]
pub fn survey_pause(moves: LaneMoves, traffic: Traffic) -> Duration {
    match (moves, traffic) {
        (LaneMoves::UnderWay, _) => SURVEY_WHILE_LANES_MOVE,
        (LaneMoves::None, Traffic::Busy) => SURVEY_WHILE_BUSY,
        (LaneMoves::None, Traffic::Idle) => SURVEY_EVERY,
    }
}

/// Lanes that a relay may claim in one round beside this number of other relays.
fn round_max(others: u32) -> u32 {
    if others > 0 {
        CLAIM_LANES_MAX
    } else {
        LANES as u32
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn survey(live: u32, fewest: Option<u32>, free: u32) -> Survey {
        let others = Others {
            count: live - 1,
            fewest,
        };
        Survey {
            others,
            well: others,
            free,
        }
    }

    fn share(survey: Survey, owned: u32) -> Share {
        super::share(survey, owned, Health::Healthy)
    }

    #[test]
    fn a_relay_that_kafka_does_not_answer_leaves_the_lanes_to_others_that_it_does() {
        let well = Others {
            count: 1,
            fewest: Some(32),
        };
        let none_well = Survey {
            others: well,
            well: Others::default(),
            free: 32,
        };
        let other_is_well = Survey {
            others: well,
            well,
            free: 32,
        };
        let (open, for_long) = (
            Health::Open { for_long: false },
            Health::Open { for_long: true },
        );
        for (survey, owned, health, share) in [
            (other_is_well, 32, open, Share::Keep),
            (other_is_well, 0, open, Share::Keep),
            (other_is_well, 32, for_long, Share::GiveBack { lanes: 32 }),
            (other_is_well, 0, for_long, Share::Keep),
            (none_well, 32, for_long, Share::Keep),
            (none_well, 0, for_long, Share::Claim { lanes_max: 16 }),
            (
                none_well,
                32,
                Health::Healthy,
                Share::Claim { lanes_max: 32 },
            ),
        ] {
            assert_eq!(
                super::share(survey, owned, health),
                share,
                "{survey:?}, {owned} lanes, {health:?}"
            );
        }
    }

    #[test]
    fn a_single_relay_takes_all_lanes_at_once() {
        assert_eq!(
            share(survey(1, None, 64), 0),
            Share::Claim { lanes_max: 64 }
        );
        assert_eq!(share(survey(1, None, 0), 64), Share::Keep);
    }

    #[test]
    fn an_old_relay_makes_room_for_a_new_one() {
        assert_eq!(
            share(survey(2, Some(0), 0), 64),
            Share::GiveBack { lanes: 32 }
        );
        assert_eq!(
            share(survey(2, Some(64), 0), 0),
            Share::Keep,
            "the new one waits"
        );
        assert_eq!(
            share(survey(2, Some(32), 32), 0),
            Share::Claim { lanes_max: 16 }
        );
    }

    #[test]
    fn the_next_survey_comes_soon_while_lanes_move() {
        for (survey, owned, moves) in [
            // An old relay makes room for a new one, which waits for that.
            (survey(2, Some(0), 0), 64, true),
            (survey(2, Some(64), 0), 0, true),
            // The new one may claim only half of what is free in one round.
            (survey(2, Some(32), 32), 0, true),
            (survey(2, Some(32), 16), 16, true),
            (survey(2, Some(32), 0), 32, false),
            // Shares that differ by one are final.
            (survey(3, Some(21), 0), 21, false),
            (survey(3, Some(21), 0), 22, false),
            // A surplus relay gets nothing.
            (survey(65, Some(0), 0), 0, false),
        ] {
            let share = share(survey, owned);
            assert_eq!(
                lane_moves(share, survey, owned) == LaneMoves::UnderWay,
                moves,
                "{survey:?}, {owned} lanes"
            );
        }
        let pause = survey_pause;
        assert!(pause(LaneMoves::UnderWay, Traffic::Idle) < pause(LaneMoves::None, Traffic::Busy));
        assert!(pause(LaneMoves::None, Traffic::Busy) < pause(LaneMoves::None, Traffic::Idle));
    }

    #[test]
    fn a_surplus_relay_owns_nothing_and_disturbs_no_other() {
        assert_eq!(share(survey(65, Some(0), 0), 1), Share::Keep);
        assert_eq!(share(survey(65, Some(1), 0), 0), Share::Keep);
    }

    #[test]
    fn a_lane_that_was_given_back_is_left_to_the_relay_that_needs_it() {
        // 22, 22 and 20 of 64: the first gives one back, and must not claim it again before the
        // third does.
        assert_eq!(
            share(survey(3, Some(20), 0), 22),
            Share::GiveBack { lanes: 1 }
        );
        assert_eq!(share(survey(3, Some(20), 1), 21), Share::Keep);
        assert_eq!(
            share(survey(3, Some(21), 1), 20),
            Share::Claim { lanes_max: 1 }
        );
    }

    /// Any number of relays, in any order of moves, ends with all lanes owned and shares that
    /// differ by one at the most.
    #[test]
    fn shares_settle_whatever_the_order() {
        for live in 1..=66_usize {
            let (mut owned, mut free) = (vec![0_u32; live], 0_u32);
            owned[0] = 64;
            for turn in 0..live * 60 {
                let me = turn % live;
                let fewest = owned
                    .iter()
                    .enumerate()
                    .filter(|(other, _)| *other != me)
                    .map(|(_, lanes)| *lanes)
                    .min();
                match share(survey(live as u32, fewest, free), owned[me]) {
                    Share::Keep => {}
                    Share::Claim { lanes_max } => {
                        (owned[me], free) = (owned[me] + lanes_max, free - lanes_max);
                    }
                    Share::GiveBack { lanes } => {
                        (owned[me], free) = (owned[me] - lanes, free + lanes);
                    }
                }
            }
            let (least, most) = (
                owned.iter().min().expect("some"),
                owned.iter().max().expect("some"),
            );
            assert!(
                free == 0 && most - least <= 1,
                "{live} relays: {owned:?}, {free} free"
            );
        }
    }
}
