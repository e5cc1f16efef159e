//! The chart's rights are enough for all that the operator does, each of them is needed, and none
//! is about Secrets.

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use k8s_openapi::api::{apps::v1::Deployment, core::v1::ResourceQuota};
use serde_json::{Value, json};

use crate::harness::{
    api_proxy::Asked,
    kubernetes::{NAME, Namespace, kubectl, program},
    operator::OperatorProcess,
    relay::until,
};

/// A release of the chart without its Deployment; taken away when it goes out of scope.
struct Release(String);

impl Release {
    fn install(namespace: &str) -> Self {
        Self::install_with(namespace, &[])
    }

    fn install_with(namespace: &str, values: &[&str]) -> Self {
        let rendered = rendered_with(namespace, values);
        kubectl(&["apply", "-f", "-"], &rendered);
        Self(rendered)
    }
}

impl Drop for Release {
    fn drop(&mut self) {
        program("kubectl", &["delete", "--wait=false", "-f", "-"], &self.0);
    }
}

fn rendered(namespace: &str) -> String {
    rendered_with(namespace, &[])
}

fn rendered_with(namespace: &str, values: &[&str]) -> String {
    let chart = concat!(env!("CARGO_MANIFEST_DIR"), "/charts/outbox-operator");
    let files = ["clusterrole", "leader-role", "serviceaccount"]
        .map(|file| format!("templates/{file}.yaml"));
    let shown = files
        .iter()
        .flat_map(|file| ["-s", file])
        .collect::<Vec<_>>();
    let arguments = [
        ["template", namespace, chart, "--namespace", namespace].as_slice(),
        &shown,
        values,
    ]
    .concat();
    let output = program("helm", &arguments, "");
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[tokio::test]
async fn the_rights_of_the_chart_are_enough() {
    let holder = Namespace::create().await;
    let _release = Release::install(&holder.name);
    let user = format!("system:serviceaccount:{0}:{0}-outbox-operator", holder.name);
    let ns = Namespace::create_as(Some(user)).await;
    ns.create_relay(|relay| relay["spec"]["migration"] = json!({"policy": "Apply"}))
        .await;
    ns.reconcile().await;
    ns.patch_relay(json!({"spec": {"migration": {"policy": "Never"}, "replicas": 1}}))
        .await;
    let wishes = |wished: bool| json!({"networkPolicy": {"enabled": wished}, "monitoring": {"podMonitor": wished}});
    ns.patch_relay(json!({"spec": wishes(true)})).await;
    ns.settle().await;
    ns.patch_relay(json!({"spec": wishes(false)})).await;
    ns.settle().await;
    ns.patch_relay(json!({"spec": {"batchSize": 7, "replicas": 0, "template": {"serviceAccountName": "default"}}})).await;
    ns.settle().await;
    ns.settle().await;
    assert_eq!(
        ns.get::<Deployment>("file-service-relay")
            .await
            .spec
            .replicas,
        Some(0)
    );
    let writes = ns.writes();
    for kind in [
        "/jobs",
        "/configmaps/",
        "/scale",
        "/status",
        "/events",
        "/networkpolicies/",
        "/serviceaccounts/",
    ] {
        assert!(
            writes.iter().any(|write| write.contains(kind)),
            "{kind} was not tried: {writes:?}"
        );
    }
}

/// The RoleBinding is deleted, which also happens when a person deletes the namespace.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_namespace_whose_rights_are_gone_is_told_once_and_disturbs_no_other() {
    let (ns, shut) = (Namespace::create().await, Namespace::create().await);
    let both = format!("watchNamespaces={{{},{}}}", ns.name, shut.name);
    let _release = Release::install_with(&ns.name, &["--set", &both, "--set", "clusterName=it"]);
    let binding = format!("{}-outbox-operator", ns.name);
    let (user, watched) = (
        format!("system:serviceaccount:{}:{binding}", ns.name),
        format!("{},{}", ns.name, shut.name),
    );
    let rounds = [
        "--watch-seconds",
        "10",
        "--watch-namespaces",
        &watched,
        "--cluster-name",
        "it",
    ];
    let mut operator = OperatorProcess::start_as(&ns.name, &user, &rounds).await;
    until("it to be ready", async || {
        (operator.leads().await && operator.is_fine("/readyz").await).then_some(())
    })
    .await;
    operator.signal("KILL");
    operator.ended().await;

    let kept = kubectl(
        &[
            "get",
            "rolebinding",
            "-n",
            &shut.name,
            &binding,
            "-o",
            "json",
        ],
        "",
    );
    kubectl(&["delete", "rolebinding", "-n", &shut.name, &binding], "");
    operator.start_again();
    until("it to be ready without that namespace", async || {
        (operator.leads().await && operator.is_fine("/readyz").await).then_some(())
    })
    .await;
    ns.create_relay(|_| ()).await;
    until("the relays of the other", async || {
        ns.get_opt::<Deployment>(&format!("{NAME}-relay")).await
    })
    .await;
    // Three rounds of silence are too many.
    let (start, place) = (Instant::now(), format!("/namespaces/{}/", shut.name));
    until("refusals after that", async || {
        assert!(
            operator.is_fine("/healthz").await,
            "after {:?}: {:?}",
            start.elapsed(),
            operator.get("/healthz").await
        );
        let late = |asked: &Asked| {
            asked.path.contains(&place) && asked.at > start + Duration::from_secs(35)
        };
        operator.proxy.asked().iter().any(late).then_some(())
    })
    .await;
    let refused = async |count: u32| {
        let line = format!("outbox_operator_namespaces_refused {count}");
        operator
            .get("/metrics")
            .await
            .is_some_and(|text| text.lines().any(|told| told == line))
    };
    assert!(refused(1).await, "{:?}", operator.get("/metrics").await);
    let told = operator
        .log()
        .lines()
        .filter(|line| line.contains(&shut.name) && line.contains("forbidden"))
        .count();
    assert_eq!(told, 1, "{}", operator.log());

    let mut binding: Value = serde_json::from_str(&kept).expect("JSON");
    binding["metadata"] = json!({"name": binding["metadata"]["name"], "namespace": shut.name});
    kubectl(&["create", "-f", "-"], &binding.to_string());
    shut.create_relay(|_| ()).await;
    until("the relays of a namespace that is back", async || {
        shut.get_opt::<Deployment>(&format!("{NAME}-relay")).await
    })
    .await;
    until("it to be seen again", async || {
        refused(0).await.then_some(())
    })
    .await;
}

