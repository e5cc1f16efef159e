use super::*;

fn found(version: u32, holder: &str) -> Option<ObservedLease> {
    Some(ObservedLease {
        version: version.to_string(),
        holder: (!holder.is_empty()).then(|| holder.to_owned()),
        duration: LEASE_DURATION,
    })
}

fn candidate() -> (LeaderElection, Instant) {
    (LeaderElection::new("me".to_owned()), Instant::now())
}

fn leader() -> (LeaderElection, Instant) {
    let (mut leader, start) = candidate();
    leader.record_write(found(1, "me").expect("a Lease"), start);
    (leader, start)
}

#[test]
fn a_lease_that_is_absent_given_back_or_ours_from_before_a_restart_is_taken_at_once() {
    for lease in [None, found(1, ""), found(1, "me")] {
        let (mut candidate, start) = candidate();
        assert_eq!(candidate.observe(lease, start), Step::Take);
    }
}

#[test]
fn a_lease_of_another_is_taken_when_it_stood_unchanged_for_its_duration_and_not_before() {
    let (mut candidate, start) = candidate();
    assert_eq!(
        candidate.observe(found(1, "other"), start),
        Step::Wait(POLL_INTERVAL)
    );
    let almost = start + LEASE_DURATION - Duration::from_millis(1);
    assert_eq!(
        candidate.observe(found(1, "other"), almost),
        Step::Wait(Duration::from_millis(1))
    );
    assert_eq!(
        candidate.observe(found(1, "other"), start + LEASE_DURATION),
        Step::Take
    );
}

#[test]
fn each_renewal_restarts_the_wait() {
    let (mut candidate, start) = candidate();
    candidate.observe(found(1, "other"), start);
    assert_eq!(
        candidate.observe(found(2, "other"), start + LEASE_DURATION),
        Step::Wait(POLL_INTERVAL)
    );
    assert_eq!(
        candidate.observe(found(2, "other"), start + LEASE_DURATION * 2),
        Step::Take
    );
}

/// The times in a Lease are its holder's; `ObservedLease` does not even have them.
#[test]
fn what_its_holder_promised_counts_and_not_our_own_duration() {
    let (mut candidate, start) = candidate();
    let patient = found(1, "other").map(|lease| ObservedLease {
        duration: LEASE_DURATION * 4,
        ..lease
    });
    candidate.observe(patient.clone(), start);
    assert_eq!(
        candidate.observe(patient.clone(), start + LEASE_DURATION * 3),
        Step::Wait(POLL_INTERVAL)
    );
    assert_eq!(
        candidate.observe(patient, start + LEASE_DURATION * 4),
        Step::Take
    );
}

#[test]
fn a_lease_that_somebody_deleted_is_not_taken_while_its_holder_may_not_know() {
    let (mut candidate, start) = candidate();
    candidate.observe(found(1, "other"), start);
    assert_eq!(
        candidate.observe(None, start + RENEW_INTERVAL),
        Step::Wait(POLL_INTERVAL)
    );
    assert_eq!(candidate.observe(None, start + LEASE_DURATION), Step::Take);
}

#[test]
fn the_holder_renews_also_one_that_was_deleted_or_blanked() {
    let (mut leader, start) = leader();
    assert_eq!(leader.observe(found(1, "me"), start), Step::Renew);
    assert_eq!(
        leader.observe(found(2, "me"), start),
        Step::Renew,
        "a renewal whose answer was lost"
    );
    assert_eq!(leader.observe(None, start), Step::Renew);
    assert_eq!(leader.observe(found(3, ""), start), Step::Take);
}

#[test]
fn the_holder_has_lost_when_another_name_stands_there() {
    let (mut leader, start) = leader();
    assert_eq!(
        leader.observe(found(2, "other"), start),
        Step::LeaseLost {
            holder: "other".to_owned()
        }
    );
}
