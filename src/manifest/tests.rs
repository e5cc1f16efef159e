use secrecy::ExposeSecret;

use super::*;
use crate::settings::{BreakerSettings, Endpoint, SecretFile};

const RELAY: &str = r"
apiVersion: outboxrelay.dev/v1alpha1
kind: OutboxRelay
metadata: { name: file-service, namespace: essays }
spec:
  database:
    host: db.essays.svc
    name: file_service
    credentialsSecretRef: { name: db }
    tls: { ca: { configMapRef: { name: authority, key: ca.crt } } }
  kafka: { bootstrapServers: [ 'kafka:9092' ] }
  topics: [ { name: files, eventTypes: [ Uploaded ] } ]
";
const SECRETS: &str = r"
apiVersion: v1
kind: Secret
metadata: { name: db }
data: { username: cmVsYXk= }
stringData: { password: hunter2 }
---
apiVersion: v1
kind: ConfigMap
metadata: { name: authority }
data: { ca.crt: the certificate }
";

fn load_text(text: &str) -> Result<(RelaySettings, Secrets), String> {
    from_text(text, None, "local").map_err(|error| {
        let source = std::error::Error::source(&error).map(|source| format!(": {source}"));
        format!("{error}{}", source.unwrap_or_default())
    })
}

/// The manifest with one thing changed, and what is said about it.
fn refused(from: &str, to: &str) -> String {
    let text = format!("{RELAY}---{SECRETS}");
    assert!(text.contains(from), "the fixture holds {from}");
    load_text(&text.replacen(from, to, 1)).expect_err("refused")
}

#[test]
fn a_manifest_gets_the_defaults_of_the_crd() {
    let (settings, _) = load_text(&format!("{RELAY}---{SECRETS}")).expect("a good manifest");
    assert_eq!(settings.owner.to_string(), "local/essays/file-service");
    assert_eq!(
        (
            settings.batch_size,
            settings.poll_interval_ms,
            settings.database.schema.as_str()
        ),
        (400, 50, "outbox")
    );
    assert!(matches!(
        settings.database.endpoint,
        Endpoint::Host { port: 5432, .. }
    ));
}

#[test]
fn a_breaker_is_slow_before_it_is_open() {
    let with = |breaker: &str| {
        load_text(&format!("{RELAY}  breaker: {breaker}\n---{SECRETS}"))
            .map(|(settings, _)| settings.breaker)
    };
    assert_eq!(
        with("{}"),
        Ok(BreakerSettings::default()),
        "the defaults of the CRD are those of the code"
    );
    let quick = BreakerSettings {
        slow_after_ms: 500,
        open_after_ms: 1500,
        max_backoff_ms: 60_000,
    };
    assert_eq!(
        with("{ slowAfter: 500ms, openAfter: 1.5s, maxBackoff: 1m }"),
        Ok(quick)
    );
    for (breaker, words) in [
        ("{ slowAfter: 10s }", "less than openAfter"),
        ("{ slowAfter: 50ms }", "at least 100ms"),
        ("{ openAfter: 11m }", "openAfter at most 10m"),
        (
            "{ maxBackoff: 500ms }",
            "spec.breaker.maxBackoff: must be between 1s and 10m",
        ),
        (
            "{ openAfter: soon }",
            "spec.breaker.openAfter: 'soon' is not a duration",
        ),
    ] {
        let refusal = with(breaker).expect_err(breaker);
        assert!(refusal.contains(words), "{refusal}");
    }
}

#[test]
fn a_pooler_is_one_word_and_settings_without_it_are_those_of_before() {
    let (direct, _) = load_text(&format!("{RELAY}---{SECRETS}")).expect("a good manifest");
    let text = serde_yaml::to_string(&direct).expect("plain data");
    assert!(
        !direct.database.pooler && !text.contains("pooler"),
        "{text}"
    );
    let pooled = format!("{RELAY}---{SECRETS}").replacen(
        "    name: file_service\n",
        "    name: file_service\n    pooler: true\n",
        1,
    );
    let (pooled, _) = load_text(&pooled).expect("a good manifest");
    let text = serde_yaml::to_string(&pooled).expect("plain data");
    assert!(
        serde_yaml::from_str::<RelaySettings>(&text)
            .expect("the same")
            .database
            .pooler,
        "{text}"
    );
}

