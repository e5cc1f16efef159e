//! Each rule of the schema on a real API server: what it accepts and rejects, and that the message
//! has the field and a fix. Rules in CEL are also evaluated without a server, with equal results.

use kube::api::{Patch, PatchParams, PostParams};
use outbox_relay::api::{OutboxRelay, custom_resource_definition};
use serde_json::{Value, json};

use crate::harness::kubernetes::{NAME, Namespace, kubectl, manifest};

/// The API server's answer to a changed manifest in a dry run.
async fn answer(ns: &Namespace, change: &dyn Fn(&mut Value)) -> Result<(), String> {
    let mut relay = manifest();
    change(&mut relay);
    let relay: kube::api::DynamicObject = serde_json::from_value(relay).expect("an object");
    let dry = PostParams {
        dry_run: true,
        ..PostParams::default()
    };
    let resource = kube::core::ApiResource::erase::<OutboxRelay>(&());
    let api = kube::Api::<kube::api::DynamicObject>::namespaced_with(
        ns.client.clone(),
        &ns.name,
        &resource,
    );
    api.create(&dry, &relay)
        .await
        .map(|_| ())
        .map_err(|error| error.to_string())
}

type Change = &'static dyn Fn(&mut Value);

/// Evaluates the rules in CEL on a changed manifest, after applying the defaults.
fn check_without_api_server(change: &dyn Fn(&mut Value)) -> Result<(), String> {
    let mut relay = manifest();
    change(&mut relay);
    kube_cel::Validator::new()
        .validate(&schema(), &relay, None)
        .map_err(|errors| errors.to_string())
}

/// Reads a changed manifest from a file, as `run --manifest` does.
fn read_from_file(change: &dyn Fn(&mut Value)) -> Result<(), String> {
    let mut relay = manifest();
    change(&mut relay);
    let file = std::env::temp_dir().join(format!("it_rules_{}.yaml", uuid::Uuid::new_v4()));
    std::fs::write(&file, serde_yaml::to_string(&relay).expect("YAML")).expect("written");
    let read = outbox_relay::manifest::load(&file, None, "local");
    std::fs::remove_file(&file).expect("removed");
    read.map(|_| ())
        .map_err(|error| format!("{error}: {:?}", std::error::Error::source(&error)))
}

fn schema() -> Value {
    let crd: Value = serde_yaml::from_str(&custom_resource_definition()).expect("YAML");
    crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"].clone()
}

/// Whether a message is from a rule in CEL, and not from the API server about a type, a pattern or
/// a bound.
fn is_of_a_rule(words: &str, schema: &Value) -> bool {
    let rules = schema["x-kubernetes-validations"]
        .as_array()
        .into_iter()
        .flatten();
    let is_message = rules
        .filter_map(|rule| rule["message"].as_str())
        .any(|message| message.contains(words));
    let parts = schema
        .as_object()
        .into_iter()
        .flat_map(|object| object.values());
    let items = schema.as_array().into_iter().flatten();
    is_message || parts.chain(items).any(|part| is_of_a_rule(words, part))
}

async fn accepts(changes: &[Change]) {
    let ns = Namespace::create().await;
    for (number, change) in changes.iter().enumerate() {
        assert_eq!(answer(&ns, change).await, Ok(()), "change {number}");
        assert_eq!(
            check_without_api_server(change),
            Ok(()),
            "change {number}, without the server"
        );
        assert_eq!(
            read_from_file(change),
            Ok(()),
            "change {number}, from a file"
        );
    }
}

async fn refuses(changes: &[(Change, &str)]) {
    let ns = Namespace::create().await;
    for (number, (change, words)) in changes.iter().enumerate() {
        let refusal = answer(&ns, change)
            .await
            .expect_err(&format!("change {number} should be refused: {words}"));
        assert!(
            refusal.contains(words),
            "change {number}: '{words}' is not in: {refusal}"
        );
        read_from_file(change).expect_err(&format!(
            "change {number} should be refused in a file, too: {words}"
        ));
        if is_of_a_rule(words, &schema()) {
            let refusal = check_without_api_server(change).expect_err(&format!(
                "change {number} should be refused without the server, too: {words}"
            ));
            assert!(
                refusal.contains(words),
                "change {number}, without the server: '{words}' is not in: {refusal}"
            );
        }
    }
}

