//! Reports of all relays -> the one backlog in status, and whether it is worth a write. Pure.

use k8s_openapi::{
    apimachinery::pkg::apis::meta::v1::Time,
    jiff::{SignedDuration, Timestamp},
};

use super::reports::PodReport;
use crate::api::BacklogStatus;

/// Lanes that all relays own together.
const LANES: u32 = 64;
/// Numbers that change a little are written this often.
const PAUSE: SignedDuration = SignedDuration::from_secs(30);

/// Rows of all lanes; none while a lane has no reporting owner: a sum of a part would look like progress.
pub(crate) fn total(reports: &[PodReport]) -> Option<BacklogStatus> {
    let known: Vec<_> = reports.iter().filter_map(|one| one.report.as_ref()).collect();
    if known.iter().map(|report| report.lanes).fold(0, u32::saturating_add) != LANES {
        return None;
    }
    let mut rows = 0_u64;
    let mut oldest: Option<Timestamp> = None;
    for report in known.iter().filter(|report| report.lanes > 0) {
        let own = report.backlog.as_ref()?;
        rows = rows.saturating_add(own.rows);
        let own_oldest = own.oldest_at.as_deref().and_then(|at| at.parse().ok());
        oldest = oldest.into_iter().chain(own_oldest).min();
    }
    let rows = i64::try_from(rows).unwrap_or(i64::MAX);
    Some(BacklogStatus { rows, oldest_at: oldest.filter(|_| rows > 0).map(Time) })
}

/// What status should say: a noticeable change at once, a small one when the last write is old enough.
pub(crate) fn to_show(
    shown: Option<&BacklogStatus>,
    found: Option<BacklogStatus>,
    written_at: Option<Timestamp>,
    now: Timestamp,
) -> Option<BacklogStatus> {
    let (Some(shown), Some(found)) = (shown, &found) else { return found };
    let due = written_at.is_none_or(|at| now.duration_since(at) >= PAUSE);
    if due || noticeable(shown.rows, found.rows) { Some(found.clone()) } else { Some(shown.clone()) }
}

fn noticeable(before: i64, after: i64) -> bool {
    let largest = before.max(after);
    before.abs_diff(after) > (largest / 10).max(100).unsigned_abs()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        operator::fixtures::{at, now},
        report::{Backlog, RelayReport},
    };

    fn report(lanes: u32, backlog: Option<(u64, Option<&str>)>) -> PodReport {
        let backlog = backlog.map(|(rows, oldest)| Backlog { rows, capped: false, oldest_at: oldest.map(str::to_owned) });
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
        PodReport { pod: "p".to_owned(), report: Some(report) }
    }

    fn rows(rows: i64) -> Option<BacklogStatus> {
        Some(BacklogStatus { rows, oldest_at: None })
    }

    #[test]
    fn rows_are_summed_and_the_oldest_counts() {
        let all = [report(32, Some((5, Some("2026-01-01T00:00:02Z")))), report(32, Some((7, Some("2026-01-01T00:00:01Z"))))];
        let total = total(&all).expect("all lanes report");
        assert_eq!(total.rows, 12);
        assert_eq!(total.oldest_at.expect("rows wait").0.to_string(), "2026-01-01T00:00:01Z");
    }

    #[test]
    fn a_lane_without_a_report_makes_the_sum_unknown() {
        assert_eq!(total(&[]), None);
        assert_eq!(total(&[report(32, Some((5, None)))]), None);
        assert_eq!(total(&[report(32, Some((5, None))), report(32, None)]), None);
        assert_eq!(total(&[report(u32::MAX, Some((5, None))), report(65, Some((5, None)))]), None);
    }

    #[test]
    fn a_relay_without_lanes_needs_no_backlog() {
        assert_eq!(total(&[report(64, Some((5, None))), report(0, None)]), rows(5));
    }

    #[test]
    fn a_small_change_waits_for_half_a_minute_and_a_large_one_does_not() {
        let shown = rows(1000);
        assert_eq!(to_show(shown.as_ref(), rows(1050), Some(now()), at(10)), rows(1000));
        assert_eq!(to_show(shown.as_ref(), rows(1050), Some(now()), at(30)), rows(1050));
        assert_eq!(to_show(shown.as_ref(), rows(2000), Some(now()), at(1)), rows(2000));
    }

    #[test]
    fn an_unknown_number_is_removed_at_once() {
        assert_eq!(to_show(rows(1000).as_ref(), None, Some(now()), at(1)), None);
    }
}
