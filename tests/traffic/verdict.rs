//! Compares what was committed with what arrived. Pure.

use std::{
    collections::{BTreeMap, HashSet},
    time::{Duration, Instant},
};

use crate::ledger::{Fate, Fault, Ledger, Row};

/// What a process had under way when it was killed was first seen by a consumer at most so long
/// before, or after.
const UNDER_WAY: Duration = Duration::from_secs(5);

#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Verdict {
    committed: usize,
    rolled_back: usize,
    records: usize,
    /// Committed, never seen.
    lost: usize,
    /// Rolled back, seen all the same.
    ghosts: usize,
    /// First occurrences that came after a later one of their topic and key.
    out_of_order: usize,
    duplicates: usize,
    /// Those that no fault explains.
    unprovoked: usize,
    /// Records with another topic, key or value than their row, or duplicates with another
    /// partition or other headers than the first.
    altered: usize,
}

pub(crate) fn judge(rows: &[Row], fault: Option<Fault>) -> Verdict {
    let mut verdict = Verdict::default();
    let mut keys: BTreeMap<(&str, &str), Vec<&Row>> = BTreeMap::new();
    for row in rows {
        verdict.count(row);
        verdict.unprovoked += unprovoked(row, fault);
        keys.entry((&row.topic, &row.key)).or_default().push(row);
    }
    verdict.out_of_order = keys.values().map(|rows| out_of_order(rows)).sum();
    verdict.altered += keys.values().filter(|rows| partitions(rows) > 1).count();
    verdict
}

fn out_of_order(rows: &[&Row]) -> usize {
    let mut firsts: Vec<(i64, i64)> = rows
        .iter()
        .filter_map(|row| Some((row.arrivals.iter().map(|it| it.offset).min()?, row.revision)))
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

/// Duplicates that came before the fault, or of rows that were not under way when it was.
fn unprovoked(row: &Row, fault: Option<Fault>) -> usize {
    let Some((first, others)) = row.arrivals.split_first() else {
        return 0;
    };
    let Some(fault) = fault else {
        return others.len();
    };
    let ended = fault.ended.unwrap_or(fault.began);
    let was_under_way = first.at + UNDER_WAY >= fault.began && first.at <= ended + UNDER_WAY;
    others
        .iter()
        .filter(|other| other.at < fault.began || !was_under_way)
        .count()
}

fn partitions(rows: &[&Row]) -> usize {
    rows.iter()
        .flat_map(|row| &row.arrivals)
        .map(|it| it.partition)
        .collect::<HashSet<_>>()
        .len()
}

impl Verdict {
    fn count(&mut self, row: &Row) {
        self.records += row.arrivals.len();
        match row.fate {
            Fate::Committed(_) => {
                self.committed += 1;
                self.lost += usize::from(row.arrivals.is_empty());
            }
            Fate::RolledBack => {
                self.rolled_back += 1;
                self.ghosts += usize::from(!row.arrivals.is_empty());
            }
            Fate::Open => {}
        }
        let Some(first) = row.arrivals.first() else {
            return;
        };
        self.duplicates += row.arrivals.len() - 1;
        let same = |it: &&crate::ledger::Arrival| {
            (&it.topic, it.key.as_slice(), &it.payload)
                == (&row.topic, row.key.as_bytes(), &row.payload)
                && it.headers == first.headers
        };
        self.altered += row.arrivals.len() - row.arrivals.iter().filter(same).count();
    }

    /// Whether all promises were kept; duplicates are allowed of what was under way at a fault.
    pub(crate) fn kept(&self) -> bool {
        self.lost + self.ghosts + self.out_of_order + self.altered + self.unprovoked == 0
            && self.committed > 0
    }

    pub(crate) fn print(&self, ledger: &Ledger) {
        println!();
        println!("   rows committed    {:>8}", self.committed);
        println!(
            "   rows rolled back  {:>8}   seen in Kafka: {}",
            self.rolled_back, self.ghosts
        );
        println!(
            "   records seen      {:>8}   with another key, value, headers or partition: {}",
            self.records, self.altered
        );
        println!("   lost              {:>8}", self.lost);
        println!("   out of order      {:>8}", self.out_of_order);
        println!(
            "   duplicates        {:>8}   that no fault explains: {}",
            self.duplicates, self.unprovoked
        );
        print_latency(&ledger.rows(), ledger.last_fault().map(|fault| fault.began));
    }
}

/// The last third shows servers that are warm: in the first seconds brokers compile their code, and
/// a relay's first record to each partition goes alone.
fn print_latency(rows: &[Row], fault_at: Option<Instant>) {
    let latencies: Vec<(Instant, f64)> = rows.iter().filter_map(Row::latency_ms).collect();
    let arrivals = || latencies.iter().map(|(arrived, _)| *arrived);
    let (Some(first), Some(last)) = (arrivals().min(), arrivals().max()) else {
        return;
    };
    let last_third = first + (last - first) * 2 / 3;
    let of = |wanted: &dyn Fn(Instant) -> bool| {
        percentiles(
            latencies
                .iter()
                .filter(|(arrived, _)| wanted(*arrived))
                .map(|(_, ms)| *ms)
                .collect(),
        )
    };
    println!("   commit to consumer  {}: all of it", of(&|_| true));
    if let Some(fault_at) = fault_at {
        println!(
            "                       {}: until the relay was killed",
            of(&|arrived| arrived < fault_at)
        );
    }
    println!(
        "                       {}: in the last third of the time, when servers are warm",
        of(&|arrived| arrived >= last_third)
    );
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
