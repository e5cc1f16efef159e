//! Each fault is planted into facts that are otherwise good.

use super::*;
use crate::{
    api::TlsMode,
    doctor::{
        facts::{DatabaseFacts, TopicFacts},
        report::Outcome,
    },
    kafka::{TopicDescription, TopicLimits},
    outbox::{
        SchemaDrift,
        admin::{Attention, AttentionKind, Overview, RelayEntry, Waiting},
        doctor::{MigrationRights, RefusedFunction, ServerFacts},
    },
    report::{Problem, ProblemClass},
};

fn server() -> ServerFacts {
    ServerFacts {
        version_major: 17,
        encoding: "UTF8".to_owned(),
        in_recovery: false,
        read_only: false,
        role: "file_service".to_owned(),
        role_connection_limit: -1,
        database_connection_limit: -1,
        connections_max: 100,
        connections_used: 7,
        autovacuum: true,
        table_autovacuum: Some(true),
        timeouts: vec![("statement_timeout".to_owned(), 10_000)],
        refused_functions: vec![],
        oldest_transaction_seconds: Some(1.0),
    }
}

fn overview() -> Overview {
    Overview {
        schema: "outbox".to_owned(),
        level: 12,
        owner: None,
        waiting: Waiting {
            rows: 0,
            capped: false,
            oldest_at: None,
            oldest_seconds: None,
        },
        relays: vec![RelayEntry {
            pod: "relay-0".to_owned(),
            instance: "7d6f".to_owned(),
            breaker: "Closed".to_owned(),
            lease_seconds: 12.0,
            lanes: (0..64).collect(),
        }],
        lanes_without_relay: vec![],
        attention: vec![],
        dead_rows: Some(0),
        oldest_transaction_seconds: None,
    }
}

fn topic() -> TopicFacts {
    TopicFacts {
        name: "files".to_owned(),
        description: TopicDescription::Exists {
            partitions: 12,
            replicas: 3,
            has_leaders: true,
        },
        limits: Some(TopicLimits {
            max_message_bytes: Some(1_048_588),
            min_insync_replicas: Some(2),
            retention_ms: Some(604_800_000),
            timestamp_before_max_ms: None,
            timestamp_difference_max_ms: None,
        }),
    }
}

fn database() -> DatabaseFacts {
    DatabaseFacts {
        location: "database 'files' at db:5432 as 'file_service'".to_owned(),
        connect_ms: 12,
        here_ahead_seconds: 0.1,
        product: None,
        server: Ok(server()),
        level: Ok(12),
        drift: Ok(SchemaDrift::No),
        lacking_rights: Ok(vec![]),
        overview: Ok(overview()),
    }
}

fn good() -> Examined {
    Examined {
        settings: Ok(SettingsFacts {
            schema: "outbox".to_owned(),
            topics: 1,
            database_tls: TlsMode::VerifyFull,
            kafka_tls: TlsMode::VerifyFull,
            max_connections: 5,
            has_own_migration_user: true,
        }),
        database: Some(Ok(database())),
        migration: Some(Ok(MigrationRights {
            role: "owner".to_owned(),
            schema_owner: Some("owner".to_owned()),
            is_owner: true,
            may_create: true,
            missing_roles: vec![],
        })),
        kafka: Some(Ok(vec![topic()])),
    }
}

fn with_database(change: impl FnOnce(&mut DatabaseFacts)) -> Examined {
    let mut facts = good();
    change(
        facts
            .database
            .as_mut()
            .expect("facts")
            .as_mut()
            .expect("a login"),
    );
    facts
}

fn with_server(change: impl FnOnce(&mut ServerFacts)) -> Examined {
    with_database(|database| change(database.server.as_mut().expect("facts")))
}

fn with_overview(change: impl FnOnce(&mut Overview)) -> Examined {
    with_database(|database| change(database.overview.as_mut().expect("facts")))
}

fn with_topic(change: impl FnOnce(&mut TopicFacts)) -> Examined {
    let mut facts = good();
    let topics = facts.kafka.as_mut().expect("facts").as_mut();
    change(&mut topics.expect("a login")[0]);
    facts
}

fn problem(class: ProblemClass, message: &str) -> Problem {
    Problem::new(class, message)
}

/// Codes that are not ok, with their outcomes.
fn findings(facts: &Examined, moment: Moment) -> Vec<(Code, Outcome)> {
    let findings = check(facts, moment).findings.into_iter();
    findings
        .filter(|finding| finding.outcome != Outcome::Ok)
        .map(|finding| (finding.code, finding.outcome))
        .collect()
}

