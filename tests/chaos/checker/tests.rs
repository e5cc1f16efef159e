use super::*;
use crate::facts::{During, Ownership};

const TOPIC: &str = "t";

/// A run that kept all promises: three keys, ten turns each, one rolled back, one unknown that was
/// committed.
fn good() -> (Facts, Vec<Uuid>) {
    let mut facts = Facts {
        partitions: BTreeMap::from([(TOPIC.to_owned(), 4)]),
        ..Facts::default()
    };
    let mut ids = Vec::new();
    let mut offsets = [0; 4];
    for turn in 0..10 {
        for key in ["a", "b", "c"] {
            let id = Uuid::from_u128(ids.len() as u128 + 1);
            ids.push(id);
            let fate = match (key, turn) {
                ("a", 3) => Fate::RolledBack,
                ("b", 3) => Fate::Unknown,
                _ => Fate::Committed(During {
                    asked: 100 + turn,
                    answered: 100 + turn,
                }),
            };
            let payload = format!("{key}:{turn}").into_bytes();
            let event = Event {
                topic: TOPIC.to_owned(),
                key: key.to_owned(),
                turn: Some(turn),
                payload,
                correlation_id: format!("c-{id}"),
                fate,
            };
            if fate != Fate::RolledBack {
                facts.journal.insert(id);
                let partition = partition_of(key.as_bytes(), 4);
                facts.records.push(record(
                    id,
                    &event,
                    partition as i32,
                    offsets[partition],
                    ids.len() as i64,
                ));
                offsets[partition] += 1;
            }
            facts.events.insert(id, event);
        }
    }
    (facts, ids)
}

fn record(id: Uuid, event: &Event, partition: i32, offset: i64, seq: i64) -> Record {
    let headers = [
        ("event_id", id.to_string()),
        ("outbox_seq", seq.to_string()),
        ("correlation_id", event.correlation_id.clone()),
    ];
    Record {
        topic: event.topic.clone(),
        partition,
        offset,
        at: 1000,
        key: event.key.clone().into_bytes(),
        payload: event.payload.clone(),
        headers: headers
            .map(|(name, value)| (name.to_owned(), value.into_bytes()))
            .to_vec(),
    }
}

fn at(facts: &mut Facts, id: Uuid) -> &mut Record {
    facts
        .records
        .iter_mut()
        .find(|record| record.event_id() == Some(id))
        .expect("it has a record")
}

/// A copy of an event's record, behind all others.
fn again(facts: &mut Facts, id: Uuid) -> &mut Record {
    let mut copy = at(facts, id).clone();
    copy.offset = 1000;
    facts.records.push(copy);
    facts.records.last_mut().expect("just added")
}

fn fault(facts: &mut Facts) {
    facts.faults.push(FaultWindow {
        name: "kill",
        from: 900,
        until: 1100,
    });
}

#[track_caller]
fn breaks(facts: &Facts, promises: &[Promise]) {
    let verdict = check(facts);
    assert_eq!(
        verdict.broken.keys().copied().collect::<Vec<_>>(),
        promises,
        "{:#?}",
        verdict.broken
    );
    assert_eq!(verdict.kept(), promises.is_empty());
}

#[test]
fn a_run_that_kept_all_promises_passes() {
    let (facts, _) = good();
    breaks(&facts, &[]);
    let verdict = check(&facts);
    assert_eq!(
        (
            verdict.committed,
            verdict.rolled_back,
            verdict.unknown,
            verdict.records
        ),
        (29, 1, 1, 29)
    );
}

#[test]
fn a_run_in_which_nothing_was_committed_proves_nothing() {
    assert!(!check(&Facts::default()).kept());
}

#[test]
fn a_lost_row_is_found() {
    let (mut facts, ids) = good();
    facts
        .records
        .retain(|record| record.event_id() != Some(ids[6]));
    breaks(&facts, &[Promise::NothingLost]);
}

#[test]
fn a_lost_row_whose_commit_was_unknown_is_found() {
    let (mut facts, ids) = good();
    facts
        .records
        .retain(|record| record.event_id() != Some(ids[10]));
    breaks(&facts, &[Promise::NothingLost]);
}

#[test]
fn a_row_that_still_waits_is_found() {
    let (mut facts, ids) = good();
    facts
        .records
        .retain(|record| record.event_id() != Some(ids[29]));
    facts.waiting.insert(ids[29]);
    breaks(&facts, &[Promise::NothingWaits]);
}

