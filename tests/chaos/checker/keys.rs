//! Promises about the records of one key. Pure.

use std::collections::{BTreeMap, HashMap, HashSet};

use uuid::Uuid;

use super::{Outcome, Promise, Verdict, in_order, place};
use crate::facts::{Facts, Record};

/// A record of a key whose writers take turns, with its event and turn.
struct Turn<'a> {
    record: &'a Record,
    id: Uuid,
    turn: i64,
}

pub(super) fn check(facts: &Facts, outcomes: &HashMap<Uuid, Outcome>, verdict: &mut Verdict) {
    let mut keys: BTreeMap<(&str, &str), Vec<Turn<'_>>> = BTreeMap::new();
    for record in in_order(&facts.records) {
        let Some((id, event)) = record
            .event_id()
            .and_then(|id| Some((id, facts.events.get(&id)?)))
        else {
            continue;
        };
        // What the database lost has no place in its order, nor what somebody took from it: a relay
        // that stood still may send that late.
        let came_after = facts
            .truncated
            .get(&id)
            .is_some_and(|truncated| *truncated <= record.at);
        if outcomes.get(&id) == Some(&Outcome::Committed)
            && !came_after
            && let Some(turn) = event.turn
        {
            keys.entry((&event.topic, &event.key))
                .or_default()
                .push(Turn { record, id, turn });
        }
    }
    for ((topic, key), records) in &keys {
        in_turn(&format!("{topic} {key}"), records, verdict);
        by_seq(
            &format!("{topic} {key}"),
            records,
            facts.ids_came_again,
            verdict,
        );
    }
}

/// First occurrences come in the order of their turns. That none is missing is for L.
fn in_turn(key: &str, records: &[Turn<'_>], verdict: &mut Verdict) {
    let (mut seen, mut highest) = (HashSet::new(), i64::MIN);
    for Turn { record, id, turn } in records {
        if seen.insert(id) {
            if *turn < highest {
                verdict.breaks(Promise::Order, || {
                    format!(
                        "{key}: turn {turn} comes after turn {highest}, {id} at {}",
                        place(record)
                    )
                });
            }
            highest = highest.max(*turn);
        }
    }
}

/// What is left when seq <= last is dropped: each event once, in order. An event that got another
/// id while it waited may come once more.
fn by_seq(key: &str, records: &[Turn<'_>], may_come_again: bool, verdict: &mut Verdict) {
    let (mut last, mut kept, mut highest) = (i64::MIN, HashSet::new(), i64::MIN);
    for Turn { record, id, turn } in records {
        let Some(seq) = record.seq().filter(|seq| *seq > last) else {
            continue;
        };
        last = seq;
        let again = !kept.insert(*id);
        if again && !may_come_again || !again && *turn < highest {
            verdict.breaks(Promise::SeqIsEnough, || {
                format!(
                    "{key}: turn {turn} after turn {highest}, {id} at {}",
                    place(record)
                )
            });
        }
        highest = highest.max(*turn);
    }
    for Turn { record, id, turn } in records {
        if kept.insert(*id) {
            verdict.breaks(Promise::SeqIsEnough, || {
                format!(
                    "{key}: turn {turn} is dropped by who goes by seq, {id} at {}",
                    place(record)
                )
            });
        }
    }
}