#[test]
fn secrets_come_from_the_other_documents() {
    let (_, secrets) = load_text(&format!("---\n{SECRETS}---{RELAY}")).expect("in any order");
    for (file, content) in [
        (SecretFile::DatabaseUsername, "relay"),
        (SecretFile::DatabasePassword, "hunter2"),
        (SecretFile::DatabaseCa, "the certificate"),
    ] {
        assert_eq!(secrets.get(file).expect("there").expose_secret(), content);
    }
}

#[test]
fn a_secret_of_another_namespace_is_not_taken() {
    let text = format!("{RELAY}---{SECRETS}")
        .replace("{ name: db }\ndata", "{ name: db, namespace: other }\ndata");
    let (_, secrets) = load_text(&text).expect("a good manifest");
    assert!(secrets.get(SecretFile::DatabasePassword).is_err());
}

#[test]
fn a_misspelt_field_is_named_with_those_in_its_place() {
    let error = refused("eventTypes", "eventType");
    assert_eq!(
        error,
        "document 1 (OutboxRelay): spec.topics[0].eventType: is not a field; use one of: \
         aggregateTypes, eventTypes, name, onPoison"
    );
}

#[test]
fn a_value_of_the_wrong_kind_is_named() {
    let error = refused("host: db.essays.svc", "host: db.essays.svc\n    port: many");
    assert!(
        error.starts_with("document 1 (OutboxRelay): spec.database.port: "),
        "{error}"
    );
}

#[test]
fn a_missing_field_is_named() {
    let error = refused("kafka: { bootstrapServers: [ 'kafka:9092' ] }", "");
    assert!(error.contains("kafka"), "{error}");
}

#[test]
fn a_rule_of_the_spec_holds_here_too() {
    let error = refused("    host: db.essays.svc\n", "");
    assert!(
        error.starts_with("document 1 (OutboxRelay): spec.database"),
        "{error}"
    );
}

#[test]
fn a_bad_name_or_another_version_is_refused() {
    assert!(refused("name: file-service", "name: File").contains("metadata.name"));
    assert!(refused("outboxrelay.dev/v1alpha1", "outboxrelay.dev/v9").contains("v9"));
}

#[test]
fn a_file_without_or_with_two_relays_is_refused() {
    assert_eq!(
        load_text(SECRETS).expect_err("none"),
        "the file contains no document of kind OutboxRelay: add one"
    );
    assert!(
        load_text(&format!("{RELAY}---{RELAY}"))
            .expect_err("two")
            .starts_with("documents 1 and 2")
    );
}

#[test]
fn a_broken_secret_is_named_without_its_value() {
    for (from, to) in [
        (
            "stringData: { password: hunter2 }",
            "stringData: { password: [ hunter2 ] }",
        ),
        ("username: cmVsYXk=", "username: hunter2"),
        (
            "stringData: { password: hunter2 }",
            "stringData: { password: \"hunter2",
        ),
        (
            "stringData: { password: hunter2 }",
            "stringData: { password: hunter2: x }",
        ),
    ] {
        let error = refused(from, to);
        assert!(
            error.starts_with("document 2") && !error.contains("hunter2"),
            "{error}"
        );
    }
}

#[test]
fn no_message_says_the_same_twice() {
    for (from, to, words) in [
        (
            "name: file_service",
            "name: file_service\n    schema: Outbox",
            "is not a valid schema name",
        ),
        (
            "topics: [ {",
            "migration: { takeOverFrom: files }\n  topics: [ {",
            "is not an owner",
        ),
        (
            "database:",
            "pollInterval: 1 parsec\n  database:",
            "pollInterval",
        ),
    ] {
        let text = format!("{RELAY}---{SECRETS}").replacen(from, to, 1);
        let error = from_text(&text, None, "local").expect_err("refused");
        let report = format!("{:#}", anyhow::Error::from(error));
        assert_eq!(report.matches(words).count(), 1, "{report}");
    }
}

#[test]
fn a_manifest_that_an_api_server_would_reject_is_rejected() {
    let types: Vec<String> = (0..17).map(|number| format!("T{number}")).collect();
    let refusal = refused("[ Uploaded ]", &format!("[ {} ]", types.join(", ")));
    assert!(
        refusal.contains("spec.topics[0].eventTypes: has 17 items, must have at most 16"),
        "{refusal}"
    );
}