#[track_caller]
fn assert_only(facts: &Examined, code: Code, outcome: Outcome, part: &str) {
    assert_eq!(findings(facts, Moment::Running), [(code, outcome)]);
    let findings = check(facts, Moment::Running).findings;
    let found = findings.iter().find(|finding| finding.code == code);
    let message = &found.expect("a finding").message;
    assert!(message.contains(part), "{message}");
}

#[test]
fn good_facts_have_one_ok_line_for_each_check() {
    let report = check(&good(), Moment::Running);
    let codes: Vec<Code> = report.findings.iter().map(|finding| finding.code).collect();
    assert_eq!(codes, Code::ALL);
    assert_eq!(findings(&good(), Moment::Running), []);
}

#[test]
fn each_fault_of_the_server_has_its_line() {
    use Outcome::{Fault, Warning};
    let refused = RefusedFunction {
        function: "pg_current_wal_lsn()",
        sqlstate: "55000".to_owned(),
    };
    for (facts, code, outcome, part) in [
        (
            with_server(|server| server.refused_functions = vec![refused]),
            Code::ServerFunctions,
            Warning,
            "pg_current_wal_lsn() (SQLSTATE 55000)",
        ),
        (
            with_server(|server| server.encoding = "SQL_ASCII".to_owned()),
            Code::ServerEncoding,
            Warning,
            "SQL_ASCII",
        ),
        (
            with_server(|server| server.encoding = "WIN1252".to_owned()),
            Code::ServerEncoding,
            Warning,
            "WIN1252",
        ),
        (
            with_server(|server| server.role_connection_limit = 2),
            Code::ConnectionLimit,
            Fault,
            "CONNECTION LIMIT 2 of the role",
        ),
        (
            with_server(|server| server.database_connection_limit = 0),
            Code::ConnectionLimit,
            Fault,
            "of the database",
        ),
        (
            with_server(|server| server.connections_used = 96),
            Code::ConnectionLimit,
            Warning,
            "96 of 100",
        ),
        (
            with_server(|server| server.timeouts.push(("transaction_timeout".to_owned(), 5))),
            Code::SessionTimeouts,
            Fault,
            "transaction_timeout=5ms",
        ),
        (
            with_server(|server| server.in_recovery = true),
            Code::ServerPrimary,
            Fault,
            "standby",
        ),
        (
            with_server(|server| server.read_only = true),
            Code::ServerPrimary,
            Fault,
            "default_transaction_read_only",
        ),
        (
            with_server(|server| server.version_major = 14),
            Code::ServerVersion,
            Fault,
            "15 or newer",
        ),
        (
            with_database(|database| database.product = Some("CockroachDB".to_owned())),
            Code::ServerVersion,
            Fault,
            "CockroachDB",
        ),
        (
            with_server(|server| server.autovacuum = false),
            Code::Autovacuum,
            Warning,
            "on the server",
        ),
        (
            with_server(|server| server.table_autovacuum = Some(false)),
            Code::Autovacuum,
            Warning,
            "table event",
        ),
        (
            with_server(|server| server.oldest_transaction_seconds = Some(7200.0)),
            Code::OldTransactions,
            Warning,
            "120 min",
        ),
        (
            with_database(|database| database.here_ahead_seconds = 3605.0),
            Code::ServerClock,
            Warning,
            "3605 s behind",
        ),
        (
            with_database(|database| database.here_ahead_seconds = -86_400.0),
            Code::ServerClock,
            Warning,
            "86400 s ahead of",
        ),
        (
            with_database(|database| database.connect_ms = 5000),
            Code::DatabaseLogin,
            Warning,
            "5000 ms",
        ),
    ] {
        assert_only(&facts, code, outcome, part);
    }
}

