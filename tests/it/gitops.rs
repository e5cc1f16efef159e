//! Runs the health script for Argo CD of docs/gitops.md on OutboxRelays that the operator has
//! reconciled.

use std::process::Command;

use k8s_openapi::api::core::v1::Service;
use outbox_relay::api::OutboxRelay;
use serde_json::{Value, json};

use crate::harness::kubernetes::{NAME, Namespace};

/// The script of the page.
fn script() -> String {
    let page = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/gitops.md"))
        .expect("a page");
    page.split_once("```lua\n")
        .and_then(|(_, rest)| rest.split_once("```"))
        .expect("a script")
        .0
        .to_owned()
}

/// Formats a value as Lua.
fn lua(value: &Value) -> String {
    match value {
        Value::Null => "nil".to_owned(),
        // JSON and Lua have equal escapes, except for characters beyond ASCII, which both accept
        // unescaped.
        Value::Bool(_) | Value::Number(_) | Value::String(_) => value.to_string(),
        Value::Array(list) => format!(
            "{{{}}}",
            list.iter().map(lua).collect::<Vec<_>>().join(", ")
        ),
        Value::Object(map) => {
            let fields = map
                .iter()
                .map(|(name, value)| format!("[{}] = {}", json!(name), lua(value)));
            format!("{{{}}}", fields.collect::<Vec<_>>().join(", "))
        }
    }
}

/// Runs the script on an object. Returns status and message.
fn health(object: &Value) -> (String, String) {
    let program = format!(
        "obj = {}\nlocal function judge()\n{}\nend\nlocal health = \
         judge()\nprint(health.status)\nprint(health.message)",
        lua(object),
        script()
    );
    let output = Command::new("lua5.1")
        .args(["-e", &program])
        .output()
        .expect("tests/tools brings lua5.1");
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let (status, message) = text.split_once('\n').expect("two lines");
    (status.to_owned(), message.trim_end().to_owned())
}

async fn live(ns: &Namespace) -> Value {
    serde_json::to_value(ns.get::<OutboxRelay>(NAME).await).expect("JSON")
}

#[tokio::test]
async fn argo_cd_sees_an_outboxrelay_as_the_operator_does() {
    let ns = Namespace::create().await;
    ns.create_relay(|_| ()).await;
    assert_eq!(
        health(&live(&ns).await),
        (
            "Progressing".to_owned(),
            "The operator has not observed this generation yet.".to_owned()
        )
    );
    ns.settle().await;
    let (status, message) = health(&live(&ns).await);
    assert!(
        status == "Progressing" && !message.is_empty(),
        "pods that cannot be scheduled: {status}: {message}"
    );
    ns.patch_relay(json!({"spec": {"replicas": 0}})).await;
    assert_eq!(
        health(&live(&ns).await).1,
        "The operator has not observed this generation yet.",
        "a new generation"
    );
    ns.reconcile_until_condition(60, "Ready", "True ScaledToZero")
        .await;
    let requested = live(&ns).await;
    assert_eq!(health(&requested).0, "Healthy", "scaled to 0: {requested}");
    ns.patch_relay(
        json!({"metadata": {"annotations": {"outboxrelay.dev/paused": "true"}},
        "spec": {"replicas": 2}}),
    )
    .await;
    ns.settle().await;
    let paused = live(&ns).await;
    assert_eq!(health(&paused).0, "Suspended", "paused: {paused}");
}

#[tokio::test]
async fn argo_cd_sees_a_stalled_outboxrelay_as_degraded() {
    let ns = Namespace::create().await;
    ns.create_object::<Service>(
        json!({"metadata": {"name": format!("{NAME}-relay")}, "spec": {"ports": [{"port": 80}]}}),
    )
    .await;
    ns.create_relay(|_| ()).await;
    ns.failing_reconcile().await;
    let (status, message) = health(&live(&ns).await);
    assert!(
        status == "Degraded" && message.contains("the name is taken"),
        "{status}: {message}"
    );
}

fn conditions(stalled: &str, ready: &str) -> Value {
    let condition = |name: &str, status: &str| {
        json!({"type": name, "status": status, "reason": "R",
        "message": format!("{name} \"says\" so")})
    };
    json!({"metadata": {"generation": 2}, "status": {"observedGeneration": 2,
        "conditions": [condition("Stalled", stalled), condition("Ready", ready)]}})
}

#[test]
fn each_state_has_its_health() {
    for (stalled, ready, expected) in [
        ("False", "True", ("Healthy", "Ready \"says\" so")),
        ("False", "False", ("Progressing", "Ready \"says\" so")),
        ("Unknown", "Unknown", ("Progressing", "Ready \"says\" so")),
        ("True", "False", ("Degraded", "Stalled \"says\" so")),
    ] {
        assert_eq!(
            health(&conditions(stalled, ready)),
            (expected.0.to_owned(), expected.1.to_owned()),
            "Stalled {stalled}, Ready {ready}"
        );
    }
    let new = json!({"metadata": {"generation": 1}, "status": {"observedGeneration": -1}});
    assert_eq!(health(&new).0, "Progressing");
    assert_eq!(
        health(&json!({"metadata": {"generation": 1}})).0,
        "Progressing"
    );
}
