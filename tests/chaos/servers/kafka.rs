//! Three brokers, which are also the controllers.

use std::{
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::Context;

use super::{
    net::Host,
    process::{Process, accepts_connections},
};

pub(crate) const PORT: u16 = 9092;
const CONTROLLER_PORT: u16 = 9093;
const CLUSTER_ID: &str = "Y2hhb3MtY2x1c3Rlci0wMQ";
const TMPFS_SIZE: &str = "size=4g";
/// Limit for a broker to start. It is long because the machine may be busy.
const START_TIMEOUT: Duration = Duration::from_secs(300);
/// Number of brokers.
pub(crate) const BROKERS: u8 = 3;

/// The cluster.
pub(crate) struct Kafka {
    folder: PathBuf,
    /// The folder of the repository, with the rig's scripts.
    root: PathBuf,
    brokers: Vec<Option<Process>>,
}

/// Addresses of the bootstrap servers.
pub(crate) fn servers() -> String {
    (1..=BROKERS)
        .map(|n| format!("{}:{PORT}", Host::Broker(n).address()))
        .collect::<Vec<_>>()
        .join(",")
}

impl Kafka {
    /// Formats and starts all brokers.
    pub(crate) async fn create(run: &Path, root: &Path) -> anyhow::Result<Self> {
        let mut kafka = Self {
            folder: run.join("kafka"),
            root: root.to_owned(),
            brokers: (0..BROKERS).map(|_| None).collect(),
        };
        // In memory: on a busy disk, writes of the controllers take seconds and the quorum
        // fails.
        std::fs::create_dir_all(kafka.data())?;
        super::net::run(
            "mount",
            &[
                "-t",
                "tmpfs",
                "-o",
                TMPFS_SIZE,
                "tmpfs",
                &kafka.data().display().to_string(),
            ],
        )?;
        for number in 1..=BROKERS {
            std::fs::write(kafka.settings(number), kafka.properties(number))?;
        }
        kafka.format().await?;
        for number in 1..=BROKERS {
            kafka.start(number)?;
        }
        for number in 1..=BROKERS {
            kafka.wait_until_up(number).await?;
        }
        Ok(kafka)
    }

    /// Formats the folder of the first broker with Kafka's tool, which takes seconds. The folders
    /// of the other brokers are copies with other ids.
    async fn format(&self) -> anyhow::Result<()> {
        let mut format = self.tool(1);
        format
            .args(["storage", "format", "-t", CLUSTER_ID, "-c"])
            .arg(self.settings(1));
        let done = tokio::task::spawn_blocking(move || format.output()).await??;
        anyhow::ensure!(
            done.status.success(),
            "format: {}",
            String::from_utf8_lossy(&done.stderr)
        );
        let first = self.data().join("broker-1");
        for number in 2..=BROKERS {
            let folder = self.data().join(format!("broker-{number}"));
            std::fs::create_dir_all(&folder)?;
            for file in std::fs::read_dir(&first)? {
                let file = file?;
                std::fs::copy(file.path(), folder.join(file.file_name()))?;
            }
            let properties = std::fs::read_to_string(folder.join("meta.properties"))?;
            let lines = properties.lines().map(|line| match line.split_once('=') {
                Some(("node.id", _)) => format!("node.id={number}\n"),
                // 16 bytes in base64.
                Some(("directory.id", id)) => format!("directory.id=b{number}{}\n", &id[2..]),
                _ => format!("{line}\n"),
            });
            std::fs::write(folder.join("meta.properties"), lines.collect::<String>())?;
        }
        Ok(())
    }

    /// Folder of the data that survives a kill.
    fn data(&self) -> PathBuf {
        self.folder.join("data")
    }

    fn settings(&self, number: u8) -> PathBuf {
        self.folder.join(format!("broker-{number}.properties"))
    }

    /// A command that runs a tool of Kafka on the host of a broker.
    pub(crate) fn tool(&self, number: u8) -> Command {
        let mut command = Host::Broker(number).command("env");
        command
            .arg("RIG_LOG=WARN")
            .arg(self.root.join("tests/rig/kafka/tool"));
        command
    }

    pub(crate) fn start(&mut self, number: u8) -> anyhow::Result<()> {
        let mut command = self.tool(number);
        command.arg("kafka.Kafka").arg(self.settings(number));
        let process = Process::start(command, &self.folder.join(format!("broker-{number}.log")))?;
        self.brokers[usize::from(number) - 1] = Some(process);
        Ok(())
    }

    pub(crate) async fn wait_until_up(&mut self, number: u8) -> anyhow::Result<()> {
        let address = Host::Broker(number).address();
        let broker = self.brokers[usize::from(number) - 1]
            .as_mut()
            .context("the broker was not started")?;
        broker
            .wait_until(&format!("broker {number}"), START_TIMEOUT, async || {
                accepts_connections(&address, PORT).await
            })
            .await
    }

    pub(crate) fn kill(&mut self, number: u8) -> anyhow::Result<()> {
        self.brokers[usize::from(number) - 1]
            .take()
            .context("the broker is already down")?
            .kill()
    }

    pub(crate) fn signal(&self, number: u8, name: &str) -> anyhow::Result<()> {
        self.brokers[usize::from(number) - 1]
            .as_ref()
            .context("the broker is down")?
            .signal(name)
    }

    fn properties(&self, number: u8) -> String {
        let voters: Vec<_> = (1..=BROKERS)
            .map(|n| format!("{n}@{}:{CONTROLLER_PORT}", Host::Broker(n).address()))
            .collect();
        let (voters, address) = (voters.join(","), Host::Broker(number).address());
        format!(
            "process.roles=broker,controller
node.id={number}
controller.quorum.voters={voters}
controller.listener.names=CONTROLLER
inter.broker.listener.name=PLAINTEXT
listeners=PLAINTEXT://{address}:{PORT},CONTROLLER://{address}:{CONTROLLER_PORT}
log.dirs={}
default.replication.factor=3
min.insync.replicas=2
offsets.topic.replication.factor=3
offsets.topic.num.partitions=1
transaction.state.log.replication.factor=3
transaction.state.log.min.isr=2
transaction.state.log.num.partitions=1
auto.create.topics.enable=false
unclean.leader.election.enable=false
broker.session.timeout.ms=4000
broker.heartbeat.interval.ms=500
replica.lag.time.max.ms=5000
controlled.shutdown.enable=true
num.network.threads=2
num.io.threads=2
background.threads=2
log.segment.bytes=67108864
log.cleaner.dedupe.buffer.size=16777216
",
            self.data().join(format!("broker-{number}")).display()
        )
    }
}
