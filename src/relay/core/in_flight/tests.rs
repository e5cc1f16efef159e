use super::*;

const TOPIC: TopicIndex = TopicIndex::new(0);

fn identity(event_id: u128) -> RowIdentity {
    RowIdentity {
        lane: Lane::new(1),
        id: RowId::new(5),
        event_id: Uuid::from_u128(event_id),
    }
}

fn row(lane: u8, id: i64) -> OutboxRow {
    OutboxRow {
        event_id: Uuid::from_u128(7),
        ..OutboxRow::plain(lane, id)
    }
}

fn in_flight() -> InFlight {
    InFlight::new(Budget {
        rows: 3,
        bytes: 1000,
        rows_per_lane: 2,
    })
}

#[test]
fn a_full_window_takes_nothing() {
    let mut in_flight = in_flight();
    assert!(in_flight.take(&row(1, 1), TOPIC).is_some());
    assert!(in_flight.take(&row(1, 2), TOPIC).is_some());
    assert_eq!(in_flight.take(&row(1, 3), TOPIC), None, "the lane is full");
    assert!(in_flight.take(&row(2, 4), TOPIC).is_some());
    assert_eq!(
        in_flight.take(&row(3, 5), TOPIC),
        None,
        "the window is full"
    );
}

#[test]
fn a_settled_row_stays_until_the_fetch_under_way_is_in() {
    let mut in_flight = in_flight();
    let slot = in_flight.take(&row(1, 5), TOPIC).expect("room");
    in_flight.on_acknowledged(slot).expect("sent");
    let settle = in_flight.next_settle(10).expect("one acked");
    in_flight.on_settled(&settle.slots, AfterSettle::KeepUntilFetchEnds);
    assert!(in_flight.holds(identity(7)));
    in_flight.end_fetch();
    assert!(!in_flight.holds(identity(7)));
    assert_eq!(
        (in_flight.rows(), in_flight.bytes(), in_flight.sent()),
        (0, 0, 0)
    );
}

#[test]
fn an_id_that_comes_again_with_another_event_is_another_row() {
    let mut in_flight = in_flight();
    in_flight.take(&row(1, 5), TOPIC).expect("room");
    assert!(!in_flight.holds(identity(8)));
}

#[test]
fn a_row_whose_delete_failed_is_settled_again() {
    let mut in_flight = in_flight();
    let slot = in_flight.take(&row(1, 5), TOPIC).expect("room");
    in_flight.on_acknowledged(slot).expect("sent");
    let settle = in_flight.next_settle(10).expect("one acked");
    in_flight.on_settle_failed(&settle.slots);
    assert_eq!(in_flight.next_settle(10), Some(settle));
}

#[test]
fn a_second_report_of_a_row_changes_nothing() {
    let mut in_flight = in_flight();
    let slot = in_flight.take(&row(1, 5), TOPIC).expect("room");
    let row = identity(7);
    assert_eq!(
        in_flight.on_failed(slot),
        Some(ReturnedRow { row, topic: TOPIC })
    );
    assert_eq!(
        (in_flight.on_failed(slot), in_flight.on_acknowledged(slot)),
        (None, None)
    );
}
