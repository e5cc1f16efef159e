//! The chart on separate API servers: the API server admits what each set of values renders, and
//! the chart is installed, upgraded, removed and installed again.

use std::{
    path::Path,
    process::{Command, Output},
};

use axum::{Router, http::StatusCode};
use serde_json::{Value, json};

use crate::harness::{
    api_server::ApiServer,
    kubernetes::{manifest, program},
    prometheus::output_text,
    server::free_port,
};

const CHART: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/charts/outbox-operator");
const CRD: &str = "outboxrelays.outboxrelay.dev";
const SPACE: &str = "outbox-system";

#[track_caller]
fn must(output: &Output) -> String {
    assert!(output.status.success(), "{}", output_text(output));
    output_text(output)
}

/// Starts an API server with the CRDs of the Prometheus Operator and a namespace that enforces the
/// `restricted` Pod Security Standard.
async fn cluster() -> ApiServer {
    let server = ApiServer::start().await;
    let monitoring = concat!(env!("CARGO_MANIFEST_DIR"), "/target/tools/monitoring-crds");
    must(&server.kubectl(&["create", "-f", monitoring], ""));
    must(&server.kubectl(
        &[
            "wait",
            "--for=condition=Established",
            "crd",
            "--all",
            "--timeout=60s",
        ],
        "",
    ));
    let labels = json!({"pod-security.kubernetes.io/enforce": "restricted",
        "pod-security.kubernetes.io/warn": "restricted"});
    let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": SPACE,
        "labels": labels}});
    must(&server.kubectl(&["create", "-f", "-"], &namespace.to_string()));
    // No controller creates it here.
    must(&server.kubectl(&["create", "serviceaccount", "default", "-n", SPACE], ""));
    server
}

fn everything() -> Value {
    json!({
        "image": {"repository": "registry.invalid/outbox-relay", "tag": "1.2.3",
            "pullPolicy": "Always"},
        "imagePullSecrets": [{"name": "registry"}],
        "relay": {"image": "registry.invalid/outbox-relay:1.2.4",
            "allowedImages": ["registry.invalid/outbox-relay:*"]},
        "upgrade": {"maxConcurrent": 2},
        "monitoringNamespace": "monitoring",
        "clusterName": "blue",
        "log": "debug",
        "resources": {"requests": {"cpu": "1"}, "limits": {"memory": "1Gi"}},
        "nodeSelector": {"kubernetes.io/os": "linux"},
        "tolerations": [{"key": "a", "operator": "Exists"}],
        "affinity": {"nodeAffinity": {}},
        "priorityClassName": "system-cluster-critical",
        "podLabels": {"team": "platform"},
        "podAnnotations": {"a/b": "c"},
        "serviceAccount": {"annotations": {"a/b": "c"}},
        "networkPolicy": {
            "enabled": true,
            "apiServerPorts": [6443],
            "apiServerAddresses": ["10.0.0.1/32", "fd00::/8"],
            "metricsFrom": [
                {"namespaceSelector": {
                    "matchLabels": {"kubernetes.io/metadata.name": "monitoring"},
                }},
            ],
        },
        "monitoring": {
            "labels": {"release": "prometheus"},
            "interval": "15s",
            "serviceMonitor": {"enabled": true},
            "podMonitor": {"enabled": true},
            "prometheusRule": {"enabled": true, "runbookUrl": "https://wiki.invalid"},
            "dashboards": {"enabled": true, "labels": {"grafana_dashboard": "yes"},
                "annotations": {"folder": "Outbox"}},
        },
        "crds": {"install": true},
    })
}

/// Sets of values: none, all, and each alone.
fn matrix() -> Vec<Value> {
    let everything = everything();
    let parts = everything
        .as_object()
        .expect("values")
        .iter()
        .map(|(name, value)| json!({name: value}));
    let monitoring = everything["monitoring"].as_object().expect("values");
    let monitors = monitoring
        .iter()
        .filter(|(_, value)| value.is_object())
        .map(|(name, value)| json!({"monitoring": {name: value}}));
    let more = [
        json!({"crds": {"install": false}}),
        json!({"networkPolicy": {"enabled": true}}),
        json!({"monitoring": {"dashboards": {"enabled": true, "labels": {}}}}),
    ];
    let all = [json!({}), everything.clone()]
        .into_iter()
        .chain(parts)
        .chain(monitors)
        .chain(more);
    all.collect()
}

