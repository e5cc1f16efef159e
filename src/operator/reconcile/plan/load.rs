//! Reports of all relays -> the numbers in status, and whether they are worth a write. Pure.

use std::time::Duration;

use k8s_openapi::{
    apimachinery::pkg::apis::meta::v1::Time,
    jiff::{SignedDuration, Timestamp},
};

use crate::{
    api::{BacklogStatus, OutboxRelayStatus},
    operator::reconcile::{observe::PodReport, plan::Requeue},
    report::{Backlog, BreakerState, LANES, RelayReport},
};

/// Shortest pause between two writes of numbers alone, but for those that begin or end a backlog.
const NUMBERS_PAUSE: SignedDuration = SignedDuration::from_secs(60);
/// Smallest change of the oldest row's time that is shown.
const OLDEST_STEP: SignedDuration = SignedDuration::from_secs(30);
/// Age from which a row waits. A younger one is on its way to Kafka.
const WAITS_AFTER: SignedDuration = SignedDuration::from_secs(5);
/// Longest pause between two requests for reports, while relays run. Relays count at least every 5
/// s, and every 2 s once a row has waited for a second. So a backlog shows within 15 s.
const REPORTS_PAUSE: Duration = Duration::from_secs(5);
/// Longest such pause while a backlog is shown: it must be gone within 5 s after its last row.
const REPORTS_PAUSE_WAITING: Duration = Duration::from_secs(2);

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

/// Numbers in the status.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Numbers {
    /// Rows that wait; 0 while none has waited for [`WAITS_AFTER`].
    pub backlog: Option<BacklogStatus>,
    pub parked_keys: Option<i64>,
    pub dead_letters: Option<i64>,
    pub published_per_second: Option<i64>,
}

impl Numbers {
    /// Returns the numbers that relays report. A number is absent while it is unknown.
    pub(crate) fn reported(reports: &[PodReport], now: Timestamp) -> Self {
        let first = |number: fn(&RelayReport) -> Option<u64>| known(reports).find_map(number);
        Self {
            backlog: waiting(reports, now),
            // Only the relay that owns lane 0 reports these two.
            parked_keys: first(|report| report.parked_keys).map(clamped),
            dead_letters: first(|report| report.dead_letters).map(clamped),
            published_per_second: cover_all_lanes(reports).then(|| rate(reports).round() as i64),
        }
    }

    /// Returns the numbers of a status.
    pub(crate) fn shown(status: &OutboxRelayStatus) -> Self {
        Self {
            backlog: status.backlog.clone(),
            parked_keys: status.parked_keys,
            dead_letters: status.dead_letters,
            published_per_second: status.published_per_second,
        }
    }

    /// Returns the status with these numbers.
    pub(crate) fn put_into(self, status: OutboxRelayStatus) -> OutboxRelayStatus {
        OutboxRelayStatus {
            backlog: self.backlog,
            parked_keys: self.parked_keys,
            dead_letters: self.dead_letters,
            published_per_second: self.published_per_second,
            ..status
        }
    }

    /// Returns whether the numbers that were found are worth a write of their own: at once if they
    /// begin or end something, and a noticeable change when it is due.
    fn are_worth_writing(&self, found: &Self, refresh: Refresh) -> bool {
        self.turns_into(found) || (refresh == Refresh::Due && self.is_far_from(found))
    }

    /// Returns whether a number begins or ends to be known, or to be zero.
    fn turns_into(&self, found: &Self) -> bool {
        let rows = |numbers: &Self| numbers.backlog.as_ref().map(|backlog| backlog.rows);
        let oldest = |numbers: &Self| Some(numbers.backlog.as_ref()?.oldest_at.is_some());
        turns(rows(self), rows(found))
            || oldest(self) != oldest(found)
            || turns(self.parked_keys, found.parked_keys)
            || turns(self.dead_letters, found.dead_letters)
            || self.published_per_second.is_some() != found.published_per_second.is_some()
    }

    fn is_far_from(&self, found: &Self) -> bool {
        let backlogs = self.backlog.as_ref().zip(found.backlog.as_ref());
        let rates = self.published_per_second.zip(found.published_per_second);
        backlogs.is_some_and(|(shown, found)| noticeable(shown, found))
            || self.parked_keys != found.parked_keys
            || self.dead_letters != found.dead_letters
            || rates.is_some_and(|(shown, found)| moved_by_half(shown, found))
    }
}

/// Returns the numbers that a status should show, of those that it shows and those that were found.
/// `written` is whether the status is written for another reason: then they are free.
pub(crate) fn to_show(
    shown: Numbers,
    found: Numbers,
    refresh: Refresh,
    written: StatusWrite,
) -> Numbers {
    if written == StatusWrite::Needed || shown.are_worth_writing(&found, refresh) {
        found
    } else {
        shown
    }
}

/// Whether a status is written for another reason than its numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum StatusWrite {
    Needed,
    NotNeeded,
}

