//! Promises about the records of one key. Pure.

use std::collections::{BTreeMap, HashMap, HashSet};

use uuid::Uuid;

use super::{CheckReport, Outcome, Promise, by_offset, position};
use crate::facts::{Facts, Record};

/// A record of a key whose writers lock the key, with its event and its version.
struct KeyRecord<'a> {
    record: &'a Record,
    id: Uuid,
    version: i64,
}

pub(super) fn check(facts: &Facts, outcomes: &HashMap<Uuid, Outcome>, report: &mut CheckReport) {
    let mut keys: BTreeMap<(&str, &str), Vec<KeyRecord<'_>>> = BTreeMap::new();
    for record in by_offset(&facts.records) {
        let Some((id, event)) = record
            .event_id()
            .and_then(|id| Some((id, facts.events.get(&id)?)))
        else {
            continue;
        };
        // Events that the database lost have no position in its order. Truncated events have none
        // either: a relay that was paused may send them late.
        let is_after_truncate = facts
            .truncated
            .get(&id)
            .is_some_and(|truncated_at| *truncated_at <= record.at);
        if outcomes.get(&id) == Some(&Outcome::Committed)
            && !is_after_truncate
            && let Some(version) = event.version
        {
            keys.entry((&event.topic, &event.key))
                .or_default()
                .push(KeyRecord {
                    record,
                    id,
                    version,
                });
        }
    }
    for ((topic, key), records) in &keys {
        let key = format!("{topic} {key}");
        check_order(&key, records, report);
        check_deduplication(&key, records, facts.ids_reused, report);
    }
}

/// Checks that first occurrences have the order of their versions. Missing events are found by
/// [`Promise::NothingLost`].
fn check_order(key: &str, records: &[KeyRecord<'_>], report: &mut CheckReport) {
    let (mut seen, mut highest) = (HashSet::new(), i64::MIN);
    for KeyRecord {
        record,
        id,
        version,
    } in records
    {
        if seen.insert(id) {
            if *version < highest {
                report.violates(Promise::Order, || {
                    format!(
                        "{key}: version {version} comes after version {highest}, {id} at {}",
                        position(record)
                    )
                });
            }
            highest = highest.max(*version);
        }
    }
}

/// Checks that a consumer that drops records with seq <= last sees each event once, in order. If
/// ids were reused, an event that got another id while it waited may come twice.
fn check_deduplication(
    key: &str,
    records: &[KeyRecord<'_>],
    ids_reused: bool,
    report: &mut CheckReport,
) {
    let (mut last, mut kept, mut highest) = (i64::MIN, HashSet::new(), i64::MIN);
    for KeyRecord {
        record,
        id,
        version,
    } in records
    {
        let Some(seq) = record.seq().filter(|seq| *seq > last) else {
            continue;
        };
        last = seq;
        let again = !kept.insert(*id);
        if again && !ids_reused || !again && *version < highest {
            report.violates(Promise::SeqDeduplicates, || {
                format!(
                    "{key}: version {version} comes after version {highest}, {id} at {}",
                    position(record)
                )
            });
        }
        highest = highest.max(*version);
    }
    for KeyRecord {
        record,
        id,
        version,
    } in records
    {
        if kept.insert(*id) {
            report.violates(Promise::SeqDeduplicates, || {
                format!(
                    "{key}: version {version} is dropped by a consumer that uses seq, {id} at {}",
                    position(record)
                )
            });
        }
    }
}