#[test]
fn each_fault_of_schema_and_rows_has_its_line() {
    use Outcome::{Fault, Warning};
    let cache = problem(
        ProblemClass::SchemaNotReady,
        "sequence event_id_seq has cache 50",
    );
    let index = problem(ProblemClass::TableChanged, "a second index");
    let item = |kind| Attention {
        kind,
        topic: "files".to_owned(),
        class: "RecordTooLarge".to_owned(),
        number: 2,
        oldest_at: String::new(),
    };
    for (facts, code, outcome, part) in [
        (
            with_database(|database| database.drift = Ok(SchemaDrift::Unsafe(cache))),
            Code::SchemaDefinition,
            Fault,
            "cache 50",
        ),
        (
            with_database(|database| database.drift = Ok(SchemaDrift::Tolerable(index))),
            Code::SchemaDefinition,
            Warning,
            "second index",
        ),
        (
            with_database(|database| {
                database.lacking_rights = Ok(vec!["SELECT ON TABLE outbox.event".to_owned()]);
            }),
            Code::RelayRights,
            Fault,
            "SELECT ON TABLE outbox.event",
        ),
        (
            with_overview(|overview| overview.lanes_without_relay = (0..32).collect()),
            Code::RelaysActive,
            Fault,
            "32 of 64 lanes",
        ),
        (
            with_overview(|overview| overview.relays[0].breaker = "Open".to_owned()),
            Code::RelaysActive,
            Fault,
            "acknowledges nothing to relay-0",
        ),
        (
            with_overview(|overview| overview.waiting.oldest_seconds = Some(75.0)),
            Code::RowsWaiting,
            Warning,
            "for 75 s",
        ),
        (
            with_overview(|overview| overview.attention = vec![item(AttentionKind::ParkedKeys)]),
            Code::Parked,
            Warning,
            "2 keys of 'files' (RecordTooLarge)",
        ),
        (
            with_overview(|overview| overview.attention = vec![item(AttentionKind::DeadLetters)]),
            Code::DeadLetters,
            Warning,
            "2 of 'files' (RecordTooLarge)",
        ),
    ] {
        assert_only(&facts, code, outcome, part);
    }
}

#[test]
fn each_fault_of_a_topic_has_its_line() {
    use Outcome::{Fault, Warning};
    let limited = |change: fn(&mut TopicLimits)| {
        with_topic(|topic| change(topic.limits.as_mut().expect("limits")))
    };
    let leaderless = TopicDescription::Exists {
        partitions: 1,
        replicas: 3,
        has_leaders: false,
    };
    let single = TopicDescription::Exists {
        partitions: 1,
        replicas: 1,
        has_leaders: true,
    };
    for (facts, code, outcome, part) in [
        (
            limited(|limits| limits.retention_ms = Some(60_000)),
            Code::TopicTimestamps,
            Warning,
            "retention.ms=60000",
        ),
        (
            limited(|limits| limits.timestamp_before_max_ms = Some(60_000)),
            Code::TopicTimestamps,
            Warning,
            "message.timestamp.before.max.ms=60000",
        ),
        (
            limited(|limits| limits.min_insync_replicas = Some(1)),
            Code::TopicReplicas,
            Warning,
            "min.insync.replicas=1",
        ),
        (
            limited(|limits| limits.min_insync_replicas = Some(4)),
            Code::TopicReplicas,
            Fault,
            "no record can be acknowledged",
        ),
        (
            with_topic(|topic| topic.description = leaderless),
            Code::TopicExists,
            Fault,
            "no leader",
        ),
        (
            with_topic(|topic| topic.description = single),
            Code::TopicReplicas,
            Fault,
            "no record can be acknowledged",
        ),
    ] {
        let found = findings(&facts, Moment::Running);
        assert!(found.contains(&(code, outcome)), "{found:?}");
        let message = check(&facts, Moment::Running).in_words();
        assert!(message.contains(part), "{message}");
    }
}

#[test]
fn a_missing_topic_skips_what_needs_it() {
    let facts = with_topic(|topic| topic.description = TopicDescription::Missing);
    assert_eq!(
        findings(&facts, Moment::Running),
        [
            (Code::TopicExists, Outcome::Fault),
            (Code::TopicReplicas, Outcome::Skipped),
            (Code::TopicSize, Outcome::Skipped),
            (Code::TopicTimestamps, Outcome::Skipped),
        ]
    );
    let unreadable = with_topic(|topic| topic.limits = None);
    let text = check(&unreadable, Moment::Running).in_words();
    assert!(text.contains("DESCRIBE_CONFIGS"), "{text}");
    assert!(!check(&unreadable, Moment::Running).fails(crate::doctor::Threshold::Fault));
}

