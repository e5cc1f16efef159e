//! What the operator makes of a manifest, as an API server sees it: the children with their hashes,
//! the settings in them, and the writes, Events and status of each pass. Messages for people and
//! times are not compared.

use std::collections::BTreeMap;

use outbox_relay::operator::{Installation, Operator, RelayKey, Requeue, Settings};
use serde_json::{Value, json};

use super::{golden::compare, remove};
use crate::harness::fake_api::FakeApi;

const NAMESPACE: &str = "essays";
/// Metadata that the API server sets.
const OF_THE_SERVER: [&str; 4] = ["uid", "generation", "creationTimestamp", "managedFields"];
/// After this many passes nothing is left to do for a new OutboxRelay.
const PASSES: usize = 4;

/// An operator, and one OutboxRelay on an API server in memory.
struct Stage {
    fake: FakeApi,
    operator: Operator,
    path: String,
    name: String,
}

impl Stage {
    fn with(mut manifest: Value) -> Self {
        let name = manifest["metadata"]["name"]
            .as_str()
            .expect("a name")
            .to_owned();
        let path =
            format!("/apis/outboxrelay.dev/v1alpha1/namespaces/{NAMESPACE}/outboxrelays/{name}");
        let metadata = manifest["metadata"].as_object_mut().expect("metadata");
        metadata.insert("namespace".to_owned(), json!(NAMESPACE));
        metadata.insert(
            "uid".to_owned(),
            json!("11111111-2222-3333-4444-555555555555"),
        );
        metadata.insert("generation".to_owned(), json!(1));
        let fake = FakeApi::default();
        fake.world().objects.insert(path.clone(), manifest);
        let installation = Installation {
            relay_image: "registry.test/relay:1".to_owned(),
            allowed_images: vec!["registry.test/*".to_owned()],
            cluster_name: "cluster".to_owned(),
            upgrades_max: 5,
            namespace: Some("outbox-system".to_owned()),
            monitoring_namespace: Some("monitoring".to_owned()),
            relays_monitored: false,
        };
        let settings = Settings {
            installation,
            operator_name: "outbox-operator".to_owned(),
            pod_name: Some("pod".to_owned()),
        };
        Self {
            operator: Operator::new(fake.client(), settings),
            fake,
            path,
            name,
        }
    }

    /// Makes one pass and returns what it did. Afterwards Jobs complete and Deployments roll out.
    async fn pass(&self) -> Value {
        {
            let mut world = self.fake.world();
            world.writes.clear();
            world.events.clear();
        }
        let key = RelayKey::new(NAMESPACE, &self.name);
        self.operator.mark_changed(&key);
        let again = match Box::pin(self.operator.reconcile(&key)).await {
            Ok(Requeue::After(pause)) => json!(pause.as_secs()),
            Ok(Requeue::OnChange) => json!(null),
            Err(_) => json!("failed"),
        };
        let mut world = self.fake.world();
        world.let_controllers_work();
        let mut status = world
            .objects
            .get(&self.path)
            .map_or(Value::Null, |object| object["status"].clone());
        remove(
            &mut status,
            &["message", "lastTransitionTime", "completedAt"],
        );
        if let Some(conditions) = status.get_mut("conditions").and_then(Value::as_array_mut) {
            conditions.iter_mut().for_each(|one| {
                *one = in_short(one, &["type", "status", "reason", "observedGeneration"]);
            });
        }
        let events: Vec<Value> = world
            .events
            .iter()
            .map(|event| in_short(event, &["type", "reason", "action", "reportingController"]))
            .collect();
        let writes: Vec<String> = world
            .writes
            .iter()
            .map(|write| write.replace("?&", "?").trim_end_matches('?').to_owned())
            .collect();
        json!({"writes": writes, "events": events, "again": again, "status": status})
    }

    /// Makes several passes. Each shows its status if that differs from the pass before.
    async fn passes(&self, count: usize) -> Vec<Value> {
        let (mut all, mut status) = (Vec::new(), Value::Null);
        for _ in 0..count {
            let mut pass = self.pass().await;
            if pass["status"] == status {
                pass["status"] = json!("(unchanged)");
            } else {
                status = pass["status"].clone();
            }
            all.push(pass);
        }
        all
    }

    /// Edits the OutboxRelay as a user does.
    fn edit(&self, edit: impl FnOnce(&mut Value)) {
        let mut world = self.fake.world();
        let relay = world.objects.get_mut(&self.path).expect("the OutboxRelay");
        let before = relay["spec"].clone();
        edit(relay);
        if relay["spec"] != before {
            relay["metadata"]["generation"] =
                json!(relay["metadata"]["generation"].as_i64().expect("a number") + 1);
        }
    }

    /// Returns the children by path, without what the server sets, and the settings in them.
    fn children(&self) -> (BTreeMap<String, Value>, String) {
        let mut children = self.fake.world().objects.clone();
        children.remove(&self.path);
        let mut settings = String::new();
        for child in children.values_mut() {
            let owner = child["metadata"]["ownerReferences"].clone();
            remove(&mut child["metadata"], &OF_THE_SERVER);
            child["metadata"]["ownerReferences"] = owner;
            child
                .as_object_mut()
                .expect("an object")
                .shift_remove("status");
            for (key, value) in child
                .get_mut("data")
                .and_then(Value::as_object_mut)
                .into_iter()
                .flatten()
            {
                settings = value.as_str().expect("a text").to_owned();
                *value = json!(format!("({key})"));
            }
        }
        (children, settings)
    }
}

/// One line from fields of a map, such as `Ready True Ready 1`.
fn in_short(map: &Value, fields: &[&str]) -> Value {
    let text = |field: &&str| {
        map[*field]
            .as_str()
            .map_or_else(|| map[*field].to_string(), str::to_owned)
    };
    json!(fields.iter().map(text).collect::<Vec<_>>().join(" "))
}

