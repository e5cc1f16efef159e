//! Each reason of docs/reasons.md has a test that meets the failure, carries out the next step, and
//! finds the service healed. This table names it; what no test carries out is listed with why. Reads
//! files; no server.

use std::{collections::BTreeMap, fs, path::Path};

/// Reason and the test, as `file::function`.
const CARRIED_OUT: &[(&str, &str)] = &[
    (
        "AdoptionFailed",
        "adopt_relay::a_row_with_a_fault_parks_its_key_and_other_keys_go_on",
    ),
    (
        "AdoptionRefused",
        "adopt_moving::more_rows_than_writers_can_wait_for_are_refused_and_drained_first",
    ),
    (
        "ApiRequestFailed",
        "operator_outages::an_api_server_that_refuses_is_asked_rarely",
    ),
    (
        "AuthenticationFailed",
        "on_call::a_new_password_is_wrong_while_the_old_one_works",
    ),
    (
        "BreakerOpen",
        "relay_problems::brokers_that_cannot_be_reached_cost_nothing_but_time",
    ),
    (
        "ChildRefused",
        "operator_children::what_the_api_server_refuses_to_make_is_told",
    ),
    (
        "ClockSkew",
        "relay_clocks::a_topic_whose_brokers_have_another_time_waits_without_blame_until_it_is_corrected",
    ),
    (
        "DatabaseFull",
        "database_faults::a_full_disk_is_reported_and_recovery_is_automatic",
    ),
    (
        "DatabaseMissing",
        "run_from_manifest::a_run_from_a_manifest_says_why_it_waits_until_the_database_is_there",
    ),
    (
        "DatabaseReadOnly",
        "database_faults::a_read_only_database_is_reported_and_recovery_is_automatic",
    ),
    (
        "FormerChildren",
        "neighbours::a_backup_tool_restores_children_with_an_owner_that_is_gone",
    ),
    (
        "ImageNotAllowed",
        "operator_options::an_image_that_is_not_allowed_stalls_and_an_allowed_one_is_run",
    ),
    (
        "InsufficientPrivilege",
        "operator_gate::a_user_without_the_right_to_create_the_schema",
    ),
    (
        "KafkaAuthenticationFailed",
        "relay_problems::a_wrong_kafka_password_is_reported_until_the_secret_is_right",
    ),
    (
        "KafkaThrottled",
        "relay_distance::a_quota_slows_records_down_and_is_no_outage",
    ),
    ("KafkaUnreachable", "on_call::no_broker_can_be_reached"),
    (
        "KeysParked",
        "cli_parked::a_topic_and_a_key_are_parked_by_hand_and_retried",
    ),
    (
        "LockTimeout",
        "operator_gate::a_table_that_somebody_has_locked",
    ),
    (
        "MigrationFailed",
        "operator_migration::a_failed_migration_is_tried_again_after_ten_seconds",
    ),
    ("NameConflict", "on_call::a_name_is_taken_by_another_object"),
    (
        "NewerSchema",
        "operator_gate::a_schema_of_another_relay_and_then_of_a_newer_version",
    ),
    (
        "NotUnderstood",
        "operator_bad_input::a_manifest_that_cannot_be_read_is_told_and_its_relays_stay",
    ),
    (
        "ParkedByHand",
        "cli_parked::a_topic_and_a_key_are_parked_by_hand_and_retried",
    ),
    (
        "Paused",
        "operator_options::of_a_paused_relay_only_the_status_is_written",
    ),
    (
        "PodMonitorUnavailable",
        "operator_options::a_cluster_without_pod_monitors_runs_relays_all_the_same_and_says_so",
    ),
    (
        "PodsPending",
        "on_call::the_image_of_a_rollout_cannot_be_pulled",
    ),
    ("PodsRefused", "on_call::a_quota_allows_no_further_relay"),
    (
        "RecordRejected",
        "cli_relay::a_rejected_row_is_retried_skipped_and_requeued_while_a_relay_runs",
    ),
    (
        "RecordTooLarge",
        "on_call::a_record_is_too_large_for_its_topic",
    ),
    (
        "RoleMissing",
        "on_call::a_role_of_the_grants_does_not_exist",
    ),
    (
        "RowUnreadable",
        "relay_row_sizes::a_text_that_is_not_utf8_parks_its_key_alone_in_sql_ascii",
    ),
    (
        "SchemaClaimedByOther",
        "on_call::another_outbox_relay_owns_the_schema",
    ),
    (
        "SchemaNotReady",
        "run_from_manifest::a_run_from_a_manifest_migrates_a_database_that_was_made_anew",
    ),
    (
        "SecretInvalid",
        "secret_rotation::missing_or_mismatched_files_are_problems_and_the_last_good_ones_are_used",
    ),
    (
        "SecretMissing",
        "on_call::the_secret_of_a_migration_is_missing",
    ),
    (
        "SequenceWentBack",
        "reused_ids::a_sequence_that_is_set_back_under_load_is_advanced_and_nothing_is_lost",
    ),
    (
        "Suspended",
        "operator_options::a_suspended_relay_has_no_pod_and_is_ready",
    ),
    (
        "TlsFailed",
        "operator_gate::a_server_that_cannot_be_reached_and_then_one_whose_certificate_is_not_trusted",
    ),
    ("TopicMissing", "on_call::a_declared_topic_does_not_exist"),
    (
        "TopicNotAuthorized",
        "relay_rejecting_topics::a_topic_forbidden_under_load_is_paused_alone_and_continues_in_order",
    ),
    (
        "TopicNotDeclared",
        "relay_problems::rows_that_no_declared_topic_takes_wait_until_the_manifest_declares_it",
    ),
    (
        "TopicStalled",
        "relay_outages::a_partition_without_a_leader_pauses_its_topic_alone",
    ),
    (
        "Unreachable",
        "on_call::a_running_relay_is_cut_off_from_its_database",
    ),
    (
        "UpgradesStopped",
        "operator_upgrades::three_upgrades_that_fail_keep_the_others_as_they_are_until_a_better_version_comes",
    ),
];

