use super::*;
use crate::outbox::Texts;

fn row(id: i64) -> OutboxRow {
    OutboxRow::with(
        1,
        id,
        Texts {
            aggregate_id: &format!("k{}", id % 3),
            ..Texts::PLAIN
        },
    )
}

/// Tries until nothing is left; a batch is refused when `is_bad` says so. Returns what was
/// published, in order, and all findings.
fn run(
    trials: &mut Trials,
    is_bad: impl Fn(&[OutboxRow]) -> Option<ProblemClass>,
) -> (Vec<i64>, Vec<Finding>) {
    let (mut published, mut findings) = (Vec::new(), Vec::new());
    while let Some(group) = trials.next_group(|_| true) {
        let rows = group.rows.clone();
        trials.began(group, &(0..rows.len()).collect::<Vec<_>>());
        let end = is_bad(&rows).map_or(Ended::Published, Ended::Refused);
        if end == Ended::Published {
            published.extend(rows.iter().map(|row| row.id));
        }
        for slot in 0..rows.len() {
            findings.extend(trials.ended(slot, end).unwrap_or_default());
        }
    }
    (published, findings)
}

#[test]
fn halving_finds_the_culprits_and_publishes_the_innocent_in_order() {
    let mut trials = Trials::default();
    trials.suspect(
        0,
        Some(ProblemClass::RecordRejected),
        (1..=9).map(row).collect(),
    );
    let bad = [4, 9];
    let (published, findings) = run(&mut trials, |rows| {
        rows.iter()
            .any(|row| bad.contains(&row.id))
            .then_some(ProblemClass::RecordRejected)
    });
    assert_eq!(published, [1, 2, 3, 5, 6, 7, 8]);
    let culprits: Vec<i64> = findings
        .iter()
        .filter_map(|finding| {
            if let Finding::Culprit { row, .. } = finding {
                Some(row.id)
            } else {
                None
            }
        })
        .collect();
    assert_eq!(
        (culprits.as_slice(), trials.is_empty()),
        (bad.as_slice(), true)
    );
}

#[test]
fn a_batch_without_a_bad_row_was_itself_too_large() {
    let mut trials = Trials::default();
    trials.suspect(
        0,
        Some(ProblemClass::RecordTooLarge),
        (1..=8).map(row).collect(),
    );
    // Of 8, then of 4.
    let bytes = 4 * row(1).bytes();
    let (published, findings) = run(&mut trials, |rows| {
        (rows.len() > 3).then_some(ProblemClass::RecordTooLarge)
    });
    assert_eq!(published.len(), 8);
    assert!(findings == [Finding::BatchTooLarge { topic: 0, bytes }]);
}

#[test]
fn purged_rows_are_tried_after_the_refused_ones_before_them() {
    let mut trials = Trials::default();
    trials.suspect(
        0,
        Some(ProblemClass::RecordRejected),
        (1..=4).map(row).collect(),
    );
    let group = trials.next_group(|_| true).expect("a group");
    trials.began(group, &[10, 11, 12, 13]);
    for (slot, end) in [
        (10, Ended::Published),
        (11, Ended::Refused(ProblemClass::RecordRejected)),
        (12, Ended::Purged),
    ] {
        assert!(trials.ended(slot, end).is_none());
    }
    let findings = trials.ended(13, Ended::Purged).expect("the last one");
    assert!(
        matches!(findings.as_slice(), [Finding::Culprit { row, attempts: 2, .. }] if row.id == 2)
    );
    assert_eq!(
        trials
            .next_group(|_| true)
            .expect("the purged ones")
            .rows
            .iter()
            .map(|row| row.id)
            .collect::<Vec<_>>(),
        [3, 4]
    );
}

#[test]
fn a_topic_that_fails_ends_its_trials() {
    let mut trials = Trials::default();
    trials.try_topic(0, row(1));
    trials.suspect(0, Some(ProblemClass::RecordRejected), vec![row(2)]);
    let group = trials.next_group(|_| true).expect("the topic's row");
    trials.began(group, &[7]);
    assert!(trials.ended(7, Ended::TopicFailed) == Some(vec![]) && trials.is_empty());
}

#[test]
fn a_topic_works_again_when_its_row_is_published() {
    let mut trials = Trials::default();
    trials.try_topic(3, row(1));
    assert!(run(&mut trials, |_| None).1 == [Finding::TopicWorks(3)]);
}
