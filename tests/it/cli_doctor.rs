//! `outbox-relay doctor` against real servers: each fault that is planted has its line, and no other
//! line turns into a fault.

use std::collections::BTreeMap;

use k8s_openapi::api::batch::v1::Job;
use outbox_relay::settings::{OnPoison, RelaySettings, TlsMode, TopicSettings};
use serde_json::Value;

use crate::{
    cli::{outbox_relay, stderr, with_settings},
    harness::{
        kafka::{create_topic_with, delete_topic, topic_name},
        kubernetes::{Namespace, kubectl, manifest},
        pods,
        postgres::{Database, execute},
        relay::{Relay, until},
    },
};

/// Outcome and message by code.
type Findings = BTreeMap<String, (String, String)>;

fn settings(database: &Database, topic: &str) -> RelaySettings {
    database.publishing(vec![TopicSettings {
        name: topic.to_owned(),
        event_types: vec!["Uploaded".to_owned()],
        aggregate_types: vec![],
        on_poison: OnPoison::default(),
    }])
}

/// Runs the checks as before a rollout: no relay runs.
fn examine(database: &Database, settings: &RelaySettings, options: &str) -> (i32, Findings) {
    let command = format!("doctor --output json{options}");
    let output = with_settings(database, settings, &command);
    let report: Value = serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|error| panic!("{error}: {output:?}"));
    let findings = report["findings"].as_array().expect("a list").iter();
    let text = |finding: &Value, field: &str| finding[field].as_str().expect("a text").to_owned();
    let findings = findings.map(|finding| {
        let outcome = (text(finding, "outcome"), text(finding, "message"));
        (text(finding, "code"), outcome)
    });
    (
        output.status.code().expect("an exit code"),
        findings.collect(),
    )
}

