//! Whatever a manifest says, whatever answer of the API server goes wrong: the operator comes to
//! the same end, writes nothing more there, and on its way lets nobody else write the count, takes
//! no relay away for an error, and rolls nothing out before its migration.

use outbox_relay::{
    api::OutboxRelay,
    operator::{Installation, Operator, RelayKey, Settings},
};
use proptest::prelude::*;
use serde_json::{Value, json};

use crate::harness::{
    fake_api::{FakeApi, Fault},
    kubernetes::{NAME, manifest},
};

const RELAY: &str = "/apis/outboxrelay.dev/v1alpha1/namespaces/n/outboxrelays/file-service";
const DEPLOYMENT: &str = "/apis/apps/v1/namespaces/n/deployments/file-service-relay";

/// What a user wishes for, as far as it changes what the operator does.
#[derive(Clone, Debug)]
struct Wishes {
    replicas: i32,
    batch_size: i32,
    flags: [bool; 6],
}

impl Wishes {
    fn spec(&self) -> Value {
        let [
            suspend,
            scaled,
            migrated,
            network_policy,
            own_account,
            pod_monitor,
        ] = self.flags;
        let mut spec = manifest()["spec"].clone();
        spec["replicas"] = json!(self.replicas);
        spec["batchSize"] = json!(self.batch_size);
        spec["suspend"] = json!(suspend);
        spec["migration"]["policy"] = json!(if migrated { "Apply" } else { "Never" });
        spec["networkPolicy"]["enabled"] = json!(network_policy);
        spec["monitoring"]["podMonitor"] = json!(pod_monitor);
        if scaled {
            spec["scaling"] = json!({"minReplicas": 2, "maxReplicas": 4});
        }
        if own_account {
            spec["template"]["serviceAccountName"] = json!("mine");
        }
        spec
    }

    fn allows(&self, count: i64) -> bool {
        let [suspend, scaled, ..] = self.flags;
        if suspend {
            count == 0
        } else if scaled {
            (2..=4).contains(&count)
        } else {
            count == i64::from(self.replicas)
        }
    }
}

fn wishes() -> impl Strategy<Value = Wishes> {
    (0..5_i32, 1..3_i32, any::<[bool; 6]>()).prop_map(|(replicas, batch_size, flags)| Wishes {
        replicas,
        batch_size,
        flags,
    })
}

fn fault() -> impl Strategy<Value = Fault> {
    prop_oneof![
        Just(Fault::DoneAndLost),
        prop_oneof![Just(500_u16), Just(429), Just(409), Just(403), Just(503)]
            .prop_map(Fault::Refused),
    ]
}

/// One edit of the manifest, the calls after it that go wrong, and a count that somebody writes on
/// the Deployment in between.
#[derive(Clone, Debug)]
struct Step {
    wishes: Wishes,
    faults: Vec<(usize, Fault)>,
    foreign_count: Option<i32>,
}

fn step() -> impl Strategy<Value = Step> {
    (
        wishes(),
        prop::collection::vec((1..40_usize, fault()), 0..4),
        prop::option::of(0..6_i32),
    )
        .prop_map(|(wishes, faults, foreign_count)| Step {
            wishes,
            faults,
            foreign_count,
        })
}

fn apply(fake: &FakeApi, step: &Step) {
    let mut world = fake.world();
    let calls = world.calls;
    world.faults = step
        .faults
        .iter()
        .map(|(after, fault)| (calls + after, *fault))
        .collect();
    let before = world.objects.get(RELAY).cloned();
    let mut relay = manifest();
    relay["spec"] = step.wishes.spec();
    relay["metadata"] =
        json!({"name": NAME, "namespace": "n", "uid": "uid-relay", "generation": 1});
    // As the API server does: defaults are filled in.
    let relay: OutboxRelay = serde_json::from_value(relay).expect("a manifest");
    let mut relay = serde_json::to_value(relay).expect("JSON");
    if let Some(before) = before {
        let generation = before["metadata"]["generation"].as_i64().expect("a number");
        relay["metadata"]["generation"] =
            json!(generation + i64::from(before["spec"] != relay["spec"]));
        relay["status"] = before["status"].clone();
    }
    world.objects.insert(RELAY.to_owned(), relay);
    if let (Some(count), Some(deployment)) = (step.foreign_count, world.objects.get_mut(DEPLOYMENT))
    {
        deployment["spec"]["replicas"] = json!(count);
    }
}