/// Rights as `"verb group/resource"`.
type Rights = BTreeSet<String>;

/// What the operator may be given at most, whatever it grows to; docs/security.md explains it.
/// Nothing about Secrets, no `*`, no `update` but of its own Lease.
const AT_MOST: &[(&str, &str)] = &[
    ("outboxrelay.dev/outboxrelays", "get list watch"),
    ("outboxrelay.dev/outboxrelays/status", "patch"),
    ("apps/deployments", "get list watch create patch"),
    ("apps/deployments/scale", "patch"),
    ("apps/replicasets", "get list"),
    ("batch/jobs", "get list watch create patch delete"),
    ("/configmaps", "get list create patch delete"),
    ("/services", "get create patch delete"),
    ("/serviceaccounts", "get create patch delete"),
    ("policy/poddisruptionbudgets", "get create patch delete"),
    (
        "networking.k8s.io/networkpolicies",
        "get create patch delete",
    ),
    (
        "monitoring.coreos.com/podmonitors",
        "get create patch delete",
    ),
    ("/pods", "get list watch"),
    ("/namespaces", "get"),
    ("/events", "list"),
    ("events.k8s.io/events", "create patch"),
    ("coordination.k8s.io/leases", "get create update"),
];

fn texts(value: &Value) -> Vec<&str> {
    value
        .as_array()
        .map(|list| list.iter().filter_map(Value::as_str).collect())
        .unwrap_or_default()
}

/// The rules of the chart's ClusterRole.
fn rules() -> Vec<Value> {
    let rendered = rendered("x");
    let documents = serde_yaml::Deserializer::from_str(&rendered)
        .map(|one| <Value as serde::Deserialize>::deserialize(one).expect("YAML"));
    documents
        .flat_map(|object| object["rules"].as_array().cloned().unwrap_or_default())
        .collect()
}

fn granted() -> Rights {
    let of = |rule: &Value| {
        let (groups, resources, verbs) = (
            texts(&rule["apiGroups"]),
            texts(&rule["resources"]),
            texts(&rule["verbs"]),
        );
        let objects = groups.iter().flat_map(|group| {
            resources
                .iter()
                .map(move |resource| format!("{group}/{resource}"))
        });
        objects
            .flat_map(|object| {
                verbs
                    .iter()
                    .map(move |verb| format!("{verb} {object}"))
                    .collect::<Vec<_>>()
            })
            .collect::<Vec<_>>()
    };
    rules().iter().flat_map(of).collect()
}

#[test]
fn the_chart_grants_no_more_than_was_agreed() {
    let right = |(object, verbs): &(&str, &'static str)| {
        verbs
            .split(' ')
            .map(move |verb| format!("{verb} {object}"))
            .collect::<Vec<_>>()
    };
    let at_most: Rights = AT_MOST.iter().flat_map(right).collect();
    let granted = granted();
    assert!(granted.len() > 25, "{granted:?}");
    assert_eq!(
        granted.difference(&at_most).collect::<Vec<_>>(),
        [] as [&String; 0]
    );
    for rule in rules()
        .iter()
        .filter(|rule| texts(&rule["resources"]) == ["namespaces"])
    {
        assert_eq!(texts(&rule["resourceNames"]), ["kube-system"]);
    }
}