#[test]
fn a_refused_login_is_one_fault_and_skips_what_needs_it() {
    let refused = "database 'files' at db:5432 as 'file_service': the password is wrong";
    let mut facts = good();
    facts.database = Some(Err(problem(ProblemClass::AuthenticationFailed, refused)));
    let found = findings(&facts, Moment::Running);
    let faults = found
        .iter()
        .filter(|(_, outcome)| *outcome == Outcome::Fault);
    assert_eq!(
        faults.collect::<Vec<_>>(),
        [&(Code::DatabaseLogin, Outcome::Fault)]
    );
    assert!(
        found.contains(&(Code::SchemaLevel, Outcome::Skipped)),
        "{found:?}"
    );
    assert!(
        found.contains(&(Code::RowsWaiting, Outcome::Skipped)),
        "{found:?}"
    );
    let report = check(&facts, Moment::Running);
    assert!(report.in_words().contains("at db:5432 as 'file_service'"));
    assert_eq!(
        report.findings.len(),
        Code::ALL.len(),
        "each check has its line"
    );

    facts.kafka = Some(Err(problem(ProblemClass::KafkaTlsFailed, "handshake")));
    let found = findings(&facts, Moment::Running);
    assert!(
        found.contains(&(Code::KafkaLogin, Outcome::Fault)),
        "{found:?}"
    );
    assert!(
        found.contains(&(Code::TopicExists, Outcome::Skipped)),
        "{found:?}"
    );
}

#[test]
fn statements_that_fail_after_the_login_are_a_fault() {
    let facts = with_database(|database| {
        database.server = Err(problem(ProblemClass::DatabaseError, "transaction_timeout"));
    });
    let found = findings(&facts, Moment::Running);
    assert!(
        found.contains(&(Code::DatabaseLogin, Outcome::Fault)),
        "{found:?}"
    );
    assert!(
        found.contains(&(Code::SessionTimeouts, Outcome::Unknown)),
        "{found:?}"
    );
}

#[test]
fn settings_that_cannot_be_read_skip_everything_else() {
    let facts = Examined {
        settings: Err(problem(
            ProblemClass::InvalidSettings,
            "spec.topics: at most 16",
        )),
        database: None,
        migration: None,
        kafka: None,
    };
    let report = check(&facts, Moment::Running);
    assert_eq!(report.findings.len(), Code::ALL.len());
    let faults = report
        .findings
        .iter()
        .filter(|it| it.outcome == Outcome::Fault);
    assert_eq!(faults.count(), 1);
}

#[test]
fn before_a_rollout_the_schema_may_be_missing_and_no_relay_runs() {
    let mut facts = with_database(|database| {
        let missing = problem(ProblemClass::SchemaNotReady, "level 0");
        database.level = Err(missing.clone());
        database.overview = Err(missing);
    });
    let rights = facts.migration.as_mut().expect("facts").as_mut();
    rights.expect("a login").schema_owner = None;
    let faults = |moment| check(&facts, moment).fails(crate::doctor::Threshold::Fault);
    assert!(faults(Moment::Running) && !faults(Moment::BeforeRollout));
    let unowned = with_overview(|overview| overview.lanes_without_relay = (0..64).collect());
    assert_eq!(findings(&unowned, Moment::BeforeRollout), []);
}

#[test]
fn the_migration_user_is_judged_by_what_it_may_do() {
    let with = |change: fn(&mut MigrationRights)| {
        let mut facts = good();
        change(
            facts
                .migration
                .as_mut()
                .expect("facts")
                .as_mut()
                .expect("a login"),
        );
        facts
    };
    let foreign = with(|rights| rights.is_owner = false);
    assert_only(
        &foreign,
        Code::MigrationRights,
        Outcome::Fault,
        "GRANT owner TO owner",
    );
    let barred = with(|rights| {
        rights.schema_owner = None;
        rights.may_create = false;
    });
    assert_only(
        &barred,
        Code::MigrationRights,
        Outcome::Fault,
        "GRANT CREATE ON DATABASE",
    );
    let missing = with(|rights| rights.missing_roles = vec!["writer".to_owned()]);
    assert_only(&missing, Code::RolesExist, Outcome::Fault, "writer");
    let mut pod = good();
    pod.migration = Some(Err(problem(ProblemClass::SecretMissing, "not here")));
    let found = findings(&pod, Moment::Running);
    assert!(
        found.contains(&(Code::MigrationLogin, Outcome::Unknown)),
        "{found:?}"
    );
    let before = findings(&pod, Moment::BeforeRollout);
    assert!(
        before.contains(&(Code::MigrationLogin, Outcome::Fault)),
        "{before:?}"
    );
}

#[test]
fn plaintext_and_unverified_servers_are_warnings() {
    for (mode, outcome) in [
        (TlsMode::VerifyFull, Outcome::Ok),
        (TlsMode::VerifyCa, Outcome::Ok),
        (TlsMode::Require, Outcome::Warning),
        (TlsMode::Disable, Outcome::Warning),
    ] {
        assert_eq!(
            database::by_mode(Code::KafkaTls, mode).outcome,
            outcome,
            "{mode:?}"
        );
    }
}
