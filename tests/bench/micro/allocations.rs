//! How often the relay's own code allocates for a row, from its decoded form to its deletion, at a
//! steady state. A count, and so the same on every machine. What PostgreSQL's and Kafka's clients
//! allocate is not in it: only a server's answer can be decoded, and librdkafka is C.

mod table;
mod turns;

use turns::{ROWS, Relay, Step};

/// The headers are five: what is reserved, three texts that the row does not have as such, and the
/// names of its own.
const MEASURED: f64 = 5.18;
const AT_MOST: f64 = 5.4;
const TURNS: usize = 8;

#[test]
fn a_row_costs_few_allocations() {
    let mut relay = Relay::under_load();
    let mut counts = Step::ALL.map(|step| (step, 0));
    for _ in 0..TURNS {
        let sent = relay.turn(|step, work| {
            counts[step as usize].1 += allocation_counter::measure(work).count_total
        });
        assert_eq!(sent, ROWS, "each turn carries as much as the last");
    }
    let per_row = |count| count as f64 / (TURNS * ROWS) as f64;
    let all = per_row(counts.iter().map(|(_, count)| count).sum());
    let steps = counts.map(|(step, count)| (step, per_row(count)));
    assert!(
        all <= AT_MOST,
        "{all:.2} allocations a row, more than {AT_MOST}; they were {MEASURED}. By step: \
         {steps:.2?}"
    );
}
