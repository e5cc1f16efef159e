//! Checks the promises of the README against the facts of a run. Pure.
//!
//! ```text
//!   L  Nothing is lost: a committed event is published or becomes a dead letter. No row waits
//!      after the last fault has ended. An event that was rolled back is never published.
//!   O  Order: the first occurrences of the events of a key have the order of their commits, if its
//!      writers lock the key.
//!   D  Duplicates: they come after faults only, and they are identical. A consumer that drops
//!      records with seq <= last of the key sees each event once, in order.
//!   R  Rewinds: L, O and D also hold when the database goes back and draws ids a second time.
//! ```

mod keys;

use std::collections::{BTreeMap, HashMap};

use outbox_relay::kafka::partition_of;
use uuid::Uuid;

use crate::facts::{CommitResult, Event, Facts, FaultWindow, Ms, Record};

/// A promise of the README, or a condition that the test itself must meet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Promise {
    /// L: each committed event is in Kafka, or excused.
    NothingLost,
    /// L: no committed event still waits at the end.
    NothingWaits,
    /// L: no record has an event that was rolled back or that no writer wrote.
    OnlyCommitted,
    /// O: first occurrences have the order of their commits.
    Order,
    /// D: a consumer that deduplicates with `outbox_seq` sees each event once, in order.
    SeqDeduplicates,
    /// Key, payload, headers and topic of a record are those of the row.
    Unaltered,
    /// The partition is the one that Kafka's Java producer chooses.
    Partition,
    /// D: duplicates are identical.
    IdenticalDuplicates,
    /// D: duplicates come after faults only.
    DuplicatesAfterFaultsOnly,
    /// D: a fault causes no more duplicates than rows are in flight.
    BoundedDuplicates,
    /// A lane has one owner at a time.
    OneOwner,
    /// Rows that were written before a fault was repaired are published in time, without the help
    /// of another fault. Afterwards all relays work.
    RecoversUnaided,
    /// All lanes have a live owner and nothing is parked at the end.
    EndsHealthy,
    /// The test itself: the ledger of the writers agrees with the database.
    ConsistentLedger,
}

/// Violations of one promise.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Violations {
    pub(crate) count: usize,
    /// Descriptions of the first ones, [`EXAMPLES_MAX`] at most.
    pub(crate) examples: Vec<String>,
}

/// Result of all checks of a run.
#[derive(Clone, Debug, Default)]
pub(crate) struct CheckReport {
    pub(crate) committed: usize,
    pub(crate) rolled_back: usize,
    /// Commits whose answer never came.
    pub(crate) unknown: usize,
    /// Events that were committed and that the database lost when it went back.
    pub(crate) lost_by_database: usize,
    /// Events of `lost_by_database` that were published before.
    pub(crate) lost_but_published: usize,
    pub(crate) records: usize,
    /// Number of duplicates by the name of the fault that caused them.
    pub(crate) duplicates: BTreeMap<&'static str, usize>,
    pub(crate) violations: BTreeMap<Promise, Violations>,
}

/// Examples that a report keeps of each violated promise.
const EXAMPLES_MAX: usize = 3;
/// Most duplicates of one kind of fault: the rows that one relay has in flight at most, times the
/// relays that one fault may affect.
const DUPLICATES_OF_A_FAULT_MAX: usize = 3 * 16_384;

impl CheckReport {
    /// Whether all promises were kept and the run was not empty.
    pub(crate) fn passed(&self) -> bool {
        self.violations.is_empty() && self.committed > 0
    }

    fn violates(&mut self, promise: Promise, example: impl FnOnce() -> String) {
        let violations = self.violations.entry(promise).or_default();
        violations.count += 1;
        if violations.examples.len() < EXAMPLES_MAX {
            violations.examples.push(example());
        }
    }
}

/// How the transaction of an event really ended.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Outcome {
    Committed,
    RolledBack,
    /// Committed, and lost when the database went back.
    LostByDatabase,
}

/// One event of a run with all that the checks of a single event need.
#[derive(Clone, Copy)]
struct EventFacts<'a> {
    id: Uuid,
    event: &'a Event,
    outcome: Outcome,
    /// Records of the event in the order of their offsets.
    records: &'a [&'a Record],
    run: &'a Facts,
}

/// Checks all promises.
pub(crate) fn check(facts: &Facts) -> CheckReport {
    let mut report = CheckReport {
        records: facts.records.len(),
        ..CheckReport::default()
    };
    let outcomes = check_events(facts, &mut report);
    keys::check(facts, &outcomes, &mut report);
    check_duplicate_counts(&mut report);
    check_owners(facts, &mut report);
    check_end_state(facts, &mut report);
    report
}

