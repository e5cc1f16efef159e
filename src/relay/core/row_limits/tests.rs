use super::*;
use crate::{
    kafka::TopicLimits,
    outbox::{RowId, RowText, Snapshot, TextColumn},
    settings::{OnPoison, TopicSettings},
};

const MIB: usize = 1 << 20;

fn limits(memory: usize, compression: Compression, topics: &[Option<usize>]) -> RowLimits {
    let mut limits = RowLimits::new(memory, compression);
    let topics = topics.iter().map(|bytes| TopicLimits {
        max_message_bytes: *bytes,
        ..TopicLimits::default()
    });
    limits.set_topics(&LimitsByTopic(topics.collect()));
    limits
}

/// A row of which only the size was read.
fn unread(lane: u8, id: i64, bytes: usize) -> OutboxRow {
    let texts = RowText {
        topic: Some("files"),
        headers: "",
        ..RowText::PLAIN
    };
    OutboxRow {
        content: Content::Unread(bytes),
        ..OutboxRow::with(lane, id, texts)
    }
}

#[test]
fn the_size_of_a_row_decides_how_it_is_sent() {
    use Compression::{Off, On};
    use Sending::{Alone, TooLarge, WithOthers};
    let added = ADDED_BYTES_MAX + RowText::PLAIN.aggregate_id.len();
    for (memory, compression, topic, bytes, expected) in [
        (usize::MAX, On, Some(MIB), MIB - added, WithOthers),
        (usize::MAX, On, Some(MIB), MIB - added + 1, Alone),
        (usize::MAX, On, Some(MIB), 8 * MIB, Alone),
        (usize::MAX, On, Some(MIB), 8 * MIB + 1, TooLarge),
        (usize::MAX, Off, Some(MIB), MIB, Alone),
        (usize::MAX, Off, Some(MIB), MIB + 1, TooLarge),
        // A limit that is not known may be larger than the usual one.
        (
            usize::MAX,
            On,
            None,
            TOPIC_BYTES_UNKNOWN - added,
            WithOthers,
        ),
        (usize::MAX, On, None, 50 * MIB, Alone),
        (usize::MAX, On, None, REQUEST_BYTES_MAX + 1, TooLarge),
        // A topic that takes large records: few of them are in memory at a time.
        (usize::MAX, On, Some(50 * MIB), 8 * MIB - added, WithOthers),
        (usize::MAX, On, Some(50 * MIB), 9 * MIB, Alone),
        (256 * MIB, On, Some(50 * MIB), 32 * MIB, Alone),
        (256 * MIB, On, Some(50 * MIB), 32 * MIB + 1, TooLarge),
        (usize::MAX, On, Some(usize::MAX), MIB, WithOthers),
    ] {
        let limits = limits(memory, compression, &[topic]);
        let sending = limits.sending(TopicIndex::new(0), &unread(0, 1, bytes));
        assert_eq!(
            sending, expected,
            "{bytes} of {topic:?}, {memory}, {compression:?}"
        );
    }
}

fn large_rows() -> LargeRows {
    let topic = TopicSettings {
        name: "files".to_owned(),
        event_types: vec![],
        aggregate_types: vec![],
        on_poison: OnPoison::Block,
    };
    LargeRows {
        routes: Arc::new(Routes::new(&[topic])),
        limits: limits(usize::MAX, Compression::On, &[Some(MIB)]),
    }
}

fn fetched(rows: Vec<OutboxRow>) -> Fetched {
    Fetched {
        snapshot: Snapshot::new(1, vec![]),
        rows,
        scanned: vec![],
        cut: vec![],
    }
}

fn ids(rows: &[OutboxRow]) -> Vec<i64> {
    rows.iter().map(|row| row.id.get()).collect()
}

#[test]
fn a_lane_is_cut_at_the_first_large_row_without_room_and_other_lanes_are_not() {
    let mut fetched = fetched(vec![
        unread(0, 1, MIB / 2),
        unread(0, 3, MIB / 2),
        OutboxRow::plain(0, 5),
        OutboxRow::plain(1, 2),
        unread(1, 4, 9 * MIB),
        unread(1, 6, 2 * MIB),
        unread(1, 8, MIB / 4),
    ]);
    let request = FetchRequest {
        bytes_max: MIB,
        ..FetchRequest::default()
    };
    let wanted = large_rows().plan_fetch(&request, &mut fetched);
    let wanted: Vec<_> = wanted.iter().map(|wanted| wanted.row.id.get()).collect();
    assert_eq!(wanted, [1, 8]);
    assert_eq!(ids(&fetched.rows), [1, 2, 4, 6, 8]);
    assert_eq!(fetched.cut, [Lane::new(0)]);
    let faults: Vec<_> = fetched.rows.iter().map(OutboxRow::fault).collect();
    assert_eq!(faults, [None, None, Some(RowFault::TooLarge), None, None]);
}

#[test]
fn one_large_row_is_read_however_little_room_there_is() {
    let mut fetched = fetched(vec![unread(0, 1, MIB / 2), unread(1, 2, MIB / 2)]);
    let request = FetchRequest {
        bytes_max: 1,
        ..FetchRequest::default()
    };
    assert_eq!(large_rows().plan_fetch(&request, &mut fetched).len(), 1);
    assert_eq!(ids(&fetched.rows), [1]);
}

#[test]
fn a_large_row_in_flight_is_not_read_again() {
    let row = unread(0, 1, MIB / 2);
    let request = FetchRequest {
        bytes_max: MIB,
        held: [row.identity()].into(),
        ..FetchRequest::default()
    };
    let mut fetched = fetched(vec![row]);
    assert!(large_rows().plan_fetch(&request, &mut fetched).is_empty());
    assert_eq!(ids(&fetched.rows), [1]);
}

#[test]
fn a_lane_is_cut_at_a_large_row_that_does_not_exist_any_more() {
    let mut fetched = fetched(vec![
        unread(0, 1, MIB / 2),
        OutboxRow::plain(0, 3),
        unread(1, 2, MIB / 2),
    ]);
    let wanted = [&fetched.rows[0], &fetched.rows[2]].map(OutboxRow::identity);
    let wanted = wanted.into();
    fetched.fill(&wanted, vec![OutboxRow::plain(1, 2)]);
    assert_eq!(ids(&fetched.rows), [2]);
    assert!(!fetched.rows[0].is_unread());
    assert_eq!(fetched.cut, [Lane::new(0)]);
}

#[test]
fn rows_that_are_looked_up_are_read_up_to_a_number_of_bytes() {
    let mut rows = vec![
        unread(0, 1, 7 * MIB),
        unread(0, 2, MIB),
        unread(0, 3, 9 * MIB),
        OutboxRow {
            content: Content::Faulty(RowFault::NotUtf8(TextColumn::Headers), 5),
            ..unread(0, 4, 5)
        },
    ];
    let wanted = large_rows().plan_lookup(&mut rows);
    assert_eq!(wanted.len(), 1);
    assert_eq!(wanted[0].row.id, RowId::new(1));
    assert_eq!(rows[2].fault(), Some(RowFault::TooLarge));
}
