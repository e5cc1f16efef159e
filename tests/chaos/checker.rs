//! The promises of the README against the facts of a run. Pure.
//!
//! ```text
//!   L  what was committed is published, or a dead letter; when all has healed nothing waits; what was rolled back is never published
//!   O  first occurrences of a key whose writers take turns come in their order
//!   D  duplicates come after faults only, and are identical; who drops seq <= last of a key sees each event once, in order
//!   R  all of that across ids that come again
//! ```

mod keys;

use std::collections::{BTreeMap, HashMap};

use outbox_relay::kafka::partition_of;
use uuid::Uuid;

use crate::facts::{Event, Facts, Fate, FaultWindow, Ms, Record};

/// A promise, or what must be true of the harness itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Promise {
    /// L: a committed event is nowhere.
    NothingLost,
    /// L: a committed event still waits, long after all has healed.
    NothingWaits,
    /// L: an event that was rolled back, or that nobody wrote, was published.
    NoGhost,
    /// O
    Order,
    /// D: a consumer that goes by outbox_seq misses an event, or sees one twice or late.
    SeqIsEnough,
    /// Key, value, headers and topic are those of the row.
    Unaltered,
    /// The partition is the one of Java's producers.
    Partition,
    /// D: duplicates are identical.
    IdenticalDuplicates,
    /// D: duplicates come after faults only.
    DuplicatesAfterFaultsOnly,
    /// D: a fault repeats no more than windows can hold.
    FewDuplicates,
    /// A lane has one owner at a time.
    OneOwner,
    /// Rows of before a fault was mended are out in time, without another fault that sets free what
    /// stands, and then all relays work.
    HealsByItself,
    /// All lanes have a live owner, and nothing is parked, when all has healed.
    AtRest,
    /// The harness: what writers know and what the database shows belong together.
    HonestLedger,
}

/// How often a promise was broken, and how it looked at first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Broken {
    pub(crate) times: usize,
    pub(crate) examples: Vec<String>,
}

#[derive(Clone, Debug, Default)]
pub(crate) struct Verdict {
    pub(crate) committed: usize,
    pub(crate) rolled_back: usize,
    /// Commits whose answer never came.
    pub(crate) unknown: usize,
    /// Committed, and lost by the database when it went back; and how many of these consumers saw.
    pub(crate) vanished: usize,
    pub(crate) vanished_seen: usize,
    pub(crate) records: usize,
    pub(crate) duplicates: BTreeMap<&'static str, usize>,
    pub(crate) broken: BTreeMap<Promise, Broken>,
}

/// What is kept of each broken promise.
const EXAMPLES: usize = 3;
/// Rows that one relay has in flight at most, times the relays that one fault may take along.
const DUPLICATES_OF_A_FAULT_MAX: usize = 3 * 16_384;

impl Verdict {
    pub(crate) fn kept(&self) -> bool {
        self.broken.is_empty() && self.committed > 0
    }

    fn breaks(&mut self, promise: Promise, example: impl FnOnce() -> String) {
        let broken = self.broken.entry(promise).or_default();
        broken.times += 1;
        if broken.examples.len() < EXAMPLES {
            broken.examples.push(example());
        }
    }
}

/// What became of an event's transaction.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Outcome {
    Committed,
    RolledBack,
    /// Committed, and gone with a database that went back.
    Vanished,
}