/// Rows of the page's table, and rules of the chart: objects without their groups, with their
/// verbs.
#[test]
fn the_page_on_security_says_what_the_chart_grants() {
    let page = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/security.md"))
        .expect("a page");
    let rows = page.lines().filter(|line| line.starts_with("| `"));
    let documented: Rights = rows.flat_map(documented).collect();
    let without_group = |right: &String| {
        right
            .split_once(' ')
            .map(|(verb, object)| format!("{verb} {}", object.split_once('/').expect("a group").1))
    };
    assert_eq!(
        documented,
        granted().iter().filter_map(without_group).collect(),
        "in docs/security.md, and granted"
    );
}

fn documented(row: &str) -> Vec<String> {
    let cells: Vec<&str> = row.trim_matches('|').split('|').map(str::trim).collect();
    let objects = cells[0]
        .split('`')
        .skip(1)
        .step_by(2)
        .filter(|name| !name.contains('.'));
    objects
        .flat_map(|object| {
            cells[1]
                .split(", ")
                .map(move |verb| format!("{verb} {object}"))
        })
        .collect()
}

/// The right that a request needs.
fn needed((method, asked): &(String, String)) -> String {
    let (path, query) = asked.split_once('?').unwrap_or((asked, ""));
    let steps: Vec<&str> = path.trim_matches('/').split('/').collect();
    let (group, steps) = match steps.as_slice() {
        ["api", _, rest @ ..] => ("", rest),
        ["apis", group, _, rest @ ..] => (*group, rest),
        other => panic!("{other:?} is no path of the API"),
    };
    let steps = match steps {
        ["namespaces", _, rest @ ..] if !rest.is_empty() => rest,
        all => all,
    };
    let verb = match (method.as_str(), steps.len()) {
        ("GET", 1) if query.contains("watch=") => "watch",
        ("GET", 1) => "list",
        ("GET", _) => "get",
        ("POST", _) => "create",
        ("PATCH", _) => "patch",
        ("PUT", _) => "update",
        ("DELETE", _) => "delete",
        other => panic!("{other:?} of {asked}"),
    };
    let sub = steps
        .get(2)
        .map(|sub| format!("/{sub}"))
        .unwrap_or_default();
    format!("{verb} {group}/{}{sub}", steps[0])
}

/// An OutboxRelay that lives through what can happen to it, under the chart's account.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_right_of_the_chart_is_used_and_no_other() {
    let ns = Namespace::create().await;
    let _release = Release::install(&ns.name);
    let user = format!("system:serviceaccount:{0}:{0}-outbox-operator", ns.name);
    let operator = OperatorProcess::start_anywhere(&ns.name, Some(user)).await;
    let used = || operator.requests().iter().map(needed).collect::<Rights>();
    let uses = |right: &'static str| {
        let used = &used;
        async move { until(right, async || used().contains(right).then_some(())).await }
    };

    ns.create_object::<ResourceQuota>(
        json!({"metadata": {"name": "no-pods"}, "spec": {"hard": {"pods": "0"}}}),
    )
    .await;
    ns.create_relay(|relay| relay["spec"]["migration"] = json!({"policy": "Apply"}))
        .await;
    uses("list /events").await;
    ns.patch_relay(json!({"spec": {"database": {"name": "other"}}}))
        .await;
    uses("delete batch/jobs").await;
    ns.patch_relay(json!({"spec": {"migration": {"policy": "Never"}}}))
        .await;
    uses("create apps/deployments").await;
    let wishes = |wished: bool| json!({"spec": {"networkPolicy": {"enabled": wished}, "monitoring": {"podMonitor": wished}}});
    ns.patch_relay(wishes(true)).await;
    uses("patch networking.k8s.io/networkpolicies").await;
    uses("patch monitoring.coreos.com/podmonitors").await;
    ns.patch_relay(wishes(false)).await;
    uses("delete networking.k8s.io/networkpolicies").await;
    uses("delete monitoring.coreos.com/podmonitors").await;
    ns.patch_relay(json!({"spec": {"batchSize": 7, "replicas": 0, "template": {"serviceAccountName": "default"}}})).await;
    uses("delete /configmaps").await;
    uses("delete /serviceaccounts").await;
    // A count that is set back twice is one Event that is counted.
    for replicas in ["--replicas=3", "--replicas=4"] {
        kubectl(
            &[
                "scale",
                "deployment",
                "-n",
                &ns.name,
                &format!("{NAME}-relay"),
                replicas,
            ],
            "",
        );
        until("the count to be set back", async || {
            (ns.get::<Deployment>(&format!("{NAME}-relay"))
                .await
                .spec
                .replicas
                == Some(0))
            .then_some(())
        })
        .await;
    }
    uses("patch events.k8s.io/events").await;
    assert_eq!(used(), granted(), "used, and granted by the chart");
}
