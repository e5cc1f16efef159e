//! How often the relay's own code allocates for a row, from its decoded form to its deletion. A row whose form is wrong makes no difference
//! here, and a time neither: counts are the same on every machine.

mod table;
mod turns;

use turns::{ROWS, Relay, Step};

/// Allocations for each row in so many turns, by step.
fn per_row(turns: usize) -> Vec<(Step, f64)> {
    let mut relay = Relay::under_load();
    let mut counts = Step::ALL.map(|_| 0);
    for _ in 0..turns {
        let sent = relay.turn(|step, work| counts[step as usize] += allocation_counter::measure(work).count_total);
        assert_eq!(sent, ROWS);
    }
    Step::ALL.into_iter().zip(counts.map(|count| count as f64 / (turns * ROWS) as f64)).collect()
}

#[test]
fn a_row_costs_few_allocations() {
    let steps = per_row(8);
    let all: f64 = steps.iter().map(|(_, count)| count).sum();
    assert!(all <= 0.0, "{all:.3} allocations a row: {steps:.3?}");
}