#[test]
fn the_crd_and_a_manifest_bring_no_warnings() {
    let quiet = [
        "apply",
        "--server-side",
        "--force-conflicts",
        "--warnings-as-errors",
        "-f",
        "-",
    ];
    kubectl(&quiet, &custom_resource_definition());
}

#[tokio::test]
async fn names_that_are_valid_for_children_are_accepted_and_others_rejected() {
    accepts(&[&|r| r["metadata"]["name"] = json!("a".repeat(46)), &|r| {
        r["metadata"]["name"] = json!("a");
    }])
    .await;
    let rule = "metadata.name must be at most 46 characters";
    refuses(&[
        (&|r| r["metadata"]["name"] = json!("a".repeat(47)), rule),
        (&|r| r["metadata"]["name"] = json!("1a"), rule),
        (&|r| r["metadata"]["name"] = json!("a.b"), rule),
    ])
    .await;
}

#[tokio::test]
async fn a_database_is_a_host_or_a_url_and_never_both() {
    accepts(&[&|_| (), &|r| {
        r["spec"]["database"] = json!({"urlSecretRef": {"name": "db-app", "key": "uri"}});
    }])
    .await;
    refuses(&[
        (
            &|r| r["spec"]["database"]["urlSecretRef"] = json!({"name": "n", "key": "k"}),
            "set exactly one of urlSecretRef and host",
        ),
        (
            &|r| {
                r["spec"]["database"] =
                    json!({"urlSecretRef": {"name": "n", "key": "k"}, "name": "files"});
            },
            "urlSecretRef carries name and credentials",
        ),
        (
            &|r| r["spec"]["database"] = json!({}),
            "set exactly one of urlSecretRef and host",
        ),
        (
            &|r| r["spec"]["database"] = json!({"host": "h"}),
            "host needs name and credentialsSecretRef",
        ),
        (
            &|r| r["spec"]["migration"]["database"] = json!({}),
            "spec.migration.database",
        ),
        (
            &|r| r["spec"]["migration"]["database"] = json!({"host": "h"}),
            "host needs name and credentialsSecretRef",
        ),
    ])
    .await;
}

#[tokio::test]
async fn a_breaker_is_slow_before_it_is_open() {
    accepts(&[&|r| r["spec"]["breaker"] = json!({}), &|r| {
        r["spec"]["breaker"] =
            json!({"slowAfter": "500ms", "openAfter": "1.5s", "maxBackoff": "1m"});
    }])
    .await;
    refuses(&[
        (
            &|r| r["spec"]["breaker"] = json!({"slowAfter": "10s"}),
            "less than openAfter",
        ),
        (
            &|r| r["spec"]["breaker"] = json!({"slowAfter": "50ms"}),
            "at least 100ms",
        ),
        (
            &|r| r["spec"]["breaker"] = json!({"openAfter": "11m"}),
            "openAfter at most 10m",
        ),
        (
            &|r| r["spec"]["breaker"] = json!({"maxBackoff": "500ms"}),
            "breaker.maxBackoff must be between 1s and 10m",
        ),
        (
            &|r| r["spec"]["breaker"] = json!({"openAfter": "soon"}),
            "spec.breaker.openAfter",
        ),
    ])
    .await;
}

