//! The gate before the relays with real Jobs on the rig's node: what keeps a migration from its end
//! is told by its own reason, and the gate opens by itself when the cause has gone.

use k8s_openapi::api::core::v1::Secret;
use outbox_relay::api::OutboxRelay;
use serde_json::{Value, json};

use crate::harness::{
    kubernetes::{NAME, Namespace},
    pods,
    postgres::{Database, execute},
    rig::certificate,
};

async fn new() -> (Namespace, Database) {
    (Namespace::create().await, Database::create(15).await)
}

/// Without relays: it is the migration that is looked at.
async fn apply(ns: &Namespace, database: &Database, change: impl FnOnce(&mut Value)) {
    ns.create_relay(|relay| {
        pods::real(relay, database, "files");
        relay["spec"]["replicas"] = json!(0);
        change(relay);
    })
    .await;
}

async fn is_refused(ns: &Namespace, reason: &str, next_step: &str) {
    ns.reconcile_until_condition(150, "SchemaReady", &format!("False {reason}"))
        .await;
    let status = ns.get::<OutboxRelay>(NAME).await.status.expect("a status");
    let said = status
        .conditions
        .iter()
        .find(|one| one.type_ == "SchemaReady")
        .expect("said")
        .message
        .clone();
    assert!(said.contains(next_step), "'{next_step}' is not in: {said}");
}

/// The next attempt comes by itself: after 10 s, 20 s, 40 s.
async fn heals(ns: &Namespace) {
    ns.reconcile_until_condition(150, "SchemaReady", "True MigrationSucceeded")
        .await;
    ns.reconcile_until_condition(30, "Ready", "True ScaledToZero")
        .await;
}

#[tokio::test]
async fn a_secret_that_comes_later_and_then_has_a_wrong_password() {
    let (ns, database) = new().await;
    pods::credentials(&ns, "relay", &database.relay, database.password()).await;
    apply(&ns, &database, |_| ()).await;
    is_refused(&ns, "SecretMissing", "credentialsSecretRef").await;
    assert_eq!(ns.condition("SecretsResolved").await, "False SecretMissing");
    pods::credentials(&ns, "owner", &database.owner, "wrong").await;
    is_refused(&ns, "AuthenticationFailed", "password").await;
    ns.api::<Secret>()
        .delete("owner", &Default::default())
        .await
        .expect("deleted");
    pods::credentials(&ns, "owner", &database.owner, database.password()).await;
    heals(&ns).await;
    assert_eq!(ns.condition("SecretsResolved").await, "True SecretsRead");
}

#[tokio::test]
async fn a_user_without_the_right_to_create_the_schema() {
    let (ns, database) = new().await;
    pods::good_credentials(&ns, &database).await;
    let mut admin = database.as_admin().await;
    execute(
        &mut admin,
        &format!("alter database {} owner to current_user", database.name),
    )
    .await;
    apply(&ns, &database, |_| ()).await;
    is_refused(
        &ns,
        "InsufficientPrivilege",
        "grant it create on the database",
    )
    .await;
    execute(
        &mut admin,
        &format!(
            "grant create on database {} to {}",
            database.name, database.owner
        ),
    )
    .await;
    heals(&ns).await;
}

#[tokio::test]
async fn a_table_that_somebody_has_locked() {
    let (ns, database) = new().await;
    let database = database.migrated().await;
    pods::good_credentials(&ns, &database).await;
    let mut admin = database.as_admin().await;
    execute(&mut admin, "delete from outbox.owner").await;
    execute(
        &mut admin,
        "begin; lock table outbox.owner in access exclusive mode",
    )
    .await;
    apply(&ns, &database, |_| ()).await;
    is_refused(&ns, "LockTimeout", "").await;
    execute(&mut admin, "rollback").await;
    heals(&ns).await;
}

#[tokio::test]
async fn a_server_that_cannot_be_reached_and_then_one_whose_certificate_is_not_trusted() {
    let (ns, database) = new().await;
    pods::good_credentials(&ns, &database).await;
    let ca = json!({"metadata": {"name": "ca"}, "data": {"ca.crt": certificate("ca.crt")}});
    ns.create_object::<k8s_openapi::api::core::v1::ConfigMap>(ca)
        .await;
    let mut right = json!(null);
    apply(&ns, &database, |relay| {
        right = relay["spec"]["migration"]["database"]["port"].clone();
        relay["spec"]["migration"]["database"]["port"] = json!(1);
    })
    .await;
    is_refused(&ns, "Unreachable", "").await;
    let untrusted = json!({"port": right, "tls": {"mode": "verify-full"}});
    ns.patch_relay(json!({"spec": {"migration": {"database": untrusted}}}))
        .await;
    is_refused(&ns, "TlsFailed", "").await;
    let trusted = json!({"tls": {"ca": {"configMapRef": {"name": "ca", "key": "ca.crt"}}}});
    ns.patch_relay(json!({"spec": {"migration": {"database": trusted}}}))
        .await;
    heals(&ns).await;
}

#[tokio::test]
async fn a_schema_of_another_relay_and_then_of_a_newer_version() {
    let (ns, database) = new().await;
    let database = database.migrated().await;
    pods::good_credentials(&ns, &database).await;
    apply(&ns, &database, |_| ()).await;
    is_refused(&ns, "SchemaClaimedByOther", "takeOverFrom").await;
    assert_eq!(ns.condition("Stalled").await, "True SchemaClaimedByOther");
    let mut admin = database.as_admin().await;
    execute(
        &mut admin,
        "delete from outbox.owner; update outbox.schema_migrations set compatible_from = 99",
    )
    .await;
    is_refused(&ns, "NewerSchema", "upgrade").await;
    assert_eq!(ns.condition("Stalled").await, "True NewerSchema");
    execute(
        &mut admin,
        "update outbox.schema_migrations set compatible_from = 1",
    )
    .await;
    heals(&ns).await;
    assert_eq!(ns.condition("Stalled").await, "False NotStalled");
}
