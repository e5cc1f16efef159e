use super::*;
use crate::facts::{CommitWindow, Ownership};

const TOPIC: &str = "t";

/// A run that kept all promises: three keys with ten versions each. One commit was rolled back, and
/// one is unknown but was committed.
fn valid_run() -> (Facts, Vec<Uuid>) {
    let mut facts = Facts {
        partitions: BTreeMap::from([(TOPIC.to_owned(), 4)]),
        ..Facts::default()
    };
    let mut ids = Vec::new();
    let mut offsets = [0; 4];
    for version in 0..10 {
        for key in ["a", "b", "c"] {
            let id = Uuid::from_u128(ids.len() as u128 + 1);
            ids.push(id);
            let commit_result = match (key, version) {
                ("a", 3) => CommitResult::RolledBack,
                ("b", 3) => CommitResult::Unknown,
                _ => CommitResult::Committed(CommitWindow {
                    requested: 100 + version,
                    answered: 100 + version,
                }),
            };
            let payload = format!("{key}:{version}").into_bytes();
            let event = Event {
                topic: TOPIC.to_owned(),
                key: key.to_owned(),
                version: Some(version),
                payload,
                correlation_id: format!("c-{id}"),
                commit_result,
            };
            if commit_result != CommitResult::RolledBack {
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

fn record_of(facts: &mut Facts, id: Uuid) -> &mut Record {
    facts
        .records
        .iter_mut()
        .find(|record| record.event_id() == Some(id))
        .expect("the event has a record")
}

/// Adds a copy of an event's record behind all others.
fn add_duplicate(facts: &mut Facts, id: Uuid) -> &mut Record {
    let mut copy = record_of(facts, id).clone();
    copy.offset = 1000;
    facts.records.push(copy);
    facts.records.last_mut().expect("just added")
}

fn add_fault(facts: &mut Facts) {
    facts.faults.push(FaultWindow {
        name: "kill",
        from: 900,
        until: 1100,
    });
}

#[track_caller]
fn assert_violates(facts: &Facts, promises: &[Promise]) {
    let report = check(facts);
    assert_eq!(
        report.violations.keys().copied().collect::<Vec<_>>(),
        promises,
        "{:#?}",
        report.violations
    );
    assert_eq!(report.passed(), promises.is_empty());
}

#[test]
fn a_run_that_kept_all_promises_passes() {
    let (facts, _) = valid_run();
    assert_violates(&facts, &[]);
    let report = check(&facts);
    assert_eq!(
        (
            report.committed,
            report.rolled_back,
            report.unknown,
            report.records
        ),
        (29, 1, 1, 29)
    );
}

#[test]
fn a_run_in_which_nothing_was_committed_proves_nothing() {
    assert!(!check(&Facts::default()).passed());
}

#[test]
fn a_lost_row_is_found() {
    let (mut facts, ids) = valid_run();
    facts
        .records
        .retain(|record| record.event_id() != Some(ids[6]));
    assert_violates(&facts, &[Promise::NothingLost]);
}

#[test]
fn a_lost_row_whose_commit_was_unknown_is_found() {
    let (mut facts, ids) = valid_run();
    facts
        .records
        .retain(|record| record.event_id() != Some(ids[10]));
    assert_violates(&facts, &[Promise::NothingLost]);
}

#[test]
fn a_row_that_still_waits_is_found() {
    let (mut facts, ids) = valid_run();
    facts
        .records
        .retain(|record| record.event_id() != Some(ids[29]));
    facts.waiting.insert(ids[29]);
    assert_violates(&facts, &[Promise::NothingWaits]);
}

#[test]
fn rows_that_wait_for_another_fault_are_found() {
    let (mut facts, _) = valid_run();
    facts
        .not_recovered
        .push("kill -9 of a relay: earlier rows still wait 120 s after the repair".to_owned());
    assert_violates(&facts, &[Promise::RecoversUnaided]);
}

#[test]
fn a_dead_letter_is_not_lost() {
    let (mut facts, ids) = valid_run();
    facts
        .records
        .retain(|record| record.event_id() != Some(ids[6]));
    facts.dead_letters.insert(ids[6]);
    assert_violates(&facts, &[]);
}

#[test]
fn two_rows_of_a_key_in_the_wrong_order_are_found() {
    let (mut facts, ids) = valid_run();
    let (first, second) = (
        record_of(&mut facts, ids[6]).offset,
        record_of(&mut facts, ids[9 + 3]).offset,
    );
    record_of(&mut facts, ids[6]).offset = second;
    record_of(&mut facts, ids[12]).offset = first;
    assert_violates(&facts, &[Promise::Order, Promise::SeqDeduplicates]);
}

#[test]
fn a_gap_that_is_filled_later_is_found() {
    let (mut facts, ids) = valid_run();
    record_of(&mut facts, ids[6]).offset = 1000;
    assert_violates(&facts, &[Promise::Order, Promise::SeqDeduplicates]);
}

#[test]
fn keys_whose_writers_take_no_lock_have_no_order() {
    let (mut facts, ids) = valid_run();
    for event in facts.events.values_mut() {
        event.version = None;
    }
    record_of(&mut facts, ids[6]).offset = 1000;
    assert_violates(&facts, &[]);
}

#[test]
fn a_published_event_that_was_rolled_back_is_found() {
    let (mut facts, ids) = valid_run();
    let (id, event) = (ids[9], facts.events[&ids[9]].clone());
    assert_eq!(event.commit_result, CommitResult::RolledBack);
    facts
        .records
        .push(record(id, &event, partition_of(b"a", 4) as i32, 1000, 99));
    assert_violates(&facts, &[Promise::OnlyCommitted]);
}

#[test]
fn a_record_that_no_writer_wrote_is_found() {
    let (mut facts, ids) = valid_run();
    facts.events.remove(&ids[29]);
    assert_violates(&facts, &[Promise::OnlyCommitted]);
}

#[test]
fn an_identical_duplicate_after_a_fault_is_fine() {
    let (mut facts, ids) = valid_run();
    add_fault(&mut facts);
    add_duplicate(&mut facts, ids[6]);
    assert_violates(&facts, &[]);
    assert_eq!(check(&facts).duplicates, BTreeMap::from([("kill", 1)]));
}

#[test]
fn a_duplicate_without_a_fault_is_found() {
    let (mut facts, ids) = valid_run();
    add_fault(&mut facts);
    add_duplicate(&mut facts, ids[6]).at = 1101;
    assert_violates(&facts, &[Promise::DuplicatesAfterFaultsOnly]);
}

#[test]
fn a_duplicate_with_other_bytes_is_found() {
    let (mut facts, ids) = valid_run();
    add_fault(&mut facts);
    add_duplicate(&mut facts, ids[6]).payload[0] ^= 1;
    assert_violates(&facts, &[Promise::Unaltered, Promise::IdenticalDuplicates]);
}

#[test]
fn a_duplicate_with_another_seq_is_found_unless_ids_were_reused() {
    let (mut facts, ids) = valid_run();
    add_fault(&mut facts);
    add_duplicate(&mut facts, ids[6]).headers[1].1 = b"99".to_vec();
    assert_violates(
        &facts,
        &[Promise::SeqDeduplicates, Promise::IdenticalDuplicates],
    );
    facts.ids_reused = true;
    assert_violates(&facts, &[]);
}

#[test]
fn a_duplicate_with_a_lower_seq_is_found_unless_ids_were_reused() {
    let (mut facts, ids) = valid_run();
    add_fault(&mut facts);
    add_duplicate(&mut facts, ids[6]).headers[1].1 = b"2".to_vec();
    assert_violates(&facts, &[Promise::IdenticalDuplicates]);
    facts.ids_reused = true;
    assert_violates(&facts, &[]);
}

#[test]
fn a_later_row_with_a_used_seq_is_found_even_if_ids_were_reused() {
    let (mut facts, ids) = valid_run();
    facts.ids_reused = true;
    record_of(&mut facts, ids[29]).headers[1].1 = b"3".to_vec();
    assert_violates(&facts, &[Promise::SeqDeduplicates]);
}

#[test]
fn changed_bytes_are_found() {
    let (mut facts, ids) = valid_run();
    record_of(&mut facts, ids[6]).payload.push(b'!');
    assert_violates(&facts, &[Promise::Unaltered]);
}

#[test]
fn a_lost_header_is_found() {
    let (mut facts, ids) = valid_run();
    record_of(&mut facts, ids[6]).headers.truncate(2);
    assert_violates(&facts, &[Promise::Unaltered]);
}

#[test]
fn a_wrong_partition_is_found() {
    let (mut facts, ids) = valid_run();
    for id in ids.iter().skip(1).step_by(3) {
        let record = record_of(&mut facts, *id);
        record.partition = (record.partition + 1) % 4;
        record.offset += 500;
    }
    assert_violates(&facts, &[Promise::Partition]);
}

#[test]
fn an_event_that_the_database_lost_may_be_published_or_missing() {
    let (mut facts, ids) = valid_run();
    facts
        .records
        .retain(|record| record.event_id() != Some(ids[29]));
    facts.journal.retain(|id| ![ids[28], ids[29]].contains(id));
    assert_violates(&facts, &[Promise::ConsistentLedger]);
    facts.rewinds.push((109, 120));
    assert_violates(&facts, &[]);
    let report = check(&facts);
    assert_eq!((report.lost_by_database, report.lost_but_published), (2, 1));
}

/// On a slow machine the answer to a commit is read late. By then the server and the commit may be
/// lost.
#[test]
fn a_commit_may_be_lost_only_if_it_was_requested_before_the_database_went_back() {
    let (mut facts, ids) = valid_run();
    facts.journal.remove(&ids[28]);
    facts.rewinds.push((109, 120));
    for (requested, answered, promises) in [
        (105, 109, &[][..]),
        (120, 130, &[]),
        (105, 130, &[]),
        (121, 130, &[Promise::ConsistentLedger]),
        (105, 108, &[Promise::ConsistentLedger]),
    ] {
        facts
            .events
            .get_mut(&ids[28])
            .expect("in the ledger")
            .commit_result = CommitResult::Committed(CommitWindow {
            requested,
            answered,
        });
        assert_violates(&facts, promises);
    }
}

#[test]
fn a_truncated_row_is_not_lost_and_one_written_later_is() {
    let (mut facts, ids) = valid_run();
    facts.truncated.insert(ids[27], 500);
    facts
        .records
        .retain(|record| ![ids[27], ids[28]].contains(&record.event_id().expect("an id")));
    assert_violates(&facts, &[Promise::NothingLost]);
    assert_eq!(check(&facts).violations[&Promise::NothingLost].count, 1);
}

#[test]
fn a_truncated_row_may_be_published_late_but_out_of_order_only_after_the_truncate() {
    let (mut facts, ids) = valid_run();
    record_of(&mut facts, ids[0]).offset = 2000;
    for (truncated, promises) in [
        (1000, &[][..]),
        (1001, &[Promise::Order, Promise::SeqDeduplicates]),
    ] {
        facts.truncated.insert(ids[0], truncated);
        assert_violates(&facts, promises);
    }
}

#[test]
fn events_committed_before_a_topic_was_deleted_may_be_missing() {
    let (mut facts, ids) = valid_run();
    facts.deleted_topics.insert(TOPIC.to_owned(), 105);
    facts
        .records
        .retain(|record| ![ids[15], ids[18]].contains(&record.event_id().expect("an id")));
    assert_eq!(
        check(&facts).violations[&Promise::NothingLost].count,
        1,
        "version 5 may be missing, version 6 may not"
    );
}

#[test]
fn two_owners_of_a_lane_in_one_epoch_are_found() {
    let (mut facts, _) = valid_run();
    let owned = |generation, epoch, owner| Ownership {
        generation,
        lane: 3,
        epoch,
        owner: Uuid::from_u128(owner),
    };
    facts
        .owners
        .extend([owned(0, 1, 1), owned(0, 2, 2), owned(1, 1, 3)]);
    assert_violates(&facts, &[]);
    facts.owners.insert(owned(0, 2, 1));
    assert_violates(&facts, &[Promise::OneOwner]);
}

#[test]
fn lanes_without_an_owner_and_parked_keys_at_the_end_are_found() {
    let (mut facts, _) = valid_run();
    facts.lanes_unowned = 1;
    assert_violates(&facts, &[Promise::EndsHealthy]);
    (facts.lanes_unowned, facts.parked) = (0, 1);
    assert_violates(&facts, &[Promise::EndsHealthy]);
}