#[test]
fn rows_that_only_another_fault_set_free_are_found() {
    let (mut facts, _) = good();
    facts
        .unhealed
        .push("kill -9 of a relay: 120 s after it was mended rows of before still wait".to_owned());
    breaks(&facts, &[Promise::HealsByItself]);
}

#[test]
fn a_dead_letter_is_not_lost() {
    let (mut facts, ids) = good();
    facts
        .records
        .retain(|record| record.event_id() != Some(ids[6]));
    facts.dead_letters.insert(ids[6]);
    breaks(&facts, &[]);
}

#[test]
fn two_rows_of_a_key_that_changed_places_are_found() {
    let (mut facts, ids) = good();
    let (first, second) = (
        at(&mut facts, ids[6]).offset,
        at(&mut facts, ids[9 + 3]).offset,
    );
    at(&mut facts, ids[6]).offset = second;
    at(&mut facts, ids[12]).offset = first;
    breaks(&facts, &[Promise::Order, Promise::SeqIsEnough]);
}

#[test]
fn a_gap_that_is_filled_later_is_found() {
    let (mut facts, ids) = good();
    at(&mut facts, ids[6]).offset = 1000;
    breaks(&facts, &[Promise::Order, Promise::SeqIsEnough]);
}

#[test]
fn keys_whose_writers_take_no_turns_have_no_order() {
    let (mut facts, ids) = good();
    for event in facts.events.values_mut() {
        event.turn = None;
    }
    at(&mut facts, ids[6]).offset = 1000;
    breaks(&facts, &[]);
}

#[test]
fn a_ghost_is_found() {
    let (mut facts, ids) = good();
    let (id, event) = (ids[9], facts.events[&ids[9]].clone());
    assert_eq!(event.fate, Fate::RolledBack);
    facts
        .records
        .push(record(id, &event, partition_of(b"a", 4) as i32, 1000, 99));
    breaks(&facts, &[Promise::NoGhost]);
}

#[test]
fn a_record_that_nobody_wrote_is_found() {
    let (mut facts, ids) = good();
    facts.events.remove(&ids[29]);
    breaks(&facts, &[Promise::NoGhost]);
}

#[test]
fn an_identical_duplicate_after_a_fault_is_fine() {
    let (mut facts, ids) = good();
    fault(&mut facts);
    again(&mut facts, ids[6]);
    breaks(&facts, &[]);
    assert_eq!(check(&facts).duplicates, BTreeMap::from([("kill", 1)]));
}

#[test]
fn a_duplicate_without_a_fault_is_found() {
    let (mut facts, ids) = good();
    fault(&mut facts);
    again(&mut facts, ids[6]).at = 1101;
    breaks(&facts, &[Promise::DuplicatesAfterFaultsOnly]);
}

#[test]
fn a_duplicate_with_other_bytes_is_found() {
    let (mut facts, ids) = good();
    fault(&mut facts);
    again(&mut facts, ids[6]).payload[0] ^= 1;
    breaks(&facts, &[Promise::Unaltered, Promise::IdenticalDuplicates]);
}

#[test]
fn a_duplicate_under_another_seq_is_found_unless_ids_came_again() {
    let (mut facts, ids) = good();
    fault(&mut facts);
    again(&mut facts, ids[6]).headers[1].1 = b"99".to_vec();
    breaks(
        &facts,
        &[Promise::SeqIsEnough, Promise::IdenticalDuplicates],
    );
    facts.ids_came_again = true;
    breaks(&facts, &[]);
}

#[test]
fn a_duplicate_under_a_lower_seq_is_found_unless_ids_came_again() {
    let (mut facts, ids) = good();
    fault(&mut facts);
    again(&mut facts, ids[6]).headers[1].1 = b"2".to_vec();
    breaks(&facts, &[Promise::IdenticalDuplicates]);
    facts.ids_came_again = true;
    breaks(&facts, &[]);
}

#[test]
fn a_later_row_under_a_used_seq_is_found_though_ids_came_again() {
    let (mut facts, ids) = good();
    facts.ids_came_again = true;
    at(&mut facts, ids[29]).headers[1].1 = b"3".to_vec();
    breaks(&facts, &[Promise::SeqIsEnough]);
}