pub(crate) fn check(facts: &Facts) -> Verdict {
    let mut verdict = Verdict {
        records: facts.records.len(),
        ..Verdict::default()
    };
    let mut seen: HashMap<Uuid, Vec<&Record>> = HashMap::new();
    for record in in_order(&facts.records) {
        match record.event_id().filter(|id| facts.events.contains_key(id)) {
            Some(id) => seen.entry(id).or_default().push(record),
            None => verdict.breaks(Promise::NoGhost, || {
                format!("nobody wrote what is at {}", place(record))
            }),
        }
    }
    let mut outcomes = HashMap::new();
    for (id, event) in &facts.events {
        let records = seen.get(id).map(Vec::as_slice).unwrap_or_default();
        let outcome = outcome(*id, event, facts, &mut verdict);
        outcomes.insert(*id, outcome);
        fate(*id, event, outcome, records, facts, &mut verdict);
        for record in records {
            unaltered(*id, event, record, facts, &mut verdict);
        }
        duplicates(*id, records, facts, &mut verdict);
    }
    keys::check(facts, &outcomes, &mut verdict);
    let too_many: Vec<_> = verdict
        .duplicates
        .iter()
        .filter(|(_, count)| **count > DUPLICATES_OF_A_FAULT_MAX)
        .map(|(name, _)| *name)
        .collect();
    for name in too_many {
        verdict.breaks(Promise::FewDuplicates, || {
            format!("{name} repeated more than {DUPLICATES_OF_A_FAULT_MAX} rows")
        });
    }
    owners(facts, &mut verdict);
    for what in &facts.unhealed {
        verdict.breaks(Promise::HealsByItself, || what.clone());
    }
    verdict
}

/// By topic, partition and offset.
fn in_order(records: &[Record]) -> Vec<&Record> {
    let mut records: Vec<&Record> = records.iter().collect();
    records.sort_by_key(|record| (&record.topic, record.partition, record.offset));
    records
}

fn outcome(id: Uuid, event: &Event, facts: &Facts, verdict: &mut Verdict) -> Outcome {
    verdict.unknown += usize::from(event.fate == Fate::Unknown);
    let shown = facts.journal.contains(&id);
    match event.fate {
        Fate::RolledBack if shown => {
            verdict.breaks(Promise::HonestLedger, || {
                format!("{id} was rolled back, and the database shows it")
            });
            Outcome::Committed
        }
        _ if shown => Outcome::Committed,
        Fate::RolledBack => Outcome::RolledBack,
        Fate::Unknown if facts.rewinds.is_empty() => Outcome::RolledBack,
        Fate::Unknown => Outcome::Vanished,
        Fate::Committed(during) => {
            if !facts
                .rewinds
                .iter()
                .any(|(from, until)| during.asked <= *until && *from <= during.answered)
            {
                verdict.breaks(Promise::HonestLedger, || {
                    format!("{id} was committed, {during:?}, and the database does not show it")
                });
            }
            Outcome::Vanished
        }
    }
}

fn fate(
    id: Uuid,
    event: &Event,
    outcome: Outcome,
    records: &[&Record],
    facts: &Facts,
    verdict: &mut Verdict,
) {
    match outcome {
        Outcome::Committed => {
            verdict.committed += 1;
            if facts.waiting.contains(&id) {
                verdict.breaks(Promise::NothingWaits, || describe(id, event));
            } else if records.is_empty() && !is_excused(id, event, facts) {
                verdict.breaks(Promise::NothingLost, || describe(id, event));
            }
        }
        Outcome::RolledBack => {
            verdict.rolled_back += 1;
            if let Some(record) = records.first() {
                verdict.breaks(Promise::NoGhost, || {
                    format!(
                        "{} was rolled back, and is at {}",
                        describe(id, event),
                        place(record)
                    )
                });
            }
        }
        Outcome::Vanished => {
            verdict.vanished += 1;
            verdict.vanished_seen += usize::from(!records.is_empty());
        }
    }
}

/// Whether a committed event may be missing in Kafka.
fn is_excused(id: Uuid, event: &Event, facts: &Facts) -> bool {
    let gone = |until: &Ms| match event.fate {
        Fate::Committed(during) => during.asked <= *until,
        Fate::Unknown | Fate::RolledBack => true,
    };
    facts.dead_letters.contains(&id)
        || facts.truncated.contains_key(&id)
        || facts.deleted_topics.get(&event.topic).is_some_and(gone)
}

