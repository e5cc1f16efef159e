//! Reports of all relays -> the numbers in status, and whether they are worth a write. Pure.

use k8s_openapi::{
    apimachinery::pkg::apis::meta::v1::Time,
    jiff::{SignedDuration, Timestamp},
};

use crate::{
    api::BacklogStatus,
    operator::reconcile::observe::PodReport,
    report::{BreakerState, LANES, RelayReport},
};

/// Shortest pause between two writes of numbers alone, and the smallest change of the oldest row's
/// time that is shown.
const NUMBERS_PAUSE: SignedDuration = SignedDuration::from_secs(30);

/// What all relays together report.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Load {
    pub rows: i64,
    /// Zero if no row waits.
    pub oldest_age: SignedDuration,
    pub published_per_second: f64,
    /// At least one relay has an open circuit breaker.
    pub breaker_open: bool,
}

/// Returns the backlog of all lanes. Nothing while a lane has no reporting owner: the sum of a part
/// would look like progress.
pub(crate) fn total(reports: &[PodReport]) -> Option<BacklogStatus> {
    if !cover_all_lanes(reports) {
        return None;
    }
    let mut rows = 0_u64;
    let mut oldest: Option<Timestamp> = None;
    for report in known(reports).filter(|report| report.lanes > 0) {
        let own = report.backlog.as_ref()?;
        rows = rows.saturating_add(own.rows);
        let own_oldest = own.oldest_at.as_deref().and_then(|at| at.parse().ok());
        oldest = oldest.into_iter().chain(own_oldest).min();
    }
    let rows = i64::try_from(rows).unwrap_or(i64::MAX);
    Some(BacklogStatus {
        rows,
        oldest_at: oldest.filter(|_| rows > 0).map(Time),
    })
}

fn known(reports: &[PodReport]) -> impl Iterator<Item = &RelayReport> {
    reports.iter().filter_map(|one| one.report.as_ref())
}

/// Returns whether each lane is in one report.
fn cover_all_lanes(reports: &[PodReport]) -> bool {
    // Reports are not of the same moment: a lane that changes its owner may be in two of them, or
    // in none.
    let lanes = known(reports).map(|report| report.lanes as usize);
    lanes.fold(0, usize::saturating_add) == LANES
}

/// Returns the load that scaling uses; nothing while a lane has no reporting owner.
pub(crate) fn load(reports: &[PodReport], now: Timestamp) -> Option<Load> {
    let backlog = total(reports)?;
    let rates = known(reports).map(|report| report.published_per_second);
    Some(Load {
        rows: backlog.rows,
        oldest_age: backlog.oldest_at.map_or(SignedDuration::ZERO, |at| {
            now.duration_since(at.0).max(SignedDuration::ZERO)
        }),
        published_per_second: rates.sum(),
        breaker_open: worst_breaker(reports) == Some(BreakerState::Open),
    })
}

/// Returns the worst breaker state that relays report; nothing if no report has one.
pub(crate) fn worst_breaker(reports: &[PodReport]) -> Option<BreakerState> {
    reports
        .iter()
        .filter_map(|one| Some(one.report.as_ref()?.breaker.as_ref()?.state))
        .max()
}

/// Whether numbers in the status may be written again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refresh {
    Due,
    NotYet,
}

/// Returns whether the last status was written long enough ago for numbers to be written again.
pub(crate) fn refresh(written_at: Option<Timestamp>, now: Timestamp) -> Refresh {
    match written_at {
        Some(at) if now.duration_since(at) < NUMBERS_PAUSE => Refresh::NotYet,
        _ => Refresh::Due,
    }
}

/// Returns the backlog that the status should show: a noticeable change when it is due, and nothing
/// as soon as it is unknown.
pub(crate) fn to_show(
    shown: Option<&BacklogStatus>,
    found: Option<BacklogStatus>,
    refresh: Refresh,
) -> Option<BacklogStatus> {
    match (shown, found) {
        (Some(shown), Some(found)) if refresh == Refresh::NotYet || !noticeable(shown, &found) => {
            Some(shown.clone())
        }
        (_, found) => found,
    }
}

/// Returns the number that the status should show: every change when it is due, and nothing as soon
/// as it is unknown.
pub(crate) fn count_to_show(
    shown: Option<i64>,
    found: Option<u64>,
    refresh: Refresh,
) -> Option<i64> {
    let found = found.map(|count| i64::try_from(count).unwrap_or(i64::MAX));
    if shown.is_some() && found.is_some() && refresh == Refresh::NotYet {
        shown
    } else {
        found
    }
}

/// Returns whether the backlog changed by a tenth, from or to zero, or the time of its oldest row
/// by half a minute.
fn noticeable(before: &BacklogStatus, after: &BacklogStatus) -> bool {
    rows_moved(before.rows, after.rows) || oldest_moved(before, after)
}

fn rows_moved(before: i64, after: i64) -> bool {
    let tenth = (before.max(after) / 10).unsigned_abs();
    before.abs_diff(after) > tenth || (before == 0) != (after == 0)
}