#[test]
fn changed_bytes_are_found() {
    let (mut facts, ids) = good();
    at(&mut facts, ids[6]).payload.push(b'!');
    breaks(&facts, &[Promise::Unaltered]);
}

#[test]
fn a_lost_header_is_found() {
    let (mut facts, ids) = good();
    at(&mut facts, ids[6]).headers.truncate(2);
    breaks(&facts, &[Promise::Unaltered]);
}

#[test]
fn a_wrong_partition_is_found() {
    let (mut facts, ids) = good();
    for id in ids.iter().skip(1).step_by(3) {
        let record = at(&mut facts, *id);
        record.partition = (record.partition + 1) % 4;
        record.offset += 500;
    }
    breaks(&facts, &[Promise::Partition]);
}

#[test]
fn what_a_database_lost_may_be_seen_and_may_be_missing() {
    let (mut facts, ids) = good();
    facts
        .records
        .retain(|record| record.event_id() != Some(ids[29]));
    facts.journal.retain(|id| ![ids[28], ids[29]].contains(id));
    breaks(&facts, &[Promise::HonestLedger]);
    facts.rewinds.push((109, 120));
    breaks(&facts, &[]);
    let verdict = check(&facts);
    assert_eq!((verdict.vanished, verdict.vanished_seen), (2, 1));
}

/// The answer to a commit is read late on a slow machine: the server may be gone by then, and what
/// it had committed with it.
#[test]
fn what_was_asked_for_before_the_database_went_back_may_be_lost_and_what_was_asked_for_later_may_not()
 {
    let (mut facts, ids) = good();
    facts.journal.remove(&ids[28]);
    facts.rewinds.push((109, 120));
    for (asked, answered, promises) in [
        (105, 109, &[][..]),
        (120, 130, &[]),
        (105, 130, &[]),
        (121, 130, &[Promise::HonestLedger]),
        (105, 108, &[Promise::HonestLedger]),
    ] {
        facts.events.get_mut(&ids[28]).expect("meant").fate =
            Fate::Committed(During { asked, answered });
        breaks(&facts, promises);
    }
}

#[test]
fn a_truncated_row_is_not_lost_and_one_written_later_is() {
    let (mut facts, ids) = good();
    facts.truncated.insert(ids[27], 500);
    facts
        .records
        .retain(|record| ![ids[27], ids[28]].contains(&record.event_id().expect("an id")));
    breaks(&facts, &[Promise::NothingLost]);
    assert_eq!(check(&facts).broken[&Promise::NothingLost].times, 1);
}

#[test]
fn a_truncated_row_may_come_late_but_out_of_turn_only_after_it_was_truncated() {
    let (mut facts, ids) = good();
    at(&mut facts, ids[0]).offset = 2000;
    for (truncated, promises) in [
        (1000, &[][..]),
        (1001, &[Promise::Order, Promise::SeqIsEnough]),
    ] {
        facts.truncated.insert(ids[0], truncated);
        breaks(&facts, promises);
    }
}

#[test]
fn a_deleted_topic_takes_along_what_was_committed_before() {
    let (mut facts, ids) = good();
    facts.deleted_topics.insert(TOPIC.to_owned(), 105);
    facts
        .records
        .retain(|record| ![ids[15], ids[18]].contains(&record.event_id().expect("an id")));
    assert_eq!(
        check(&facts).broken[&Promise::NothingLost].times,
        1,
        "turn 5 is excused, turn 6 is not"
    );
}

#[test]
fn two_owners_of_a_lane_in_one_epoch_are_found() {
    let (mut facts, _) = good();
    let owned = |life, epoch, owner| Ownership {
        life,
        lane: 3,
        epoch,
        owner: Uuid::from_u128(owner),
    };
    facts
        .owners
        .extend([owned(0, 1, 1), owned(0, 2, 2), owned(1, 1, 3)]);
    breaks(&facts, &[]);
    facts.owners.insert(owned(0, 2, 1));
    breaks(&facts, &[Promise::OneOwner]);
}

#[test]
fn lanes_without_an_owner_and_parked_keys_at_the_end_are_found() {
    let (mut facts, _) = good();
    facts.lanes_unowned = 1;
    breaks(&facts, &[Promise::AtRest]);
    (facts.lanes_unowned, facts.parked) = (0, 1);
    breaks(&facts, &[Promise::AtRest]);
}