/// Returns when reports are requested next: no later than the numbers that are shown need.
pub(crate) fn requeue(
    planned: Requeue,
    shown: &OutboxRelayStatus,
    reports: &[PodReport],
) -> Requeue {
    let waits = shown
        .backlog
        .as_ref()
        .is_some_and(|backlog| backlog.rows > 0);
    let pause = match (waits, reports.is_empty()) {
        (_, true) => return planned,
        (true, false) => REPORTS_PAUSE_WAITING,
        (false, false) => REPORTS_PAUSE,
    };
    match planned {
        Requeue::After(planned) => Requeue::After(planned.min(pause)),
        Requeue::OnChange => Requeue::OnChange,
    }
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
        oldest = oldest.into_iter().chain(oldest_at(own)).min();
    }
    let rows = clamped(rows);
    Some(BacklogStatus {
        rows,
        oldest_at: oldest.filter(|_| rows > 0).map(Time),
    })
}

/// Returns the backlog of all lanes, which is empty while no row has waited for [`WAITS_AFTER`].
fn waiting(reports: &[PodReport], now: Timestamp) -> Option<BacklogStatus> {
    let total = total(reports)?;
    let mut backlogs = known(reports).filter_map(|report| report.backlog.as_ref());
    let waits = backlogs.any(|own| own.rows > 0 && age(own, now) >= WAITS_AFTER);
    Some(if waits {
        total
    } else {
        BacklogStatus {
            rows: 0,
            oldest_at: None,
        }
    })
}

/// Returns the age of the oldest row when it was counted, by the clock of the database alone. An
/// older relay does not report that time, so there the operator's clock counts.
fn age(backlog: &Backlog, now: Timestamp) -> SignedDuration {
    let measured_at = backlog
        .measured_at
        .as_deref()
        .and_then(|at| at.parse().ok());
    let age = |oldest| measured_at.unwrap_or(now).duration_since(oldest);
    oldest_at(backlog).map_or(SignedDuration::ZERO, age)
}

/// Since when the oldest row waits.
fn oldest_at(backlog: &Backlog) -> Option<Timestamp> {
    let since = backlog
        .waiting_since
        .as_ref()
        .or(backlog.oldest_at.as_ref())?;
    since.parse().ok()
}

fn rate(reports: &[PodReport]) -> f64 {
    let rates = known(reports).map(|report| report.published_per_second);
    rates.sum()
}