fn check_events(facts: &Facts, report: &mut CheckReport) -> HashMap<Uuid, Outcome> {
    let records_of = records_by_event(facts, report);
    let mut outcomes = HashMap::new();
    for (id, event) in &facts.events {
        let outcome = outcome(*id, event, facts, report);
        outcomes.insert(*id, outcome);
        let event = EventFacts {
            id: *id,
            event,
            outcome,
            records: records_of.get(id).map(Vec::as_slice).unwrap_or_default(),
            run: facts,
        };
        check_publication(event, report);
        for record in event.records {
            check_content(event, record, report);
            check_partition(event, record, report);
        }
        check_duplicates(event, report);
    }
    outcomes
}

fn records_by_event<'a>(
    facts: &'a Facts,
    report: &mut CheckReport,
) -> HashMap<Uuid, Vec<&'a Record>> {
    let mut records_of: HashMap<Uuid, Vec<&Record>> = HashMap::new();
    for record in by_offset(&facts.records) {
        match record.event_id().filter(|id| facts.events.contains_key(id)) {
            Some(id) => records_of.entry(id).or_default().push(record),
            None => report.violates(Promise::OnlyCommitted, || {
                format!("no writer wrote the record at {}", position(record))
            }),
        }
    }
    records_of
}

/// Sorts records by topic, partition and offset.
fn by_offset(records: &[Record]) -> Vec<&Record> {
    let mut records: Vec<&Record> = records.iter().collect();
    records.sort_by_key(|record| (&record.topic, record.partition, record.offset));
    records
}

/// Compares what the writer knows with what the database shows.
fn outcome(id: Uuid, event: &Event, facts: &Facts, report: &mut CheckReport) -> Outcome {
    report.unknown += usize::from(event.commit_result == CommitResult::Unknown);
    let in_database = facts.journal.contains(&id);
    match event.commit_result {
        CommitResult::RolledBack if in_database => {
            report.violates(Promise::ConsistentLedger, || {
                format!("{id} was rolled back, and the database shows it")
            });
            Outcome::Committed
        }
        _ if in_database => Outcome::Committed,
        CommitResult::RolledBack => Outcome::RolledBack,
        CommitResult::Unknown if facts.rewinds.is_empty() => Outcome::RolledBack,
        CommitResult::Unknown => Outcome::LostByDatabase,
        CommitResult::Committed(window) => {
            let may_be_lost = facts
                .rewinds
                .iter()
                .any(|(from, until)| window.requested <= *until && *from <= window.answered);
            if !may_be_lost {
                report.violates(Promise::ConsistentLedger, || {
                    format!("{id} was committed, {window:?}, and the database does not show it")
                });
            }
            Outcome::LostByDatabase
        }
    }
}

fn check_publication(event: EventFacts<'_>, report: &mut CheckReport) {
    match event.outcome {
        Outcome::Committed => {
            report.committed += 1;
            if event.run.waiting.contains(&event.id) {
                report.violates(Promise::NothingWaits, || event.describe());
            } else if event.records.is_empty() && !event.may_be_missing() {
                report.violates(Promise::NothingLost, || event.describe());
            }
        }
        Outcome::RolledBack => {
            report.rolled_back += 1;
            if let Some(record) = event.records.first() {
                report.violates(Promise::OnlyCommitted, || {
                    format!(
                        "{} was rolled back, and is at {}",
                        event.describe(),
                        position(record)
                    )
                });
            }
        }
        Outcome::LostByDatabase => {
            report.lost_by_database += 1;
            report.lost_but_published += usize::from(!event.records.is_empty());
        }
    }
}

fn check_content(event: EventFacts<'_>, record: &Record, report: &mut CheckReport) {
    let row = event.event;
    let is_same = record.topic == row.topic
        && record.key == row.key.as_bytes()
        && record.payload == row.payload
        && record.header("correlation_id") == Some(&row.correlation_id)
        && record.seq().is_some();
    if !is_same {
        report.violates(Promise::Unaltered, || {
            format!(
                "{} differs from the record at {}",
                event.describe(),
                position(record)
            )
        });
    }
}

fn check_partition(event: EventFacts<'_>, record: &Record, report: &mut CheckReport) {
    let partitions = event.run.partitions.get(&record.topic);
    let partitions = partitions.copied().unwrap_or(1);
    let expected = partition_of(event.event.key.as_bytes(), partitions) as i32;
    if record.partition != expected {
        report.violates(Promise::Partition, || {
            format!(
                "{} belongs to partition {expected}, and is at {}",
                event.describe(),
                position(record)
            )
        });
    }
}