fn unaltered(id: Uuid, event: &Event, record: &Record, facts: &Facts, verdict: &mut Verdict) {
    let same = (
        record.topic.as_str(),
        record.key.as_slice(),
        record.payload.as_slice(),
    ) == (
        event.topic.as_str(),
        event.key.as_bytes(),
        event.payload.as_slice(),
    ) && record.header("correlation_id") == Some(&event.correlation_id)
        && record.seq().is_some();
    if !same {
        verdict.breaks(Promise::Unaltered, || {
            format!(
                "{} is not what is at {}",
                describe(id, event),
                place(record)
            )
        });
    }
    let partitions = facts.partitions.get(&record.topic).copied().unwrap_or(1);
    let wanted = partition_of(event.key.as_bytes(), partitions) as i32;
    if record.partition != wanted {
        verdict.breaks(Promise::Partition, || {
            format!(
                "{} belongs to partition {wanted}, and is at {}",
                describe(id, event),
                place(record)
            )
        });
    }
}

fn duplicates(id: Uuid, records: &[&Record], facts: &Facts, verdict: &mut Verdict) {
    let Some((first, later)) = records.split_first() else {
        return;
    };
    for record in later {
        // A row that got another id while it waited comes with that; under the old one too, before
        // or after, if a relay had it on its way.
        let is_same = |name: &str| !facts.ids_came_again || name != "outbox_seq";
        let headers = |of: &Record| {
            of.headers
                .iter()
                .filter(|(name, _)| is_same(name))
                .cloned()
                .collect::<Vec<_>>()
        };
        if (record.partition, &record.key, &record.payload)
            != (first.partition, &first.key, &first.payload)
            || headers(record) != headers(first)
        {
            verdict.breaks(Promise::IdenticalDuplicates, || {
                format!("{id} at {} and at {}", place(first), place(record))
            });
        }
        match cause(record, &facts.faults) {
            Some(name) => *verdict.duplicates.entry(name).or_default() += 1,
            None => {
                *verdict.duplicates.entry("no fault").or_default() += 1;
                verdict.breaks(Promise::DuplicatesAfterFaultsOnly, || {
                    format!(
                        "{id} at {} and, with no fault near, at {}",
                        place(first),
                        place(record)
                    )
                });
            }
        }
    }
}

/// The fault that began last before a record was taken, and had not healed.
fn cause(record: &Record, faults: &[FaultWindow]) -> Option<&'static str> {
    let of = faults
        .iter()
        .filter(|fault| (fault.from..=fault.until).contains(&record.at));
    of.max_by_key(|fault| fault.from).map(|fault| fault.name)
}

fn owners(facts: &Facts, verdict: &mut Verdict) {
    let mut known = HashMap::new();
    for seen in &facts.owners {
        let first = *known
            .entry((seen.life, seen.lane, seen.epoch))
            .or_insert(seen.owner);
        if first != seen.owner {
            verdict.breaks(Promise::OneOwner, || {
                format!(
                    "lane {} had owners {first} and {} in epoch {}",
                    seen.lane, seen.owner, seen.epoch
                )
            });
        }
    }
    if facts.lanes_unowned > 0 || facts.parked > 0 {
        verdict.breaks(Promise::AtRest, || {
            format!(
                "{} lanes have no live owner, {} keys or topics are parked",
                facts.lanes_unowned, facts.parked
            )
        });
    }
}

fn describe(id: Uuid, event: &Event) -> String {
    let turn = event
        .turn
        .map_or(String::new(), |turn| format!(" turn {turn}"));
    format!(
        "{id} ({} {}{turn}, {:?})",
        event.topic, event.key, event.fate
    )
}

fn place(record: &Record) -> String {
    let seq = record.seq().map_or(String::new(), |seq| {
        format!(" (seq {seq}, taken at {})", record.at)
    });
    format!(
        "{}/{} {}{seq}",
        record.topic, record.partition, record.offset
    )
}

#[cfg(test)]
mod tests;
