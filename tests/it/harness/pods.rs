//! Relays and migrations as pods on the rig's node: an image of the tested programs, and manifests
//! for them.

use std::{path::Path, process::Command, sync::OnceLock};

use serde_json::{Value, json};

use super::{kubernetes::Namespace, postgres::Database, rig::rig};

/// The image of this checkout's programs. It is packed once, and each checkout has its own tag.
pub(crate) fn image() -> &'static str {
    static IMAGE: OnceLock<String> = OnceLock::new();
    IMAGE.get_or_init(|| {
        let programs = Path::new(env!("CARGO_BIN_EXE_outbox-relay"))
            .parent()
            .expect("a folder");
        let folder = env!("CARGO_MANIFEST_DIR")
            .chars()
            .filter(char::is_ascii_alphanumeric);
        let tag = format!("it-{}", folder.collect::<String>().to_ascii_lowercase());
        let mut pack = Command::new(concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/tests/rig/kubernetes/pack-image"
        ));
        let packed = pack
            .env("RIG", rig("RIG"))
            .arg(&tag)
            .arg(programs)
            .output()
            .expect("the rig's tool runs");
        assert!(
            packed.status.success(),
            "{}{}",
            String::from_utf8_lossy(&packed.stdout),
            String::from_utf8_lossy(&packed.stderr)
        );
        format!("localhost/outbox-relay:{tag}")
    })
}

/// Creates a Secret with user name and password.
pub(crate) async fn credentials(ns: &Namespace, name: &str, user: &str, password: &str) {
    let data = json!({"username": user, "password": password});
    ns.create_object::<k8s_openapi::api::core::v1::Secret>(
        json!({"metadata": {"name": name}, "stringData": data}),
    )
    .await;
}

/// Changes a manifest to this database and topic, so that the node runs its pods. Its Secrets are
/// `relay` and `owner`.
pub(crate) fn real(relay: &mut Value, database: &Database, topic: &str) {
    let address = rig("RIG_POSTGRES_PODS_15");
    let (host, port) = address.rsplit_once(':').expect("an address and a port");
    let port: u16 = port.parse().expect("a port");
    let of = |secret: &str| {
        json!({"host": host, "port": port, "name": database.name,
        "credentialsSecretRef": {"name": secret}, "tls": {"mode": "disable"}})
    };
    let kafka = rig("RIG_KAFKA_PODS");
    let servers: Vec<&str> = kafka.split(',').collect();
    relay["spec"]["database"] = of("relay");
    relay["spec"]["migration"] =
        json!({"database": of("owner"), "grants": {"producers": [database.producer]}});
    relay["spec"]["kafka"] = json!({"bootstrapServers": servers, "tls": {"mode": "disable"}});
    relay["spec"]["topics"] = json!([{"name": topic, "eventTypes": ["Uploaded"]}]);
    relay["spec"]["template"] = json!({"image": image()});
}

/// Both Secrets, as they should be.
pub(crate) async fn good_credentials(ns: &Namespace, database: &Database) {
    credentials(ns, "relay", &database.relay, database.password()).await;
    credentials(ns, "owner", &database.owner, database.password()).await;
}