#[tokio::test]
async fn numbers_and_identifiers_have_bounds() {
    accepts(&[
        &|r| r["spec"]["replicas"] = json!(0),
        &|r| r["spec"]["replicas"] = json!(64),
        &|r| r["spec"]["batchSize"] = json!(10000),
        &|r| r["spec"]["database"]["schema"] = json!("outbox_2"),
        &|r| r["spec"]["pollInterval"] = json!("1.5s"),
    ])
    .await;
    refuses(&[
        (&|r| r["spec"]["replicas"] = json!(65), "spec.replicas"),
        (&|r| r["spec"]["replicas"] = json!(-1), "spec.replicas"),
        (&|r| r["spec"]["batchSize"] = json!(0), "spec.batchSize"),
        (
            &|r| r["spec"]["database"]["port"] = json!(65536),
            "spec.database.port",
        ),
        (
            &|r| r["spec"]["database"]["maxConnections"] = json!(2),
            "spec.database.maxConnections",
        ),
        (
            &|r| r["spec"]["database"]["schema"] = json!("out;box"),
            "spec.database.schema",
        ),
        (
            &|r| r["spec"]["database"]["schema"] = json!("pg_outbox"),
            "schema must not start with pg_",
        ),
        (
            &|r| r["spec"]["pollInterval"] = json!("50"),
            "spec.pollInterval",
        ),
        (
            &|r| r["spec"]["pollInterval"] = json!("1ms"),
            "pollInterval must be between 5ms and 10s",
        ),
        (
            &|r| r["spec"]["pollInterval"] = json!("1h"),
            "pollInterval must be between 5ms and 10s",
        ),
        (
            &|r| r["spec"]["recordHeaders"] = json!("Json"),
            "spec.recordHeaders",
        ),
        (
            &|r| r["spec"]["migration"]["grants"] = json!({"producers": [""]}),
            "spec.migration.grants.producers",
        ),
    ])
    .await;
}

#[tokio::test]
async fn topics_are_named_once_and_at_least_one_is() {
    accepts(&[&|r| r["spec"]["topics"] = json!([{"name": "a"}, {"name": "b.c_d-e"}])]).await;
    refuses(&[
        (&|r| r["spec"]["topics"] = json!([]), "spec.topics"),
        (
            &|r| r["spec"]["topics"] = json!([{"name": "a"}, {"name": "a"}]),
            "Duplicate value",
        ),
        (
            &|r| r["spec"]["topics"] = json!([{"name": "a b"}]),
            "spec.topics[0].name",
        ),
        (
            &|r| r["spec"]["topics"] = json!([{"name": "a", "eventTypes": [""]}]),
            "spec.topics[0].eventTypes",
        ),
    ])
    .await;
}

/// Returns the largest number of topics and types that the schema allows. `type_of` returns the
/// names of types.
fn topics(type_of: impl Fn(usize, usize) -> String) -> Value {
    let types = |topic| {
        (0..16)
            .map(|number| type_of(topic, number))
            .collect::<Vec<_>>()
    };
    let topic = |number| {
        json!({
            "name": format!("{number:02}{}", "t".repeat(247)),
            "eventTypes": types(number), "aggregateTypes": types(number),
        })
    };
    Value::Array((0..64).map(topic).collect())
}

fn long(topic: usize, number: usize) -> String {
    format!("{topic:02}{number:02}{}", "x".repeat(251))
}

/// The rule compares all pairs. It must not exceed the API server's cost budget for one object.
#[tokio::test]
async fn the_rule_on_routed_types_works_at_the_largest_size() {
    accepts(&[&|r| r["spec"]["topics"] = topics(long), &|r| {
        r["spec"]["topics"] =
            json!([{"name": "a", "eventTypes": ["A"]}, {"name": "b", "aggregateTypes": ["A"]}]);
    }])
    .await;
    refuses(&[
        (
            &|r| {
                r["spec"]["topics"] = json!([
                    {"name": "b", "eventTypes": ["A"]},
                    {"name": "a", "eventTypes": ["B", "A"]},
                ]);
            },
            "an event type stands at two topics",
        ),
        (
            &|r| {
                r["spec"]["topics"] = json!([
                    {"name": "a", "aggregateTypes": ["A"]},
                    {"name": "b", "aggregateTypes": ["A"]},
                ]);
            },
            "an aggregate type stands at two topics",
        ),
        (
            &|r| r["spec"]["topics"] = json!([{"name": "a", "eventTypes": vec!["A"; 17]}]),
            "spec.topics[0].eventTypes",
        ),
    ])
    .await;
    let ns = Namespace::create().await;
    let last_again = |topic: usize, number: usize| {
        if topic == 63 && number == 15 {
            long(62, 15)
        } else {
            long(topic, number)
        }
    };
    let refusal = answer(&ns, &|r| r["spec"]["topics"] = topics(last_again))
        .await
        .expect_err("two topics");
    assert!(
        refusal.contains("an event type stands at two topics"),
        "{refusal}"
    );
}