#[tokio::test]
async fn the_api_server_admits_the_chart_with_any_values_without_a_warning() {
    let server = cluster().await;
    for values in matrix() {
        let file = server.file("values.yaml", &values.to_string());
        must(&server.helm(&["lint", "--strict", CHART, "-f", &file]));
        let rendered = server.helm(&[
            "template",
            "outbox-operator",
            CHART,
            "-n",
            SPACE,
            "-f",
            &file,
        ]);
        assert!(
            rendered.status.success(),
            "{values}: {}",
            output_text(&rendered)
        );
        let rendered = String::from_utf8(rendered.stdout).expect("UTF-8");
        let applied = server.kubectl(
            &[
                "apply",
                "--server-side",
                "--dry-run=server",
                "-n",
                SPACE,
                "-f",
                "-",
            ],
            &rendered,
        );
        let output_text = output_text(&applied);
        assert!(
            applied.status.success() && !output_text.contains("Warning"),
            "{values}: {output_text}"
        );
    }
}

#[test]
fn values_of_a_wrong_form_are_refused_by_name() {
    for (value, named) in [
        ("replicaCount=2", "replicaCount"),
        ("relay.imagee=a", "imagee"),
        ("clusterName=Not A Name", "clusterName"),
        ("monitoring.interval=soon", "interval"),
        (
            "monitoring.prometheusRule.runbookUrl=https://a.invalid/",
            "runbookUrl",
        ),
        (
            "networkPolicy.apiServerAddresses={10.0.0.1}",
            "apiServerAddresses",
        ),
        ("networkPolicy.metricsFrom[0].from=a", "metricsFrom"),
    ] {
        let output = program("helm", &["template", "x", CHART, "--set", value], "");
        assert!(
            !output.status.success() && output_text(&output).contains(named),
            "{value}: {}",
            output_text(&output)
        );
    }
}

/// Writes the chart of an earlier version, whose CRD lacks a field. Returns its folder.
fn earlier(server: &ApiServer) -> String {
    let of_copy = Path::new(&server.file("chart", "")).with_file_name("earlier");
    must(
        &Command::new("cp")
            .args(["-r", CHART])
            .arg(&of_copy)
            .output()
            .expect("cp"),
    );
    let file = of_copy.join(format!("files/{CRD}.yaml"));
    let mut crd: Value =
        serde_yaml::from_str(&std::fs::read_to_string(&file).expect("the chart's CRD"))
            .expect("YAML");
    let spec = crd
        .pointer_mut("/spec/versions/0/schema/openAPIV3Schema/properties/spec/properties")
        .expect("fields");
    spec.as_object_mut()
        .expect("a map")
        .remove("networkPolicy")
        .expect("a field of today");
    std::fs::write(file, serde_yaml::to_string(&crd).expect("YAML")).expect("written");
    of_copy.display().to_string()
}

#[test]
fn the_operator_is_configured_for_a_pod_monitor_of_all_relays() {
    let tells = |values: &str| {
        let rendered = program(
            "helm",
            &[
                "template",
                "x",
                CHART,
                "-s",
                "templates/deployment.yaml",
                "--set",
                values,
            ],
            "",
        );
        assert!(rendered.status.success(), "{}", output_text(&rendered));
        output_text(&rendered).contains("RELAYS_MONITORED")
    };
    assert!(tells("monitoring.podMonitor.enabled=true"));
    assert!(!tells("monitoring.serviceMonitor.enabled=true"));
}

/// Identifies an OutboxRelay object: its uid and spec.
fn relay(server: &ApiServer) -> String {
    must(&server.kubectl(
        &[
            "get",
            "outboxrelay",
            "file-service",
            "-n",
            "default",
            "-o",
            "jsonpath={.metadata.uid}",
        ],
        "",
    ))
}

fn schema_in(server: &ApiServer) -> Value {
    let crd = must(&server.kubectl(&["get", "crd", CRD, "-o", "json"], ""));
    let crd: Value = serde_json::from_str(&crd).expect("JSON");
    crd["spec"]["versions"][0]["schema"].clone()
}

fn schema_of_chart() -> Value {
    let text =
        std::fs::read_to_string(format!("{CHART}/files/{CRD}.yaml")).expect("the chart's CRD");
    serde_yaml::from_str::<Value>(&text).expect("YAML")["spec"]["versions"][0]["schema"].clone()
}

/// The first difference of two values. 64 and 64.0 are equal.
fn difference(path: &str, a: &Value, b: &Value) -> Option<String> {
    match (a, b) {
        (Value::Object(of_a), Value::Object(of_b)) => {
            let mut names = of_a
                .keys()
                .chain(of_b.keys().filter(|name| !of_a.contains_key(*name)));
            names.find_map(|name| difference(&format!("{path}.{name}"), &a[name], &b[name]))
        }
        (Value::Array(of_a), Value::Array(of_b)) if of_a.len() == of_b.len() => of_a
            .iter()
            .zip(of_b)
            .enumerate()
            .find_map(|(at, (a, b))| difference(&format!("{path}[{at}]"), a, b)),
        _ => (a != b && a.as_f64().is_none_or(|number| Some(number) != b.as_f64()))
            .then(|| format!("{path}: {a} and {b}")),
    }
}

