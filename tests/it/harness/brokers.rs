//! A separate Kafka cluster that a test can stop. Node 1 is controller and broker, the others are
//! brokers. Each node has a second listener with the address of a [`Gate`], so that a test can
//! disconnect a single client.

use std::{
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use rdkafka::{
    ClientConfig,
    consumer::{BaseConsumer, Consumer},
};

use super::{
    fake_clock::FakeClock, gate::Gate, kafka::KafkaVersion, listeners::closed_port, relay::until,
};

const TOOL: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/rig/kafka/tool");
const CLUSTER: &str = "b3duLWNsdXN0ZXItMDAwMQ";
static NEXT: AtomicU32 = AtomicU32::new(0);

/// The cluster. It is killed when this is dropped.
pub(crate) struct Brokers {
    version: KafkaVersion,
    folder: PathBuf,
    nodes: Vec<Node>,
    /// The wall clock of all nodes; `None` is the right one.
    clock: Option<FakeClock>,
    /// Gate between the first node and clients of [`Self::behind_the_gate`].
    pub(crate) gate: Gate,
    /// Gate between the first node and clients of [`Self::with_password`].
    pub(crate) password_gate: Gate,
}

struct Node {
    port: u16,
    settings: PathBuf,
    process: Option<Child>,
}

impl Brokers {
    /// Starts a cluster of `nodes` nodes.
    pub(crate) async fn start(nodes: u32) -> Self {
        Self::start_version(KafkaVersion::V4_3, nodes).await
    }

    /// Starts a cluster of `nodes` nodes of this version.
    pub(crate) async fn start_version(version: KafkaVersion, nodes: u32) -> Self {
        Self::launch_all(version, nodes, None).await
    }

    /// Starts a cluster of one node whose wall clock is the given one.
    pub(crate) async fn start_at(clock: FakeClock) -> Self {
        Self::launch_all(KafkaVersion::V4_3, 1, Some(clock)).await
    }

    async fn launch_all(version: KafkaVersion, nodes: u32, clock: Option<FakeClock>) -> Self {
        let folder = std::env::temp_dir().join(format!(
            "brokers-{}-{}",
            std::process::id(),
            NEXT.fetch_add(1, Ordering::Relaxed)
        ));
        std::fs::create_dir_all(&folder).expect("created");
        let (controller, behind, password) = (
            closed_port().await,
            closed_port().await,
            closed_port().await,
        );
        let gate = Gate::open(([127, 0, 0, 1], behind).into()).await;
        let password_gate = Gate::open(([127, 0, 0, 1], password).into()).await;
        let mut brokers = Self {
            version,
            folder,
            nodes: Vec::new(),
            clock,
            gate,
            password_gate,
        };
        for number in 1..=nodes {
            let port = closed_port().await;
            let settings = brokers.folder.join(format!("node-{number}.properties"));
            let (gate, password_gate) = (brokers.gate.port(), brokers.password_gate.port());
            let ports = Ports {
                controller,
                port,
                behind,
                gate,
                password,
                password_gate,
            };
            std::fs::write(&settings, properties(number, &ports, &brokers.folder))
                .expect("written");
            format(version, &settings);
            brokers.nodes.push(Node {
                port,
                settings,
                process: None,
            });
            brokers.launch(number);
        }
        brokers.wait_until_up().await;
        brokers
    }

    /// Kills a node with SIGKILL.
    pub(crate) fn kill(&mut self, number: u32) {
        let mut process = self.nodes[number as usize - 1]
            .process
            .take()
            .expect("it runs");
        process.kill().expect("it ran");
        process.wait().expect("it ended");
    }

    /// Sends a signal to a node. `STOP` pauses it: its connections stay, and it answers nothing.
    pub(crate) fn signal(&self, number: u32, name: &str) {
        let process = self.nodes[number as usize - 1]
            .process
            .as_ref()
            .expect("it runs");
        let sent = Command::new("kill")
            .args([format!("-{name}"), process.id().to_string()])
            .status();
        assert!(sent.expect("kill runs").success());
    }

    /// Starts a node again with its stored data.
    pub(crate) fn launch(&mut self, number: u32) {
        let log =
            std::fs::File::create(self.folder.join(format!("node-{number}.log"))).expect("created");
        let node = &mut self.nodes[number as usize - 1];
        let mut command = Command::new(TOOL);
        command
            .arg("kafka.Kafka")
            .arg(&node.settings)
            .env("RIG", super::rig::rig("RIG"))
            .env("RIG_KAFKA_PART", self.version.part())
            .env("RIG_LOG", "WARN");
        if let Some(clock) = &self.clock {
            clock.give_to(&mut command);
        }
        let log_too = log.try_clone().expect("a second handle");
        node.process = Some(
            command
                .stdin(Stdio::null())
                .stdout(log)
                .stderr(log_too)
                .spawn()
                .expect("bash and java"),
        );
    }

    /// Steps the wall clock of nodes that were started with one.
    pub(crate) fn set_clock(&self, seconds_ahead: i64) {
        self.clock.as_ref().expect("a clock").set(seconds_ahead);
    }

    pub(crate) fn servers(&self) -> String {
        self.nodes
            .iter()
            .map(|node| format!("127.0.0.1:{}", node.port))
            .collect::<Vec<_>>()
            .join(",")
    }

    /// Address of the first node through the gate.
    pub(crate) fn behind_the_gate(&self) -> String {
        format!("127.0.0.1:{}", self.gate.port())
    }

    /// Address of the first node through the gate, for a user with SCRAM-SHA-512 and without TLS.
    pub(crate) fn with_password(&self) -> String {
        format!("127.0.0.1:{}", self.password_gate.port())
    }

    /// Waits until every node has registered.
    pub(crate) async fn wait_until_up(&self) {
        let (servers, nodes) = (self.servers(), self.nodes.len());
        let client: BaseConsumer = ClientConfig::new()
            .set("bootstrap.servers", &servers)
            .create()
            .expect("a client");
        until("the brokers to be up", async || {
            let metadata = client.fetch_metadata(None, Duration::from_secs(1)).ok()?;
            (metadata.brokers().len() == nodes).then_some(())
        })
        .await;
    }
}

impl Drop for Brokers {
    fn drop(&mut self) {
        for (number, node) in (1..).zip(&mut self.nodes) {
            if let Some(process) = &mut node.process {
                process.kill().ok();
                process.wait().ok();
            }
            if std::thread::panicking() {
                let log = std::fs::read_to_string(self.folder.join(format!("node-{number}.log")))
                    .unwrap_or_default();
                let tail = log.len().saturating_sub(2000);
                eprintln!(
                    "--- end of the log of node {number}\n{}",
                    &log[log.ceil_char_boundary(tail)..]
                );
            }
        }
        std::fs::remove_dir_all(&self.folder).ok();
    }
}

struct Ports {
    controller: u16,
    port: u16,
    behind: u16,
    gate: u16,
    password: u16,
    password_gate: u16,
}

fn properties(number: u32, ports: &Ports, folder: &Path) -> String {
    let Ports {
        controller,
        port,
        behind,
        gate,
        password,
        password_gate,
    } = ports;
    let (roles, mut listeners, mut advertised) = (
        if number == 1 {
            "broker,controller"
        } else {
            "broker"
        },
        format!("PLAINTEXT://127.0.0.1:{port}"),
        format!("PLAINTEXT://127.0.0.1:{port}"),
    );
    if number == 1 {
        listeners += &format!(
            ",GATED://127.0.0.1:{behind},PASSWORD://127.0.0.1:{password},\
             CONTROLLER://127.0.0.1:{controller}"
        );
        advertised += &format!(",GATED://127.0.0.1:{gate},PASSWORD://127.0.0.1:{password_gate}");
    }
    format!(
        "process.roles={roles}
node.id={number}
controller.quorum.voters=1@127.0.0.1:{controller}
controller.listener.names=CONTROLLER
inter.broker.listener.name=PLAINTEXT
listeners={listeners}
advertised.listeners={advertised}
listener.security.protocol.map=CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT,GATED:PLAINTEXT,\
PASSWORD:SASL_PLAINTEXT
sasl.enabled.mechanisms=SCRAM-SHA-512
listener.name.password.scram-sha-512.sasl.jaas.config=\
org.apache.kafka.common.security.scram.ScramLoginModule required;
log.dirs={}
offsets.topic.replication.factor=1
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
auto.create.topics.enable=false
broker.session.timeout.ms=3000
broker.heartbeat.interval.ms=500
num.network.threads=2
num.io.threads=2
background.threads=2
log.segment.bytes=67108864
log.cleaner.dedupe.buffer.size=16777216
",
        folder.join(format!("node-{number}")).display()
    )
}

fn format(version: KafkaVersion, settings: &Path) {
    let mut command = Command::new(TOOL);
    command
        .args(["storage", "format", "-t", CLUSTER, "-c"])
        .arg(settings)
        .env("RIG_KAFKA_PART", version.part())
        .env("RIG", super::rig::rig("RIG"));
    let done = command.output().expect("bash and java");
    assert!(
        done.status.success(),
        "{}",
        String::from_utf8_lossy(&done.stderr)
    );
}