#[tokio::test]
async fn scaling_has_bounds_and_an_order() {
    accepts(&[&|r| r["spec"]["scaling"] = json!({}), &|r| {
        r["spec"]["scaling"] = json!({
            "minReplicas": 8, "maxReplicas": 8, "targetBacklogPerReplica": 1,
            "targetOldestAge": "1s", "scaleDownStabilization": "0s",
        });
    }])
    .await;
    refuses(&[
        (
            &|r| r["spec"]["scaling"] = json!({"minReplicas": 0}),
            "spec.scaling.minReplicas",
        ),
        (
            &|r| r["spec"]["scaling"] = json!({"maxReplicas": 65}),
            "spec.scaling.maxReplicas",
        ),
        (
            &|r| r["spec"]["scaling"] = json!({"minReplicas": 9}),
            "minReplicas must not be more than scaling.maxReplicas",
        ),
        (
            &|r| r["spec"]["scaling"] = json!({"targetBacklogPerReplica": 0}),
            "spec.scaling.targetBacklogPerReplica",
        ),
        (
            &|r| r["spec"]["scaling"] = json!({"targetOldestAge": "500ms"}),
            "targetOldestAge must be between 1s and 1h",
        ),
        (
            &|r| r["spec"]["scaling"] = json!({"targetOldestAge": "5"}),
            "spec.scaling.targetOldestAge",
        ),
        (
            &|r| r["spec"]["scaling"] = json!({"scaleDownStabilization": "61m"}),
            "scaleDownStabilization must be at most 1h",
        ),
        (
            &|r| r["spec"]["scaling"] = json!({"scaleDownStabilization": "1s".repeat(17)}),
            "spec.scaling.scaleDownStabilization",
        ),
    ])
    .await;
}

#[tokio::test]
async fn the_count_cannot_be_changed_while_it_is_not_used() {
    let ns = Namespace::create().await;
    ns.create_relay(|r| r["spec"]["scaling"] = json!({})).await;
    let count = Patch::Merge(json!({"spec": {"replicas": 5}}));
    let refused = ns
        .api::<OutboxRelay>()
        .patch_scale(NAME, &PatchParams::default(), &count)
        .await
        .expect_err("not used");
    assert!(
        refused
            .to_string()
            .contains("replicas is not used while scaling is set"),
        "{refused}"
    );
    ns.api::<OutboxRelay>()
        .get_scale(NAME)
        .await
        .expect("an absent count would be an error of the server");
    ns.patch_relay(json!({"spec": {"scaling": {"maxReplicas": 4}}}))
        .await;
    ns.patch_relay(json!({"spec": {"scaling": null, "replicas": 5}}))
        .await;
    ns.patch_relay(json!({"spec": {"scaling": {}, "replicas": 2}}))
        .await;
}

#[tokio::test]
async fn addresses_may_be_of_ipv6() {
    accepts(&[
        &|r| r["spec"]["kafka"]["bootstrapServers"] = json!(["[::1]:9092", "k:65535"]),
        &|r| r["spec"]["database"]["host"] = json!("[::1]"),
        &|r| r["spec"]["database"]["host"] = json!("fd00::1"),
        &|r| r["spec"]["database"]["tls"] = json!({"mode": "require"}),
    ])
    .await;
}