/// Reasons whose next step no test carries out, and why.
const NOT_CARRIED_OUT: &[(&str, &str)] = &[
    (
        "AtMaximum",
        "unit tests of scaling decide with another maximum",
    ),
    ("DatabaseError", "the step is in the message of each error"),
    (
        "InvalidSettings",
        "the step is in the message of each error",
    ),
    (
        "InvalidSpec",
        "the API server rejects these manifests first",
    ),
    ("KafkaError", "the step is in the message of each error"),
    (
        "KafkaTlsFailed",
        "the step is a changed manifest; tests connect with each mode",
    ),
    ("MigrationNote", "a note, no failure"),
    ("NoRelayAvailable", "the step is to read logs"),
    ("NoReports", "the rig's network enforces no NetworkPolicy"),
    ("Other", "of a newer version"),
    ("PlaintextTraffic", "advice; nothing waits"),
    ("ReplicasReset", "an Event; the operator has done it"),
    ("ScaledToZero", "as Suspended"),
    ("ServerUnverified", "advice; nothing waits"),
    ("SomeRelaysAvailable", "the pod's own reason has the step"),
    ("TableChanged", "advice; rows are published"),
    ("ThroughputFlat", "the step is a search for a limit"),
    ("TopicUnderReplicated", "advice; the rig has one broker"),
    ("WaitingForRelays", "condition Available has the step"),
    ("WaitingForSchema", "condition SchemaReady has the step"),
];

/// Next step of each reason on the page that asks a person for one.
fn next_steps() -> BTreeMap<String, String> {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/reasons.md");
    let page = fs::read_to_string(page).expect("the page");
    let rows = page.lines().filter(|line| line.starts_with("| `"));
    let cells = rows.map(|row| row.trim_matches('|').split(" | ").collect::<Vec<_>>());
    let steps = cells.map(|cells| {
        let reason = cells[0].trim().trim_matches('`').to_owned();
        (reason, cells[cells.len() - 1].trim().to_owned())
    });
    steps.filter(|(_, step)| asks(step)).collect()
}

fn asks(step: &str) -> bool {
    !["none", "wait"]
        .iter()
        .any(|nothing| step.starts_with(nothing))
}

#[test]
fn each_next_step_is_carried_out_by_a_test_or_listed_with_why_not() {
    let listed = CARRIED_OUT.iter().chain(NOT_CARRIED_OUT);
    let listed: BTreeMap<&str, &str> = listed.copied().collect();
    assert_eq!(
        listed.len(),
        CARRIED_OUT.len() + NOT_CARRIED_OUT.len(),
        "one is listed twice"
    );
    let steps = next_steps();
    let missing: Vec<&String> = steps
        .keys()
        .filter(|reason| !listed.contains_key(reason.as_str()))
        .collect();
    assert!(missing.is_empty(), "no test is named for {missing:?}");
}

#[test]
fn the_named_tests_exist() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it");
    let missing: Vec<&str> = CARRIED_OUT
        .iter()
        .map(|(_, test)| *test)
        .filter(|test| {
            let (file, function) = test.split_once("::").expect("file::function");
            let source = fs::read_to_string(folder.join(format!("{file}.rs")));
            !source.is_ok_and(|text| text.contains(&format!("fn {function}")))
        })
        .collect();
    assert!(missing.is_empty(), "no such test: {missing:?}");
}