fn example(name: &str) -> Value {
    let path = format!("{}/examples/{name}.yaml", env!("CARGO_MANIFEST_DIR"));
    serde_yaml::from_str(&std::fs::read_to_string(path).expect("an example")).expect("YAML")
}

fn yaml(value: &impl serde::Serialize) -> String {
    serde_yaml::to_string(value).expect("YAML")
}

/// Compares the passes, and the children that differ from those in `base`. Without a `base`, compares
/// the settings too. Returns all children.
async fn compare_children(
    file: &str,
    manifest: Value,
    base: &BTreeMap<String, Value>,
) -> BTreeMap<String, Value> {
    let stage = Stage::with(manifest);
    compare(
        &format!("{file}-passes.yaml"),
        &yaml(&stage.passes(PASSES).await),
    );
    let (all, settings) = stage.children();
    let children: BTreeMap<&String, &Value> = all
        .iter()
        .filter(|(path, child)| base.get(*path) != Some(child))
        .collect();
    compare(&format!("{file}-children.yaml"), &yaml(&children));
    if base.is_empty() {
        compare(&format!("{file}-settings.yaml"), &settings);
    }
    all
}

#[tokio::test]
async fn examples_get_the_same_children() {
    for name in ["file-service", "essay-lifecycle-service"] {
        let plain = compare_children(name, example(name), &BTreeMap::new()).await;
        let mut with_more = example(name);
        with_more["spec"]["networkPolicy"] = json!({"enabled": true});
        with_more["spec"]["monitoring"] = json!({"podMonitor": true});
        with_more["spec"]["scaling"] = json!({"minReplicas": 3, "maxReplicas": 4});
        compare_children(&format!("{name}-with-more"), with_more, &plain).await;
    }
}

#[tokio::test]
async fn a_manifest_with_every_field_gets_the_same_children() {
    let manifest = serde_yaml::from_str(include_str!("everything.yaml")).expect("YAML");
    compare_children("everything", manifest, &BTreeMap::new()).await;
}

/// An edit or a fault, and the passes after it.
#[tokio::test]
async fn scenarios_have_the_same_outcome() {
    type Scenario = (&'static str, fn(&Stage));
    let deployment = |stage: &Stage| {
        format!(
            "/apis/apps/v1/namespaces/{NAMESPACE}/deployments/{}-relay",
            stage.name
        )
    };
    let at_work: [Scenario; 12] = [
        ("paused", |stage| {
            stage.edit(|relay| {
                relay["metadata"]["annotations"] = json!({"outboxrelay.dev/paused": "true"});
            });
        }),
        ("meant for another operator", |stage| {
            stage.edit(|relay| {
                relay["metadata"]["annotations"] =
                    json!({"outboxrelay.dev/operator-name": "another"});
            });
        }),
        ("suspended", |stage| {
            stage.edit(|relay| relay["spec"]["suspend"] = json!(true));
        }),
        ("other settings", |stage| {
            stage.edit(|relay| relay["spec"]["batchSize"] = json!(7));
        }),
        ("another database", |stage| {
            stage.edit(|relay| relay["spec"]["database"]["name"] = json!("another"));
        }),
        ("plaintext", |stage| {
            stage.edit(|relay| relay["spec"]["kafka"]["tls"] = json!({"mode": "disable"}));
        }),
        ("another image", |stage| {
            stage.edit(|relay| {
                relay["spec"]["template"] = json!({"image": "registry.test/relay:2"});
            });
        }),
        ("an image that is not allowed", |stage| {
            stage.edit(|relay| relay["spec"]["template"] = json!({"image": "evil.test/relay:2"}));
        }),
        ("invalid", |stage| {
            stage.edit(|relay| relay["spec"]["topics"] = json!([]));
        }),
        ("invalid and suspended", |stage| {
            stage.edit(|relay| {
                relay["spec"]["topics"] = json!([]);
                relay["spec"]["suspend"] = json!(true);
            });
        }),
        ("unreadable", |stage| {
            stage.edit(|relay| relay["spec"]["replicas"] = json!("many"));
        }),
        ("deleted", |stage| {
            stage.edit(|relay| {
                relay["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
            });
        }),
    ];
    let mut all = BTreeMap::new();
    for (scenario, change) in at_work {
        let stage = Stage::with(example("file-service"));
        stage.passes(PASSES).await;
        change(&stage);
        all.insert(scenario, stage.passes(3).await);
    }

    let stage = Stage::with(example("file-service"));
    stage.passes(PASSES).await;
    stage
        .fake
        .world()
        .objects
        .get_mut(&deployment(&stage))
        .expect("a Deployment")["spec"]["replicas"] = json!(5);
    all.insert("a foreign count", stage.passes(2).await);

    let stage = Stage::with(example("file-service"));
    let service = format!("/api/v1/namespaces/{NAMESPACE}/services/file-service-relay");
    stage.fake.world().objects.insert(
        service,
        json!({"metadata": {"name": "file-service-relay", "uid": "uid-of-another"}}),
    );
    all.insert("a name that is taken", stage.passes(1).await);

    let stage = Stage::with(example("file-service"));
    stage.passes(1).await;
    for (path, job) in &mut stage.fake.world().objects {
        if path.contains("/jobs/") {
            let failed = json!({"type": "Failed", "status": "True", "lastTransitionTime": "2100-01-01T00:00:00Z"});
            job["status"]["conditions"] = json!([failed]);
        }
    }
    all.insert("a failed migration", stage.passes(2).await);
    compare("scenarios.yaml", &yaml(&all));
}