#[tokio::test]
async fn plaintext_excludes_settings_that_need_tls() {
    accepts(&[
        &|r| r["spec"]["kafka"]["tls"] = json!({"mode": "disable"}),
        &|r| {
            r["spec"]["kafka"]["sasl"] = json!({
                "mechanism": "PLAIN", "username": "u", "credentialsSecretRef": {"name": "n"},
            });
        },
    ])
    .await;
    let certificate = || json!({"mode": "disable", "clientCertSecretRef": {"name": "n"}});
    let ca = || json!({"mode": "disable", "ca": {"secretRef": {"name": "n", "key": "k"}}});
    let ns = Namespace::create().await;
    for tls in [certificate(), ca()] {
        for side in ["database", "kafka"] {
            let refusal = answer(&ns, &|r| r["spec"][side]["tls"] = tls.clone())
                .await
                .expect_err("refused");
            assert!(
                refusal.contains("mode disable leaves no use for ca and clientCertSecretRef"),
                "{refusal}"
            );
        }
    }
    let plain = answer(&ns, &|r| {
        let sasl =
            json!({"mechanism": "PLAIN", "username": "u", "credentialsSecretRef": {"name": "n"}});
        r["spec"]["kafka"] =
            json!({"bootstrapServers": ["k:1"], "tls": {"mode": "disable"}, "sasl": sasl});
    });
    assert!(
        plain
            .await
            .expect_err("refused")
            .contains("sasl.mechanism PLAIN sends the password itself")
    );
}

#[tokio::test]
async fn an_owner_to_take_over_from_has_three_parts() {
    accepts(&[&|r| r["spec"]["migration"]["takeOverFrom"] = json!("c/n/files")]).await;
    for owner in ["files", "n/files", "c/n/files/x", "c//files"] {
        let ns = Namespace::create().await;
        let refusal = answer(&ns, &|r| {
            r["spec"]["migration"]["takeOverFrom"] = json!(owner);
        })
        .await
        .expect_err(owner);
        assert!(refusal.contains("spec.migration.takeOverFrom"), "{refusal}");
    }
}

#[tokio::test]
async fn kafka_properties_are_accepted_unless_they_weaken_the_promises() {
    accepts(&[
        &|r| {
            r["spec"]["kafka"]["properties"] =
                json!({"linger.ms": "1", "compression.type": "zstd"});
        },
        &|r| {
            r["spec"]["kafka"]["properties"] = json!({"linger.ms": "1000"});
        },
    ])
    .await;
    refuses(&[
        (
            &|r| r["spec"]["kafka"]["properties"] = json!({"acks": "1"}),
            "only linger.ms and compression.type may be set",
        ),
        (
            &|r| r["spec"]["kafka"]["properties"] = json!({"linger.ms": "1001"}),
            "linger.ms must be a number",
        ),
        (
            &|r| r["spec"]["kafka"]["properties"] = json!({"linger.ms": "auto"}),
            "linger.ms must be a number",
        ),
        (
            &|r| r["spec"]["kafka"]["properties"] = json!({"linger.ms": "-1"}),
            "linger.ms must be a number",
        ),
        (
            &|r| r["spec"]["kafka"]["properties"] = json!({"linger.ms": ""}),
            "linger.ms must be a number",
        ),
        (
            &|r| r["spec"]["kafka"]["properties"] = json!({"compression.type": "producer"}),
            "compression.type must be none",
        ),
        (
            &|r| r["spec"]["kafka"]["bootstrapServers"] = json!([]),
            "spec.kafka.bootstrapServers",
        ),
        (
            &|r| r["spec"]["kafka"]["bootstrapServers"] = json!(["kafka"]),
            "spec.kafka.bootstrapServers[0]",
        ),
        (
            &|r| r["spec"]["kafka"]["bootstrapServers"] = json!(["kafka:99999"]),
            "spec.kafka.bootstrapServers[0]",
        ),
        (
            &|r| r["spec"]["kafka"]["bootstrapServers"] = json!(["a:1,b:2"]),
            "spec.kafka.bootstrapServers[0]",
        ),
        (
            &|r| r["spec"]["kafka"]["bootstrapServers"] = json!(["::1:9092"]),
            "spec.kafka.bootstrapServers[0]",
        ),
        (
            &|r| r["spec"]["database"]["host"] = json!("a,b"),
            "spec.database.host",
        ),
        (
            &|r| r["spec"]["database"]["host"] = json!("postgres://h"),
            "spec.database.host",
        ),
        (
            &|r| {
                let ca = json!({"secretRef": {"name": "n", "key": "k"}});
                r["spec"]["database"]["tls"] = json!({"mode": "require", "ca": ca});
            },
            "mode require leaves no use for ca",
        ),
        (
            &|r| r["spec"]["kafka"]["tls"] = json!({"mode": "none"}),
            "spec.kafka.tls.mode",
        ),
    ])
    .await;
}

