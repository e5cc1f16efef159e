//! Compares what was committed with what arrived. Pure.

use std::{
    collections::{BTreeMap, HashSet},
    time::{Duration, Instant},
};

use crate::ledger::{Arrival, Fault, Ledger, Outcome, Row};

/// Longest time between a fault and the first record of a row that was in flight then.
const IN_FLIGHT_MAX: Duration = Duration::from_secs(5);

/// Result of the comparison.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct CheckReport {
    committed: usize,
    rolled_back: usize,
    records: usize,
    /// Committed events without a record.
    lost: usize,
    /// Events that were rolled back and have a record.
    rolled_back_seen: usize,
    /// First occurrences that came after a later event of their topic and key.
    out_of_order: usize,
    duplicates: usize,
    /// Duplicates that no fault explains.
    unexplained: usize,
    /// Records whose topic, key or value differs from their row, and duplicates whose partition or
    /// headers differ from the first record.
    altered: usize,
}

/// Compares all rows with their records.
pub(crate) fn check(rows: &[Row], fault: Option<Fault>) -> CheckReport {
    let mut report = CheckReport::default();
    let mut keys: BTreeMap<(&str, &str), Vec<&Row>> = BTreeMap::new();
    for row in rows {
        report.count(row);
        report.unexplained += unexplained(row, fault);
        keys.entry((&row.topic, &row.key)).or_default().push(row);
    }
    report.out_of_order = keys.values().map(|rows| out_of_order(rows)).sum();
    report.altered += keys.values().filter(|rows| partitions(rows) > 1).count();
    report
}

fn out_of_order(rows: &[&Row]) -> usize {
    let mut firsts: Vec<(i64, i64)> = rows
        .iter()
        .filter_map(|row| {
            Some((
                row.arrivals.iter().map(|record| record.offset).min()?,
                row.revision,
            ))
        })
        .collect();
    firsts.sort_unstable();
    let mut highest = 0;
    let mut late = 0;
    for (_, revision) in firsts {
        late += usize::from(revision < highest);
        highest = highest.max(revision);
    }
    late
}

/// Counts duplicates that came before the fault, or whose rows were not in flight during it.
fn unexplained(row: &Row, fault: Option<Fault>) -> usize {
    let Some((first, others)) = row.arrivals.split_first() else {
        return 0;
    };
    let Some(fault) = fault else {
        return others.len();
    };
    let ended = fault.ended.unwrap_or(fault.began);
    let was_in_flight =
        first.at + IN_FLIGHT_MAX >= fault.began && first.at <= ended + IN_FLIGHT_MAX;
    others
        .iter()
        .filter(|other| other.at < fault.began || !was_in_flight)
        .count()
}

fn partitions(rows: &[&Row]) -> usize {
    rows.iter()
        .flat_map(|row| &row.arrivals)
        .map(|record| record.partition)
        .collect::<HashSet<_>>()
        .len()
}

impl CheckReport {
    fn count(&mut self, row: &Row) {
        self.records += row.arrivals.len();
        match row.outcome {
            Outcome::Committed(_) => {
                self.committed += 1;
                self.lost += usize::from(row.arrivals.is_empty());
            }
            Outcome::RolledBack => {
                self.rolled_back += 1;
                self.rolled_back_seen += usize::from(!row.arrivals.is_empty());
            }
            Outcome::Open => {}
        }
        let Some(first) = row.arrivals.first() else {
            return;
        };
        self.duplicates += row.arrivals.len() - 1;
        let is_same = |record: &&Arrival| {
            record.topic == row.topic
                && record.key == row.key.as_bytes()
                && record.payload == row.payload
                && record.headers == first.headers
        };
        self.altered += row.arrivals.len() - row.arrivals.iter().filter(is_same).count();
    }

    /// Whether all promises were kept. Rows that were in flight during a fault may have duplicates.
    pub(crate) fn passed(&self) -> bool {
        self.lost + self.rolled_back_seen + self.out_of_order + self.altered + self.unexplained == 0
            && self.committed > 0
    }

    /// Prints the result, and the latencies of rows that were committed after `warm`.
    pub(crate) fn print(&self, ledger: &Ledger, warm: Instant) {
        println!();
        println!("   rows committed    {:>8}", self.committed);
        println!(
            "   rows rolled back  {:>8}   seen in Kafka: {}",
            self.rolled_back, self.rolled_back_seen
        );
        println!(
            "   records seen      {:>8}   with another key, value, headers or partition: {}",
            self.records, self.altered
        );
        println!("   lost              {:>8}", self.lost);
        println!("   out of order      {:>8}", self.out_of_order);
        println!(
            "   duplicates        {:>8}   that no fault explains: {}",
            self.duplicates, self.unexplained
        );
        print_latency(&measured(&ledger.rows(), warm), ledger.last_fault());
    }
}

/// Latency of a row whose record arrived.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Latency {
    arrived: Instant,
    milliseconds: f64,
}

/// Returns the latencies of the rows that were committed after `warm`.
fn measured(rows: &[Row], warm: Instant) -> Vec<Latency> {
    let is_measured = |row: &&Row| matches!(row.outcome, Outcome::Committed(at) if at.duration_since(warm) > Duration::ZERO);
    rows.iter()
        .filter(is_measured)
        .filter_map(Row::latency_ms)
        .map(|(arrived, milliseconds)| Latency {
            arrived,
            milliseconds,
        })
        .collect()
}

/// Prints latencies: while nothing was broken, which is until a fault, and of all rows.
fn print_latency(latencies: &[Latency], fault: Option<Fault>) {
    let of = |is_included: &dyn Fn(&Latency) -> bool| {
        let included = latencies.iter().filter(|latency| is_included(latency));
        percentiles(included.map(|latency| latency.milliseconds).collect())
    };
    let all = of(&|_| true);
    let Some(fault) = fault else {
        println!("   commit to consumer  {all}");
        return;
    };
    let before = of(&|latency| latency.arrived < fault.began);
    println!("   commit to consumer  {before}: until the relay was killed");
    println!("                       {all}: all of it");
}

fn percentiles(mut ms: Vec<f64>) -> String {
    if ms.is_empty() {
        return "not measured".to_owned();
    }
    ms.sort_by(f64::total_cmp);
    let at = |percent: usize| ms[(ms.len() * percent / 100).min(ms.len() - 1)];
    format!(
        "p50 {:.0} ms, p99 {:.0} ms, longest {:.0} ms",
        at(50),
        at(99),
        at(100)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(committed: Option<Instant>, arrived: Instant) -> Row {
        let mut row = Row::new("topic", "key", 1, b"{}");
        row.outcome = committed.map_or(Outcome::RolledBack, Outcome::Committed);
        row.arrivals.push(Arrival {
            topic: "topic".to_owned(),
            partition: 0,
            offset: 0,
            key: b"key".to_vec(),
            payload: b"{}".to_vec(),
            headers: Vec::new(),
            at: arrived,
        });
        row
    }

    #[test]
    fn rows_of_the_warm_up_and_rows_that_were_rolled_back_are_not_measured() {
        let start = Instant::now();
        let at = |milliseconds| start + Duration::from_millis(milliseconds);
        let rows = [
            row(Some(at(100)), at(900)),
            row(Some(at(499)), at(504)),
            row(None, at(700)),
            row(Some(at(600)), at(607)),
        ];
        let latency = Latency {
            arrived: at(607),
            milliseconds: 7.0,
        };
        assert_eq!(measured(&rows, at(500)), [latency]);
    }
}