fn oldest_moved(before: &BacklogStatus, after: &BacklogStatus) -> bool {
    match (&before.oldest_at, &after.oldest_at) {
        (Some(before), Some(after)) => after.0.duration_since(before.0).abs() >= NUMBERS_PAUSE,
        (before, after) => before.is_some() != after.is_some(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        operator::fixtures::{at, now},
        report::{Backlog, RelayReport},
    };

    fn report(lanes: u32, backlog: Option<(u64, Option<&str>)>) -> PodReport {
        let backlog = backlog.map(|(rows, oldest)| Backlog {
            rows,
            capped: false,
            oldest_at: oldest.map(str::to_owned),
        });
        let report = RelayReport {
            instance: "i".to_owned(),
            version: "1".to_owned(),
            schema_version: Some(1),
            lanes,
            backlog,
            parked_keys: None,
            parked_topics: None,
            dead_letters: None,
            published_per_second: 0.0,
            breaker: None,
            problems: Vec::new(),
        };
        PodReport {
            pod: "p".to_owned(),
            report: Some(report),
        }
    }

    fn rows(rows: i64) -> Option<BacklogStatus> {
        Some(BacklogStatus {
            rows,
            oldest_at: None,
        })
    }

    #[test]
    fn rows_are_summed_and_the_oldest_counts() {
        let all = [
            report(32, Some((5, Some("2026-01-01T00:00:02Z")))),
            report(32, Some((7, Some("2026-01-01T00:00:01Z")))),
        ];
        let total = total(&all).expect("all lanes report");
        assert_eq!(total.rows, 12);
        assert_eq!(
            total.oldest_at.expect("rows wait").0.to_string(),
            "2026-01-01T00:00:01Z"
        );
    }

    #[test]
    fn the_load_is_the_sum_of_all_and_its_breaker_the_worst() {
        let mut all = [
            report(32, Some((5, Some("2026-01-01T11:59:50Z")))),
            report(32, Some((7, None))),
        ];
        let load_now = |all: &[PodReport]| load(all, now()).expect("complete");
        assert_eq!(
            (
                load_now(&all).rows,
                load_now(&all).oldest_age.as_secs(),
                load_now(&all).breaker_open
            ),
            (12, 10, false)
        );
        let one = all[1].report.as_mut().expect("a report");
        one.breaker = Some(crate::report::Breaker {
            state: BreakerState::Open,
            since: String::new(),
        });
        one.published_per_second = 2.5;
        assert_eq!(
            (
                load_now(&all).breaker_open,
                load_now(&all).published_per_second
            ),
            (true, 2.5)
        );
        assert_eq!(load(&all[..1], now()), None);
    }

    #[test]
    fn a_lane_without_a_report_makes_the_sum_unknown() {
        assert_eq!(total(&[]), None);
        assert_eq!(total(&[report(32, Some((5, None)))]), None);
        assert_eq!(
            total(&[report(32, Some((5, None))), report(32, None)]),
            None
        );
        assert_eq!(
            total(&[
                report(u32::MAX, Some((5, None))),
                report(65, Some((5, None)))
            ]),
            None
        );
    }

    #[test]
    fn a_relay_without_lanes_needs_no_backlog() {
        assert_eq!(
            total(&[report(64, Some((5, None))), report(0, None)]),
            rows(5)
        );
    }

    #[test]
    fn numbers_are_due_half_a_minute_after_the_last_write() {
        assert_eq!(refresh(None, now()), Refresh::Due);
        assert_eq!(refresh(Some(now()), at(29)), Refresh::NotYet);
        assert_eq!(refresh(Some(now()), at(30)), Refresh::Due);
    }

    #[test]
    fn only_a_noticeable_change_is_shown_and_only_when_it_is_due() {
        for (after, due, shown) in [
            (1100, Refresh::Due, 1000),
            (1200, Refresh::Due, 1200),
            (1200, Refresh::NotYet, 1000),
            (0, Refresh::Due, 0),
            (900, Refresh::Due, 1000),
        ] {
            assert_eq!(
                to_show(rows(1000).as_ref(), rows(after), due),
                rows(shown),
                "{after}"
            );
        }
        assert_eq!(to_show(rows(0).as_ref(), rows(1), Refresh::Due), rows(1));
        assert_eq!(to_show(None, rows(1), Refresh::NotYet), rows(1));
    }

    #[test]
    fn a_newer_oldest_row_is_shown() {
        let since = |seconds| {
            Some(BacklogStatus {
                rows: 1000,
                oldest_at: Some(Time(at(seconds))),
            })
        };
        assert_eq!(
            to_show(since(0).as_ref(), since(29), Refresh::Due),
            since(0)
        );
        assert_eq!(
            to_show(since(0).as_ref(), since(30), Refresh::Due),
            since(30)
        );
    }

    #[test]
    fn an_unknown_number_is_removed_at_once() {
        assert_eq!(to_show(rows(1000).as_ref(), None, Refresh::NotYet), None);
        assert_eq!(count_to_show(Some(3), None, Refresh::NotYet), None);
    }

    #[test]
    fn every_change_of_a_count_is_shown_when_it_is_due() {
        assert_eq!(count_to_show(Some(3), Some(4), Refresh::NotYet), Some(3));
        assert_eq!(count_to_show(Some(3), Some(4), Refresh::Due), Some(4));
        assert_eq!(count_to_show(None, Some(4), Refresh::NotYet), Some(4));
    }
}