#[tokio::test]
async fn a_certificate_comes_from_exactly_one_place() {
    accepts(&[&|r| {
        r["spec"]["kafka"]["tls"] = json!({"ca": {"configMapRef": {"name": "n", "key": "k"}}});
    }])
    .await;
    let key = || json!({"name": "n", "key": "k"});
    let ns = Namespace::create().await;
    for ca in [
        json!({}),
        json!({"secretRef": key(), "configMapRef": key()}),
    ] {
        let refusal = answer(&ns, &|r| r["spec"]["database"]["tls"] = json!({"ca": ca}))
            .await
            .expect_err("refused");
        assert!(
            refusal.contains("set exactly one of secretRef and configMapRef"),
            "{refusal}"
        );
    }
}

#[tokio::test]
async fn a_template_cannot_take_the_operators_labels_or_bring_what_pods_cannot_have() {
    accepts(&[
        &|r| r["spec"]["template"]["labels"] = json!({"team": "essays", "example.com/a": ""}),
        &|r| {
            r["spec"]["template"]["resources"] =
                json!({"requests": {"cpu": "50m", "memory": "1.5Gi"}});
        },
        &|r| {
            r["spec"]["template"]["image"] =
                json!("registry.example.com:5000/outbox-relay@sha256:0");
            r["spec"]["template"]["serviceAccountName"] = json!("mine");
            r["spec"]["template"]["affinity"] = json!({"nodeAffinity": {}});
        },
    ])
    .await;
    refuses(&[
        (
            &|r| r["spec"]["template"]["labels"] = json!({"app.kubernetes.io/name": "x"}),
            "are the operator's own",
        ),
        (
            &|r| r["spec"]["template"]["labels"] = json!({"outboxrelay.dev/relay": "x"}),
            "are the operator's own",
        ),
        (
            &|r| r["spec"]["template"]["labels"] = json!({"a": "b c"}),
            "spec.template.labels.a",
        ),
        (
            &|r| r["spec"]["template"]["annotations"] = json!({"outboxrelay.dev/x": "x"}),
            "are the operator's own",
        ),
        (
            &|r| r["spec"]["template"]["image"] = json!("relay 1"),
            "spec.template.image",
        ),
        (
            &|r| r["spec"]["template"]["serviceAccountName"] = json!("No Name"),
            "spec.template.serviceAccountName",
        ),
        (
            &|r| {
                r["spec"]["template"]["affinity"] = json!({
                    "podAntiAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [{}]},
                });
            },
            "spec.template.affinity",
        ),
        (
            &|r| r["spec"]["template"]["nodeSelector"] = json!({"a": "b c"}),
            "spec.template.nodeSelector.a",
        ),
        (
            &|r| r["spec"]["template"]["resources"] = json!({"requests": {"cpu": "much"}}),
            "spec.template.resources.requests.cpu",
        ),
        (
            &|r| {
                r["spec"]["template"]["resources"] = json!({"requests": {"cpu": "2"},
            "limits": {"memory": "64 Mi"}});
            },
            "limits.memory",
        ),
    ])
    .await;
}

#[tokio::test]
async fn the_schema_of_the_database_stays() {
    let ns = Namespace::create().await;
    ns.create_relay(|_| ()).await;
    let change = Patch::Merge(json!({"spec": {"database": {"schema": "other"}}}));
    let refused = ns
        .api::<OutboxRelay>()
        .patch(NAME, &PatchParams::default(), &change)
        .await
        .expect_err("immutable");
    assert!(
        refused.to_string().contains("schema is immutable"),
        "{refused}"
    );
    ns.patch_relay(json!({"spec": {"database": {"host": "other.invalid"}}}))
        .await;
}

#[tokio::test]
async fn a_new_object_has_a_status_of_no_observed_generation() {
    let ns = Namespace::create().await;
    let relay = ns.create_relay(|_| ()).await;
    assert_eq!(relay.status.expect("a default").observed_generation, -1);
}