/// What no pass may leave behind, whether it came to its end or not.
fn inspect(fake: &FakeApi, step: &Step, before: Option<Value>) {
    let mut world = fake.world();
    let Some(after) = world.objects.get(DEPLOYMENT).cloned() else {
        return;
    };
    let count = |object: &Value| object["spec"]["replicas"].as_i64();
    let previous = before.as_ref().and_then(count);
    if count(&after) == Some(0) && previous != Some(0) && !step.wishes.allows(0) {
        world
            .violations
            .push(format!("scaled to 0 from {previous:?}"));
    }
    let changed = before
        .as_ref()
        .is_none_or(|before| before["spec"]["template"] != after["spec"]["template"]);
    let jobs: Vec<Value> = world
        .objects
        .iter()
        .filter(|(path, _)| path.contains("/jobs/"))
        .map(|(_, job)| job.clone())
        .collect();
    if step.wishes.flags[2] && changed && !jobs.iter().any(|job| !job["status"].is_null()) {
        world
            .violations
            .push("rolled out before the migration".to_owned());
    }
    if jobs.len() > 1 {
        world
            .violations
            .push(format!("{} migrations at a time", jobs.len()));
    }
}

/// Whether it came to its end.
async fn pass(fake: &FakeApi, operator: &Operator, step: &Step) -> bool {
    let before = fake.world().objects.get(DEPLOYMENT).cloned();
    let key = RelayKey::new("n", NAME);
    operator.mark_changed(&key);
    let ended = Box::pin(operator.reconcile(&key)).await;
    inspect(fake, step, before);
    fake.world().let_controllers_work();
    ended.is_ok()
}

/// Passes until one of them comes to its end and writes nothing, and no fault is left.
async fn converge(fake: &FakeApi, operator: &Operator, step: &Step) {
    for _ in 0..40 {
        let before = fake.world().writes.len();
        let ended = pass(fake, operator, step).await;
        let world = fake.world();
        if ended && world.faults.is_empty() && world.writes.len() == before {
            return;
        }
    }
    panic!(
        "still writing: {:?}",
        fake.world()
            .writes
            .iter()
            .rev()
            .take(12)
            .collect::<Vec<_>>()
    );
}

async fn lives_through(steps: Vec<Step>) {
    let fake = FakeApi::default();
    let settings = || {
        let installation = Installation {
            relay_image: "relay:1".to_owned(),
            cluster_name: "c".to_owned(),
            upgrades_max: 5,
            ..Installation::default()
        };
        Settings {
            installation,
            operator_name: "outbox-operator".to_owned(),
            pod_name: None,
        }
    };
    let mut operator = Operator::new(fake.client(), settings());
    for (number, step) in steps.iter().enumerate() {
        if number % 2 == 1 {
            // It may be started anew at any time.
            operator = Operator::new(fake.client(), settings());
        }
        apply(&fake, step);
        converge(&fake, &operator, step).await;
        let world = fake.world();
        assert_eq!(world.violations, Vec::<String>::new());
        let count = world.objects[DEPLOYMENT]["spec"]["replicas"]
            .as_i64()
            .expect("a count");
        assert!(
            step.wishes.allows(count),
            "{count} relays for {:?}",
            step.wishes
        );
        let conditions = world.objects[RELAY]["status"]["conditions"]
            .as_array()
            .expect("conditions");
        let ready = conditions
            .iter()
            .find(|one| one["type"] == "Ready")
            .expect("it is said");
        assert_eq!(ready["status"], "True", "{ready}");
        let has = |part: &str| world.objects.keys().any(|path| path.contains(part));
        let [_, _, _, network_policy, own_account, pod_monitor] = step.wishes.flags;
        assert_eq!(
            (has("/networkpolicies/"), has("/podmonitors/")),
            (network_policy, pod_monitor)
        );
        assert_eq!(has("/serviceaccounts/"), !own_account);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn it_comes_to_the_same_end_whatever_goes_wrong(steps in prop::collection::vec(step(), 1..5)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(Box::pin(lives_through(steps)));
    }
}
