//! Prints a line each second: numbers of rows and records, and the record that arrived last.

use std::{sync::Arc, time::Duration};

use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use crate::ledger::Ledger;

/// Prints until `stop` is cancelled.
pub(crate) async fn print(ledger: Arc<Ledger>, stop: CancellationToken) {
    let mut seconds = interval(Duration::from_secs(1));
    seconds.set_missed_tick_behavior(MissedTickBehavior::Skip);
    seconds.tick().await;
    let began = tokio::time::Instant::now();
    loop {
        tokio::select! {
            _ = seconds.tick() => {}
            () = stop.cancelled() => return,
        }
        let counts = ledger.counts();
        println!(
            "   {:>3} s   committed {:>6}   rolled back {:>5}   arrived {:>6}   waiting {:>5}{}",
            began.elapsed().as_secs_f64().round(),
            counts.committed,
            counts.rolled_back,
            counts.arrived,
            counts.waiting(),
            last_record(&ledger)
        );
    }
}

fn last_record(ledger: &Ledger) -> String {
    let Some(row) = ledger.latest() else {
        return String::new();
    };
    let Some(arrival) = row.arrivals.last() else {
        return String::new();
    };
    let after = row
        .latency_ms()
        .map_or(String::new(), |(_, ms)| format!(" after {ms:.0} ms"));
    format!(
        "   {}/{} {} rev {}{after}",
        row.topic, arrival.partition, row.key, row.revision
    )
}
