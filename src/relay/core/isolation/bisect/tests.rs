use super::*;
use crate::outbox::RowText;

const TOPIC: TopicIndex = TopicIndex::new(0);

fn slots(indexes: std::ops::Range<usize>) -> Vec<Slot> {
    indexes.map(Slot::new).collect()
}

fn row(id: i64) -> OutboxRow {
    OutboxRow::with(
        1,
        id,
        RowText {
            aggregate_id: &format!("k{}", id % 3),
            ..RowText::PLAIN
        },
    )
}

/// Probes until nothing is left; a batch is rejected when `is_bad` says so. Returns what was
/// published, in order, and all results.
fn run(
    bisect: &mut Bisect,
    is_bad: impl Fn(&[OutboxRow]) -> Option<ProblemClass>,
) -> (Vec<i64>, Vec<ProbeResult>) {
    let (mut published, mut results) = (Vec::new(), Vec::new());
    while let Some(group) = bisect.next_group(|_, _| true) {
        let rows = group.rows.clone();
        bisect.on_sent(group, &slots(0..rows.len()));
        let end = is_bad(&rows).map_or(ProbeOutcome::Published, ProbeOutcome::Rejected);
        if end == ProbeOutcome::Published {
            published.extend(rows.iter().map(|row| row.id.get()));
        }
        for slot in slots(0..rows.len()) {
            results.extend(bisect.on_report(slot, end).unwrap_or_default());
        }
    }
    (published, results)
}

#[test]
fn halving_finds_the_bad_rows_and_publishes_the_others_in_order() {
    let mut bisect = Bisect::default();
    bisect.add_candidates(
        TOPIC,
        Some(ProblemClass::RecordRejected),
        (1..=9).map(row).collect(),
    );
    let bad = [4, 9];
    let (published, results) = run(&mut bisect, |rows| {
        rows.iter()
            .any(|row| bad.contains(&row.id.get()))
            .then_some(ProblemClass::RecordRejected)
    });
    assert_eq!(published, [1, 2, 3, 5, 6, 7, 8]);
    let rejected: Vec<i64> = results
        .iter()
        .filter_map(|result| {
            if let ProbeResult::RowRejected { row, .. } = result {
                Some(row.id.get())
            } else {
                None
            }
        })
        .collect();
    assert_eq!(
        (rejected.as_slice(), bisect.is_empty()),
        (bad.as_slice(), true)
    );
}

#[test]
fn a_batch_without_a_bad_row_was_itself_too_large() {
    let mut bisect = Bisect::default();
    bisect.add_candidates(
        TOPIC,
        Some(ProblemClass::RecordTooLarge),
        (1..=8).map(row).collect(),
    );
    // Of 8, then of 4.
    let bytes = 4 * row(1).bytes();
    let (published, results) = run(&mut bisect, |rows| {
        (rows.len() > 3).then_some(ProblemClass::RecordTooLarge)
    });
    assert_eq!(published.len(), 8);
    assert!(
        results
            == [ProbeResult::BatchTooLarge {
                topic: TOPIC,
                bytes
            }]
    );
}

#[test]
fn rows_that_were_not_tried_are_probed_after_the_rejected_ones_before_them() {
    let mut bisect = Bisect::default();
    bisect.add_candidates(
        TOPIC,
        Some(ProblemClass::RecordRejected),
        (1..=4).map(row).collect(),
    );
    let group = bisect.next_group(|_, _| true).expect("a group");
    bisect.on_sent(group, &slots(10..14));
    for (slot, end) in [
        (Slot::new(10), ProbeOutcome::Published),
        (
            Slot::new(11),
            ProbeOutcome::Rejected(ProblemClass::RecordRejected),
        ),
        (Slot::new(12), ProbeOutcome::NotTried),
    ] {
        assert!(bisect.on_report(slot, end).is_none());
    }
    let results = bisect
        .on_report(Slot::new(13), ProbeOutcome::NotTried)
        .expect("the last one");
    assert!(
        matches!(results.as_slice(), [ProbeResult::RowRejected { row, attempts: 2, .. }] if row.id.get() == 2)
    );
    assert_eq!(
        bisect
            .next_group(|_, _| true)
            .expect("the rows that were not tried")
            .rows
            .iter()
            .map(|row| row.id.get())
            .collect::<Vec<_>>(),
        [3, 4]
    );
}

#[test]
fn a_topic_that_fails_ends_its_probes() {
    let mut bisect = Bisect::default();
    bisect.add_topic_row(TOPIC, row(1));
    bisect.add_candidates(TOPIC, Some(ProblemClass::RecordRejected), vec![row(2)]);
    let group = bisect.next_group(|_, _| true).expect("the topic's row");
    bisect.on_sent(group, &slots(7..8));
    assert!(
        bisect.on_report(Slot::new(7), ProbeOutcome::TopicFailed) == Some(vec![])
            && bisect.is_empty()
    );
}

#[test]
fn a_topic_works_again_when_its_row_is_published() {
    let mut bisect = Bisect::default();
    bisect.add_topic_row(TOPIC, row(1));
    assert!(run(&mut bisect, |_| None).1 == [ProbeResult::TopicAccepted(TOPIC)]);
}