fn clamped(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
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
    Some(Load {
        rows: backlog.rows,
        oldest_age: backlog.oldest_at.map_or(SignedDuration::ZERO, |at| {
            now.duration_since(at.0).max(SignedDuration::ZERO)
        }),
        published_per_second: rate(reports),
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

/// Returns whether a number begins or ends to be known, or to be zero.
fn turns(shown: Option<i64>, found: Option<i64>) -> bool {
    shown.map(|number| number == 0) != found.map(|number| number == 0)
}

/// Returns whether the backlog changed by a tenth, or the time of its oldest row by half a minute.
fn noticeable(before: &BacklogStatus, after: &BacklogStatus) -> bool {
    rows_moved(before.rows, after.rows) || oldest_moved(before, after)
}

fn rows_moved(before: i64, after: i64) -> bool {
    let tenth = (before.max(after) / 10).unsigned_abs();
    before.abs_diff(after) > tenth
}

fn oldest_moved(before: &BacklogStatus, after: &BacklogStatus) -> bool {
    match (&before.oldest_at, &after.oldest_at) {
        (Some(before), Some(after)) => after.0.duration_since(before.0).abs() >= OLDEST_STEP,
        _ => false,
    }
}

fn moved_by_half(before: i64, after: i64) -> bool {
    before != after && before.abs_diff(after) >= before.unsigned_abs().div_ceil(2)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        operator::fixtures::{at, now},
        report::{Backlog, RelayReport},
    };

    /// A report with rows, and when the oldest was written; counted at second 0.
    fn report(lanes: u32, backlog: Option<(u64, Option<&str>)>) -> PodReport {
        let backlog = backlog.map(|(rows, oldest)| Backlog {
            rows,
            capped: false,
            oldest_at: oldest.map(str::to_owned),
            waiting_since: None,
            measured_at: Some(now().to_string()),
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

    fn numbers(rows: i64, oldest: Option<i64>, rate: i64) -> Numbers {
        Numbers {
            backlog: Some(BacklogStatus {
                rows,
                oldest_at: oldest.map(|seconds| Time(at(seconds))),
            }),
            parked_keys: Some(0),
            dead_letters: Some(0),
            published_per_second: Some(rate),
        }
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
    fn a_lane_without_a_report_makes_the_numbers_unknown() {
        for reports in [
            vec![],
            vec![report(32, Some((5, None)))],
            vec![report(32, Some((5, None))), report(32, None)],
            vec![
                report(u32::MAX, Some((5, None))),
                report(65, Some((5, None))),
            ],
        ] {
            assert_eq!(Numbers::reported(&reports, now()).backlog, None);
        }
        assert_eq!(
            Numbers::reported(&[report(32, None)], now()),
            Numbers::default()
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
    fn rows_that_are_on_their_way_do_not_wait() {
        let shown = |oldest: &str, now| {
            let young = report(32, Some((7, Some("2026-01-01T11:59:59Z"))));
            let reports = [young, report(32, Some((5, Some(oldest))))];
            Numbers::reported(&reports, now).backlog.expect("complete")
        };
        assert_eq!(Some(shown("2026-01-01T11:59:55.000001Z", now())), rows(0));
        let waits = shown("2026-01-01T11:59:55Z", now());
        assert_eq!((waits.rows, waits.oldest_at), (12, Some(Time(at(-5)))));
        // A number that is old by now does not age, and neither does the operator's clock count.
        assert_eq!(Some(shown("2026-01-01T11:59:58Z", at(3600))), rows(0));
    }

    #[test]
    fn a_row_from_the_future_waits_since_it_was_seen() {
        let mut future = report(64, Some((5, Some("9999-12-31T23:59:59Z"))));
        let backlog = future.report.as_mut().and_then(|it| it.backlog.as_mut());
        backlog.expect("a backlog").waiting_since = Some("2026-01-01T11:59:50Z".to_owned());
        let numbers = Numbers::reported(&[future], now());
        let backlog = numbers.backlog.expect("complete");
        assert_eq!((backlog.rows, backlog.oldest_at), (5, Some(Time(at(-10)))));
    }

    #[test]
    fn a_report_of_an_older_relay_is_judged_by_the_operator_s_clock() {
        let mut old = report(64, Some((5, Some("2026-01-01T11:59:58Z"))));
        let backlog = old.report.as_mut().and_then(|it| it.backlog.as_mut());
        backlog.expect("a backlog").measured_at = None;
        let rows_at = |now| {
            let numbers = Numbers::reported(&[old.clone()], now);
            numbers.backlog.expect("complete").rows
        };
        assert_eq!((rows_at(at(2)), rows_at(at(3))), (0, 5));
    }

    #[test]
    fn numbers_are_due_a_minute_after_the_last_write() {
        assert_eq!(refresh(None, now()), Refresh::Due);
        assert_eq!(refresh(Some(now()), at(59)), Refresh::NotYet);
        assert_eq!(refresh(Some(now()), at(60)), Refresh::Due);
    }

    #[test]
    fn numbers_are_written_when_they_turn_and_noticeable_changes_when_they_are_due() {
        use Refresh::{Due, NotYet};
        let some = numbers(1000, Some(0), 100);
        for (found, refresh, written) in [
            (numbers(0, None, 100), NotYet, true),
            (numbers(1000, None, 100), NotYet, true),
            (numbers(1200, Some(0), 100), NotYet, false),
            (numbers(1200, Some(0), 100), Due, true),
            (numbers(1100, Some(29), 149), Due, false),
            (numbers(1000, Some(30), 100), Due, true),
            (numbers(1000, Some(0), 150), Due, true),
            (numbers(1000, Some(0), 50), Due, true),
            (numbers(1000, Some(0), 0), NotYet, false),
            (Numbers::default(), NotYet, true),
        ] {
            let shown = to_show(some.clone(), found.clone(), refresh, StatusWrite::NotNeeded);
            assert_eq!(shown == found, written, "{found:?} {refresh:?}");
        }
        let none = numbers(0, None, 0);
        let shown = to_show(none.clone(), some.clone(), NotYet, StatusWrite::NotNeeded);
        assert_eq!(shown, some);
    }

    #[test]
    fn parked_keys_and_dead_letters_show_at_once_when_there_are_any_and_each_change_when_due() {
        let with = |parked, dead| Numbers {
            parked_keys: Some(parked),
            dead_letters: Some(dead),
            ..numbers(0, None, 0)
        };
        for (before, after, refresh, written) in [
            (with(0, 0), with(1, 0), Refresh::NotYet, true),
            (with(0, 2), with(0, 0), Refresh::NotYet, true),
            (with(3, 0), with(4, 0), Refresh::NotYet, false),
            (with(3, 0), with(4, 0), Refresh::Due, true),
            (with(0, 3), with(0, 4), Refresh::Due, true),
        ] {
            let shown = to_show(before, after.clone(), refresh, StatusWrite::NotNeeded);
            assert_eq!(shown == after, written, "{after:?} {refresh:?}");
        }
    }

    #[test]
    fn a_status_that_is_written_anyway_gets_all_numbers() {
        let (shown, found) = (numbers(0, None, 7), numbers(0, None, 8));
        let written = to_show(shown, found.clone(), Refresh::NotYet, StatusWrite::Needed);
        assert_eq!(written, found);
    }

    #[test]
    fn reports_are_requested_as_often_as_the_numbers_need() {
        let reports = [report(64, None)];
        let after = Requeue::After;
        let seconds = |seconds| after(Duration::from_secs(seconds));
        for (planned, rows, reports, expected) in [
            (seconds(15), 0, &reports[..], seconds(5)),
            (seconds(15), 7, &reports[..], seconds(2)),
            (seconds(1), 7, &reports[..], seconds(1)),
            (seconds(15), 7, &[], seconds(15)),
            (Requeue::OnChange, 7, &reports[..], Requeue::OnChange),
        ] {
            let status = numbers(rows, None, 0).put_into(OutboxRelayStatus::default());
            assert_eq!(requeue(planned, &status, reports), expected);
        }
    }
}
