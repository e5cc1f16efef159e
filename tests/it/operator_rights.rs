//! The chart's rights are enough for all that the operator does, and hold nothing about Secrets.

use k8s_openapi::api::apps::v1::Deployment;
use serde_json::{Value, json};

use crate::harness::kubernetes::{Namespace, kubectl, program};

/// A release of the chart without its Deployment; taken away when it goes out of scope.
struct Release(String);

impl Release {
    fn install(namespace: &str) -> Self {
        let rendered = rendered(namespace, &[]);
        kubectl(&["apply", "-f", "-"], &rendered);
        Self(rendered)
    }
}

impl Drop for Release {
    fn drop(&mut self) {
        program("kubectl", &["delete", "--wait=false", "-f", "-"], &self.0);
    }
}

fn rendered(namespace: &str, more: &[&str]) -> String {
    let chart = concat!(env!("CARGO_MANIFEST_DIR"), "/charts/outbox-operator");
    let mut arguments = vec!["template", namespace, chart, "--namespace", namespace, "--set", "clusterName=it"];
    arguments.extend(["-s", "templates/clusterrole.yaml", "-s", "templates/serviceaccount.yaml"]);
    arguments.extend(more);
    let output = program("helm", &arguments, "");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[tokio::test]
async fn the_rights_of_the_chart_are_enough() {
    let holder = Namespace::create().await;
    let _release = Release::install(&holder.name);
    let user = format!("system:serviceaccount:{0}:{0}-outbox-operator", holder.name);
    let ns = Namespace::create_as(Some(user)).await;
    ns.create_relay(|relay| relay["spec"]["migration"] = json!({"policy": "Apply"})).await;
    ns.pass().await;
    ns.patch_relay(json!({"spec": {"migration": {"policy": "Never"}, "replicas": 1}})).await;
    let wishes = |wished: bool| json!({"networkPolicy": {"enabled": wished}, "monitoring": {"podMonitor": wished}});
    ns.patch_relay(json!({"spec": wishes(true)})).await;
    ns.settle().await;
    ns.patch_relay(json!({"spec": wishes(false)})).await;
    ns.settle().await;
    ns.patch_relay(json!({"spec": {"batchSize": 7, "replicas": 0, "template": {"serviceAccountName": "default"}}})).await;
    ns.settle().await;
    ns.settle().await;
    assert_eq!(ns.get::<Deployment>("file-service-relay").await.spec.replicas, Some(0));
    let writes = ns.writes();
    for kind in ["/jobs", "/configmaps/", "/scale", "/status", "/events", "/networkpolicies/", "/serviceaccounts/"] {
        assert!(writes.iter().any(|write| write.contains(kind)), "{kind} was not tried: {writes:?}");
    }
}

#[test]
fn no_rule_of_the_chart_names_secrets_or_everything() {
    let rendered = rendered("x", &[]);
    let documents = serde_yaml::Deserializer::from_str(&rendered).map(|one| <Value as serde::Deserialize>::deserialize(one).expect("YAML"));
    let rules: Vec<Value> = documents.flat_map(|object| object["rules"].as_array().cloned().unwrap_or_default()).collect();
    assert!(rules.len() > 10);
    for rule in rules {
        let text = rule.to_string();
        assert!(!text.contains("secrets") && !text.contains('*'), "{text}");
    }
}

#[test]
fn the_chart_is_clean_and_refuses_values_of_other_names() {
    let chart = concat!(env!("CARGO_MANIFEST_DIR"), "/charts/outbox-operator");
    let lint = program("helm", &["lint", "--strict", chart], "");
    assert!(lint.status.success(), "{}", String::from_utf8_lossy(&lint.stdout));
    let typo = program("helm", &["template", "x", chart, "--set", "relay.imagee=a"], "");
    assert!(!typo.status.success());
}