/// Asserts that the check has this outcome and message, and that the exit code follows from it.
#[track_caller]
fn assert_line((exit, findings): &(i32, Findings), code: &str, outcome: &str, part: &str) {
    let (found, message) = &findings[code];
    assert!(
        found == outcome && message.contains(part),
        "{code}: {found}: {message}"
    );
    assert_eq!(*exit, i32::from(outcome == "fault"), "{findings:?}");
    let others = findings
        .iter()
        .filter(|(other, (outcome, _))| *other != code && outcome == "fault");
    assert_eq!(others.collect::<Vec<_>>(), []);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_good_outbox_has_no_fault_and_each_planted_one_has_its_line() {
    let (database, topic) = (
        Database::create(17).await.migrated().await,
        topic_name("doctor"),
    );
    create_topic_with(&topic, 1, &[("message.timestamp.before.max.ms", "60000")]).await;
    let settings = settings(&database, &topic);
    let relay = &database.relay;
    let mut admin = database.as_admin().await;

    let good = examine(&database, &settings, " --pre");
    assert_line(&good, "SchemaDefinition", "ok", "as the migrations left it");
    assert_line(
        &good,
        "TopicTimestamps",
        "warning",
        "message.timestamp.before.max.ms=60000",
    );
    assert_eq!(
        examine(&database, &settings, " --pre --fail-on warning").0,
        1
    );

    for (planted, code, outcome, part, heal) in [
        (
            "alter sequence outbox.event_id_seq cache 50".to_owned(),
            "SchemaDefinition",
            "fault",
            "event_id_seq",
            "alter sequence outbox.event_id_seq cache 1".to_owned(),
        ),
        (
            format!("alter role {relay} set quote_all_identifiers = on"),
            "SchemaDefinition",
            "ok",
            "as the migrations left it",
            format!("alter role {relay} reset quote_all_identifiers"),
        ),
        (
            format!("alter role {relay} connection limit 3"),
            "ConnectionLimit",
            "fault",
            "CONNECTION LIMIT 3",
            format!("alter role {relay} connection limit -1"),
        ),
        (
            format!("alter role {relay} set transaction_timeout = '900ms'"),
            "SessionTimeouts",
            "fault",
            "transaction_timeout=900ms",
            format!("alter role {relay} reset transaction_timeout"),
        ),
        (
            "revoke execute on function pg_control_system() from public".to_owned(),
            "ServerFunctions",
            "warning",
            "pg_control_system() (SQLSTATE 42501)",
            "grant execute on function pg_control_system() to public".to_owned(),
        ),
        (
            format!("revoke select on outbox.parked_key from {relay}"),
            "RelayRights",
            "fault",
            "SELECT ON TABLE outbox.parked_key",
            format!("grant select on outbox.parked_key to {relay}"),
        ),
        (
            "alter table outbox.event set (autovacuum_enabled = off)".to_owned(),
            "Autovacuum",
            "warning",
            "table event",
            "alter table outbox.event reset (autovacuum_enabled)".to_owned(),
        ),
    ] {
        execute(&mut admin, &planted).await;
        assert_line(
            &examine(&database, &settings, " --pre"),
            code,
            outcome,
            part,
        );
        execute(&mut admin, &heal).await;
    }

    let mut plaintext_server = settings.clone();
    plaintext_server.database.tls.mode = TlsMode::VerifyFull;
    plaintext_server.migration.database = None;
    let found = examine(&database, &plaintext_server, " --pre");
    assert!(
        found.1["DatabaseLogin"].1.contains("TlsFailed"),
        "{found:?}"
    );
    let mut away = settings.clone();
    away.kafka.bootstrap_servers = vec!["[::1]:1".to_owned()];
    let found = examine(&database, &away, " --pre");
    assert_line(&found, "KafkaLogin", "fault", "[::1]:1");
    assert_eq!(found.1["TopicExists"].0, "skipped");
    let mut elsewhere = settings.clone();
    elsewhere.topics[0].name = format!("{topic}-absent");
    assert_line(
        &examine(&database, &elsewhere, " --pre"),
        "TopicExists",
        "fault",
        "create it",
    );

    database.write_secrets(relay, "wrong");
    let found = examine(&database, &settings, "");
    let (outcome, message) = &found.1["DatabaseLogin"];
    let address = database.address().to_string();
    assert!(
        outcome == "fault"
            && [relay, &*address]
                .iter()
                .all(|part| message.contains(*part)),
        "{message}"
    );
    assert_eq!((found.0, &*found.1["SchemaLevel"].0), (1, "skipped"));
    delete_topic(&topic).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_waits_for_a_relay_and_writes_a_bundle_without_secrets() {
    let (database, topic) = (
        Database::create_in(15, "SQL_ASCII").await.migrated().await,
        topic_name("doctor"),
    );
    create_topic_with(&topic, 1, &[]).await;
    let settings = settings(&database, &topic);
    let found = examine(&database, &settings, "");
    assert_line(&found, "RelaysActive", "fault", "64 of 64 lanes");
    assert_eq!(found.1["ServerEncoding"].0, "warning");

    let relay = Relay::start(&database, &settings).await;
    let file = std::env::temp_dir().join(format!("{}_bundle.json", database.name));
    let options = format!(" --wait 60s --bundle {}", file.display());
    let found = examine(&database, &settings, &options);
    assert_line(&found, "RelaysActive", "ok", "1 relays own all lanes");
    let bundle = std::fs::read_to_string(&file).expect("written");
    assert!(
        bundle.contains("RelaysActive") && bundle.contains(&topic),
        "{bundle}"
    );
    assert!(!bundle.contains(database.password()), "{bundle}");
    drop(relay);
    until("the file to go", async || std::fs::remove_file(&file).ok()).await;
    delete_topic(&topic).await;
}

#[tokio::test]
async fn a_manifest_is_judged_and_a_code_explained_without_servers() {
    let database = Database::create(15).await;
    let manifest = database.manifest("");
    let types: Vec<String> = (0..17).map(|number| format!("E{number}")).collect();
    let text = std::fs::read_to_string(&manifest).expect("a manifest");
    let text = text.replace("[ Uploaded ]", &format!("[ {} ]", types.join(", ")));
    std::fs::write(&manifest, text).expect("written");
    let run =
        |command: String| outbox_relay(&command.split(' ').map(str::to_owned).collect::<Vec<_>>());
    let output = run(format!("doctor --manifest {}", manifest.display()));
    let text = String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(
        text.contains("FAULT    Settings") && text.contains("eventTypes"),
        "{text}"
    );

    let explained = run("doctor explain connectionlimit".to_owned());
    let text = String::from_utf8_lossy(&explained.stdout);
    assert!(text.contains("maxConnections"), "{text}");
    let unknown = run("doctor explain Nothing".to_owned());
    assert_eq!(unknown.status.code(), Some(2));
    assert!(stderr(&unknown).contains("ConnectionLimit"), "{unknown:?}");
}

/// Takes more than 20 s where the image of the programs is packed first.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_makes_the_checks_before_the_first_migration() {
    let (ns, database, topic) = (
        Namespace::create().await,
        Database::create(15).await,
        topic_name("doctor"),
    );
    create_topic_with(&topic, 1, &[]).await;
    pods::good_credentials(&ns, &database).await;
    let mut relay = manifest();
    pods::real(&mut relay, &database, &topic);
    relay["metadata"]["namespace"] = ns.name.clone().into();
    let file = std::env::temp_dir().join(format!("{}_manifest.yaml", database.name));
    std::fs::write(&file, relay.to_string()).expect("written");

    let command = format!("doctor --manifest {} --pre --print-job", file.display());
    let printed = outbox_relay(&command.split(' ').map(str::to_owned).collect::<Vec<_>>());
    let objects = String::from_utf8_lossy(&printed.stdout);
    kubectl(&["apply", "-f", "-"], &objects);
    let job = until("the Job to end", async || {
        let job: Job = ns.get("file-service-doctor").await;
        let status = job.status?;
        (status.succeeded.is_some() || status.failed.is_some()).then_some(status)
    })
    .await;
    let log = kubectl(&["logs", "-n", &ns.name, "job/file-service-doctor"], "");
    assert_eq!(job.succeeded, Some(1), "{log}");
    for line in [
        "ok       DatabaseLogin",
        "ok       MigrationRights",
        "ok       KafkaLogin",
    ] {
        assert!(log.contains(line), "{log}");
    }
    delete_topic(&topic).await;
}
