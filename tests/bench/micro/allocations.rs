//! Counts the allocations of the relay's own code for a row in a steady state, from its decoded
//! form to its deletion. The count is the same on every machine. It does not include the clients of
//! PostgreSQL and Kafka: decoding needs an answer of a server, and librdkafka is C.

mod table;
mod turns;

use turns::{ROWS, Relay, Step};

/// Allocations per row when this was last measured. Five are for the headers: the reserved space,
/// three texts that the row does not contain in this form, and the names of the row's own headers.
const MEASURED_PER_ROW: f64 = 5.18;
/// Limit for the allocations per row.
const MAX_PER_ROW: f64 = 5.4;
const TURNS: usize = 8;

#[test]
fn a_row_costs_few_allocations() {
    let mut relay = Relay::under_load();
    let mut counts = Step::ALL.map(|step| (step, 0));
    for _ in 0..TURNS {
        let sent = relay.turn(|step, work| {
            counts[step as usize].1 += allocation_counter::measure(work).count_total
        });
        assert_eq!(sent, ROWS, "each turn sends as many rows as the last");
    }
    let per_row = |count| count as f64 / (TURNS * ROWS) as f64;
    let all = per_row(counts.iter().map(|(_, count)| count).sum());
    let steps = counts.map(|(step, count)| (step, per_row(count)));
    assert!(
        all <= MAX_PER_ROW,
        "{all:.2} allocations a row, more than {MAX_PER_ROW}; they were {MEASURED_PER_ROW}. \
         By step: {steps:.2?}"
    );
}
