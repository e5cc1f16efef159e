use super::*;

fn row(lane: u8, id: i64) -> OutboxRow {
    OutboxRow {
        event_id: Uuid::from_u128(7),
        ..OutboxRow::plain(lane, id)
    }
}

fn window() -> Window {
    Window::new(
        Budget {
            rows: 3,
            bytes: 1000,
            rows_per_lane: 2,
        },
        1,
    )
}

#[test]
fn a_full_window_takes_nothing() {
    let mut window = window();
    assert!(window.take(&row(1, 1), 0).is_some());
    assert!(window.take(&row(1, 2), 0).is_some());
    assert_eq!(window.take(&row(1, 3), 0), None, "the lane is full");
    assert!(window.take(&row(2, 4), 0).is_some());
    assert_eq!(window.take(&row(3, 5), 0), None, "the window is full");
}

#[test]
fn a_settled_row_stays_until_the_fetch_under_way_is_in() {
    let mut window = window();
    let slot = window.take(&row(1, 5), 0).expect("room");
    window.acknowledged(slot).expect("sent");
    let settle = window.next_settle(10).expect("one acked");
    window.settled(&settle.slots, true);
    assert!(window.holds(1, 5, Uuid::from_u128(7)));
    window.fetch_is_in();
    assert!(!window.holds(1, 5, Uuid::from_u128(7)));
    assert_eq!((window.rows(), window.bytes(), window.sent()), (0, 0, 0));
}

#[test]
fn an_id_that_comes_again_with_another_event_is_another_row() {
    let mut window = window();
    window.take(&row(1, 5), 0).expect("room");
    assert!(!window.holds(1, 5, Uuid::from_u128(8)));
}

#[test]
fn a_row_whose_delete_failed_is_settled_again() {
    let mut window = window();
    let slot = window.take(&row(1, 5), 0).expect("room");
    window.acknowledged(slot).expect("sent");
    let settle = window.next_settle(10).expect("one acked");
    window.settle_failed(&settle.slots);
    assert_eq!(window.next_settle(10), Some(settle));
}

#[test]
fn a_second_report_of_a_row_changes_nothing() {
    let mut window = window();
    let slot = window.take(&row(1, 5), 0).expect("room");
    let row = RowName {
        lane: 1,
        id: 5,
        event_id: Uuid::from_u128(7),
    };
    assert_eq!(window.failed(slot), Some(GivenBack { row, topic: 0 }));
    assert_eq!(
        (window.failed(slot), window.acknowledged(slot)),
        (None, None)
    );
}
