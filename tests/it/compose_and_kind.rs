//! `examples/compose` and `examples/kind`, without a container engine: the relay runs with the
//! settings of the Compose file, and an API server takes the manifests.

use std::{fs, path::PathBuf};

use serde_json::Value;

use crate::{
    harness::{
        api_server::ApiServer,
        kafka::{KafkaVersion, create_topic, topic_name},
        postgres::{Database, execute, value},
        prometheus::output_text,
        relay::until,
    },
    run_from_manifest::Run,
};

fn example(file: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("examples")
        .join(file)
}

fn text(file: &str) -> String {
    fs::read_to_string(example(file)).unwrap_or_else(|error| panic!("{file}: {error}"))
}

fn compose() -> Value {
    serde_yaml::from_str(&text("compose/compose.yaml")).expect("YAML")
}

/// Replaces each text, which must be there.
fn replaced(mut text: String, pairs: &[(&str, &str)]) -> String {
    for (from, to) in pairs {
        assert!(text.contains(from), "{from} is not in {text}");
        text = text.replace(from, to);
    }
    text
}

#[test]
fn what_compose_mounts_exists_and_the_relay_reads_its_manifest() {
    let compose = compose();
    for (service, settings) in compose["services"].as_object().expect("services") {
        for volume in settings["volumes"].as_array().into_iter().flatten() {
            let volume = volume.as_str().expect("the short form");
            let source = volume.split(':').next().expect("a source");
            let path = example("compose").join(source);
            assert!(path.is_file(), "{service} mounts {}", path.display());
        }
    }
    let relay = &compose["services"]["relay"];
    let file = relay["command"][2].as_str().expect("a file");
    let mount = format!("./outboxrelay.yaml:{file}:ro");
    assert_eq!(relay["command"][0], "run");
    assert_eq!(relay["command"][1], "--manifest");
    assert_eq!(relay["volumes"][0], mount.as_str());
    assert_eq!(relay["build"], "../..");
}

/// Names and addresses are those of the test; all else is what Compose mounts.
fn manifest_at(database: &Database, topic: &str) -> PathBuf {
    let host = format!("host: 127.0.0.1\n    port: {}", database.address().port());
    let name = format!("name: {}\n", database.name);
    let kafka = KafkaVersion::V4_3.servers();
    let user = format!("username: {}", database.owner);
    let password = format!("password: {}", database.password());
    let manifest = replaced(
        text("compose/outboxrelay.yaml"),
        &[
            ("host: postgres", &host),
            ("name: quickstart\n", &name),
            ("kafka:9092", &kafka),
            ("file.changed.v1", topic),
            ("username: quickstart", &user),
            ("password: not-a-secret", &password),
        ],
    );
    let path = database.secrets_folder().join("compose.yaml");
    fs::write(&path, manifest).expect("written");
    path
}

/// The statements of `tables.sql` after the connection to the new database, and one round of
/// `write.sql`.
fn service_statements() -> (String, String) {
    let tables = text("../quickstart/tables.sql");
    let (_, tables) = tables
        .split_once("set role quickstart;")
        .expect("its own role");
    let write = text("compose/write.sql");
    let (write, _) = write.split_once("\\watch").expect("a loop");
    (tables.to_owned(), write.to_owned())
}

on_servers! {
    [on_18: 18]
    async fn the_relay_of_the_compose_file_publishes_what_its_writer_writes(database: Database) {
        let topic = topic_name("compose");
        create_topic(&topic).await;
        let (tables, write) = service_statements();
        let mut service = database.connect_as(&database.owner).await;
        execute(&mut service, &tables).await;
        let _relay = Run::start(&manifest_at(&database, &topic)).await;
        until("the outbox", async || {
            let made = "select to_regnamespace('outbox') is not null";
            value::<bool>(&mut service, made).await.then_some(())
        })
        .await;
        execute(&mut service, &write).await;
        let record = until("a record of the writer", async || {
            KafkaVersion::V4_3.read(&topic).await.into_iter().next()
        })
        .await;
        assert!(record.key.starts_with("file-"), "{record:?}");
    }
}

#[tokio::test]
async fn an_api_server_takes_the_manifests_for_kind() {
    let server = ApiServer::start().await;
    let must = |arguments: &[&str]| {
        let output = server.kubectl(arguments, "");
        assert!(output.status.success(), "{}", output_text(&output));
    };
    let path = |file: &str| example(file).display().to_string();
    let crd = path("../crds/outboxrelays.outboxrelay.dev.yaml");
    must(&["create", "-f", &crd]);
    must(&[
        "wait",
        "--for=condition=Established",
        "crd",
        "--all",
        "--timeout=60s",
    ]);
    let (servers, relay) = (path("kind/servers.yaml"), path("kind/outboxrelay.yaml"));
    must(&["apply", "-f", &servers, "-f", &relay]);
}

#[test]
fn the_commands_for_kind_fit_its_files() {
    let cluster: Value = serde_yaml::from_str(&text("kind/cluster.yaml")).expect("YAML");
    assert_eq!(cluster["apiVersion"], "kind.x-k8s.io/v1alpha4");
    assert_eq!(cluster["kind"], "Cluster");
    let readme = text("kind/README.md");
    let name = cluster["name"].as_str().expect("a name");
    for needed in [
        format!("kind load docker-image --name {name} "),
        format!("kind delete cluster --name {name}"),
        format!("localhost/outbox-relay:{}", env!("CARGO_PKG_VERSION")),
    ] {
        assert!(readme.contains(&needed), "README.md lacks '{needed}'");
    }
}