fn check_duplicates(event: EventFacts<'_>, report: &mut CheckReport) {
    let Some((first, later)) = event.records.split_first() else {
        return;
    };
    let id = event.id;
    for record in later {
        if !are_identical(first, record, event.run.ids_reused) {
            report.violates(Promise::IdenticalDuplicates, || {
                format!("{id} at {} and at {}", position(first), position(record))
            });
        }
        let cause = cause(record, &event.run.faults);
        *report
            .duplicates
            .entry(cause.unwrap_or("no fault"))
            .or_default() += 1;
        if cause.is_none() {
            report.violates(Promise::DuplicatesAfterFaultsOnly, || {
                format!(
                    "{id} at {} and, with no fault near, at {}",
                    position(first),
                    position(record)
                )
            });
        }
    }
}

/// Whether two records of one event are the same.
fn are_identical(one: &Record, other: &Record, ids_reused: bool) -> bool {
    // A row that got another id while it waited is published with the new one. A relay that had it
    // in flight also publishes it with the old one, before or after.
    let is_compared = |name: &str| !ids_reused || name != "outbox_seq";
    let headers = |record: &Record| {
        let headers = record.headers.iter();
        headers
            .filter(|(name, _)| is_compared(name))
            .cloned()
            .collect::<Vec<_>>()
    };
    one.partition == other.partition
        && one.key == other.key
        && one.payload == other.payload
        && headers(one) == headers(other)
}

/// The fault that explains a duplicate: of all that had not ended when a broker received the
/// record, the one that began last.
fn cause(record: &Record, faults: &[FaultWindow]) -> Option<&'static str> {
    let active = faults
        .iter()
        .filter(|fault| (fault.from..=fault.until).contains(&record.at));
    active
        .max_by_key(|fault| fault.from)
        .map(|fault| fault.name)
}

fn check_duplicate_counts(report: &mut CheckReport) {
    let too_many: Vec<_> = report
        .duplicates
        .iter()
        .filter(|(_, count)| **count > DUPLICATES_OF_A_FAULT_MAX)
        .map(|(name, _)| *name)
        .collect();
    for name in too_many {
        report.violates(Promise::BoundedDuplicates, || {
            format!("{name} repeated more than {DUPLICATES_OF_A_FAULT_MAX} rows")
        });
    }
}

fn check_owners(facts: &Facts, report: &mut CheckReport) {
    let mut owners = HashMap::new();
    for seen in &facts.owners {
        let first = *owners
            .entry((seen.generation, seen.lane, seen.epoch))
            .or_insert(seen.owner);
        if first != seen.owner {
            report.violates(Promise::OneOwner, || {
                format!(
                    "lane {} had owners {first} and {} in epoch {}",
                    seen.lane, seen.owner, seen.epoch
                )
            });
        }
    }
}

fn check_end_state(facts: &Facts, report: &mut CheckReport) {
    if facts.lanes_unowned > 0 || facts.parked > 0 {
        report.violates(Promise::EndsHealthy, || {
            format!(
                "{} lanes have no live owner, {} keys or topics are parked",
                facts.lanes_unowned, facts.parked
            )
        });
    }
    for description in &facts.not_recovered {
        report.violates(Promise::RecoversUnaided, || description.clone());
    }
}

impl EventFacts<'_> {
    /// Whether a committed event may be missing in Kafka.
    fn may_be_missing(&self) -> bool {
        let was_in_topic = |deleted_at: &Ms| match self.event.commit_result {
            CommitResult::Committed(window) => window.requested <= *deleted_at,
            CommitResult::Unknown | CommitResult::RolledBack => true,
        };
        let deleted_at = self.run.deleted_topics.get(&self.event.topic);
        self.run.dead_letters.contains(&self.id)
            || self.run.truncated.contains_key(&self.id)
            || deleted_at.is_some_and(was_in_topic)
    }

    fn describe(&self) -> String {
        let event = self.event;
        let version = event
            .version
            .map_or(String::new(), |version| format!(" version {version}"));
        format!(
            "{} ({} {}{version}, {:?})",
            self.id, event.topic, event.key, event.commit_result
        )
    }
}

/// Describes where a record is: topic, partition, offset, sequence number and time.
fn position(record: &Record) -> String {
    let seq = record.seq().map_or(String::new(), |seq| {
        format!(" (seq {seq}, received at {})", record.at)
    });
    format!(
        "{}/{} {}{seq}",
        record.topic, record.partition, record.offset
    )
}

#[cfg(test)]
mod tests;