fn is_there(server: &ApiServer, object: &str) -> bool {
    server
        .kubectl(&["get", object, "-n", SPACE], "")
        .status
        .success()
}

#[tokio::test]
async fn outboxrelays_survive_upgrade_removal_and_reinstallation_of_the_chart() {
    let server = cluster().await;
    let release = |verb: &str, name: &str, chart: &str, more: &[&str]| {
        server.helm(&[[verb, name, chart, "-n", SPACE].as_slice(), more].concat())
    };
    let remove = |name: &str| {
        must(&server.helm(&["uninstall", name, "-n", SPACE]));
        assert!(
            !is_there(&server, &format!("deployment/{name}")),
            "{name} was removed"
        );
    };

    must(&release(
        "install",
        "outbox-operator",
        &earlier(&server),
        &[],
    ));
    must(&server.kubectl(
        &[
            "wait",
            "--for=condition=Established",
            &format!("crd/{CRD}"),
            "--timeout=60s",
        ],
        "",
    ));
    let mut manifest = manifest();
    manifest["spec"]
        .as_object_mut()
        .expect("a map")
        .remove("migration");
    must(&server.kubectl(
        &["create", "-n", "default", "-f", "-"],
        &manifest.to_string(),
    ));
    let (uid, before) = (relay(&server), schema_in(&server));
    let values = server.file("values.yaml", &everything().to_string());
    must(&release(
        "upgrade",
        "outbox-operator",
        CHART,
        &["-f", &values],
    ));
    assert!(
        difference("", &before, &schema_of_chart()).is_some(),
        "the earlier chart has another CRD"
    );
    assert_eq!(
        difference("", &schema_in(&server), &schema_of_chart()),
        None,
        "the CRD is upgraded with the chart"
    );
    assert!(
        is_there(&server, "deployment/outbox-operator")
            && is_there(&server, "prometheusrule/outbox-operator")
    );

    remove("outbox-operator");
    assert_eq!(relay(&server), uid, "removed");
    must(&release("install", "outbox-operator", CHART, &[]));
    assert_eq!(relay(&server), uid, "installed again");
    remove("outbox-operator");

    let refused = release("install", "another-outbox-operator", CHART, &[]);
    assert!(
        !refused.status.success() && output_text(&refused).contains("meta.helm.sh/release-name"),
        "{}",
        output_text(&refused)
    );
    must(&release(
        "install",
        "another-outbox-operator",
        CHART,
        &["--take-ownership"],
    ));
    remove("another-outbox-operator");
    must(&release(
        "install",
        "third-outbox-operator",
        CHART,
        &["--set", "crds.install=false"],
    ));
    remove("third-outbox-operator");
    assert_eq!(relay(&server), uid, "installed under other names");
}

/// Starts a server that answers all requests with this status. Returns its address.
async fn operator_answering(status: u16) -> String {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0")
        .await
        .expect("a free port");
    let address = listener.local_addr().expect("bound").to_string();
    let answer = move || async move { StatusCode::from_u16(status).expect("a status") };
    tokio::spawn(async move { axum::serve(listener, Router::new().fallback(answer)).await });
    address
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn helm_test_finds_an_unreachable_or_unhealthy_operator_and_a_missing_crd() {
    let server = ApiServer::start().await;
    let check = |operator: &str| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_outbox-operator"));
        command
            .args(["check", "--patience", "1", "--operator", operator])
            .env("KUBECONFIG", server.kubeconfig())
            .output()
            .expect("the program")
    };
    let (well, unwell) = (operator_answering(200).await, operator_answering(503).await);
    let nowhere = format!("127.0.0.1:{}", free_port().await);
    for (operator, complaint) in [
        (&nowhere, "failed to reach"),
        (&unwell, "responded to /healthz with 503"),
        (&well, "does not serve outboxrelays"),
    ] {
        let output = check(operator);
        assert!(
            !output.status.success() && output_text(&output).contains(complaint),
            "{}",
            output_text(&output)
        );
    }
    must(&server.kubectl(&["create", "-f", &format!("{CHART}/files/{CRD}.yaml")], ""));
    must(&server.kubectl(
        &[
            "wait",
            "--for=condition=Established",
            &format!("crd/{CRD}"),
            "--timeout=60s",
        ],
        "",
    ));
    must(&check(&well));
}
