//! Relays as processes. Each has its own host and reads a manifest from a file.

use std::{
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::Context;
use outbox_relay::report::RelayReport;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use super::{kafka, net::Host, process::Process};

const PORT: u16 = 9090;
/// Limit for a relay to drain after SIGTERM.
const STOP_TIMEOUT: Duration = Duration::from_secs(40);
/// Most relays that run at the same time.
pub(crate) const RELAYS_MAX: u8 = 5;
/// The relay whose clock can be stepped.
pub(crate) const STEPPED_CLOCK_RELAY: u8 = 1;

/// All relays of a run.
pub(crate) struct Relays {
    folder: PathBuf,
    program: PathBuf,
    /// Program of another version.
    other: PathBuf,
    topics: Vec<String>,
    arguments: Vec<String>,
    /// The library that changes the time that a program sees.
    faketime: PathBuf,
    running: Vec<Option<Process>>,
}

impl Relays {
    pub(crate) fn new(
        run: &Path,
        program: &Path,
        other: &Path,
        topics: &[String],
        arguments: &[String],
    ) -> anyhow::Result<Self> {
        let folder = run.join("relays");
        std::fs::create_dir_all(&folder)?;
        let faketime = faketime().context("libfaketime is missing: apt-get install faketime")?;
        let running = (0..=RELAYS_MAX).map(|_| None).collect();
        let relays = Self {
            folder,
            program: program.to_owned(),
            other: other.to_owned(),
            topics: topics.to_vec(),
            arguments: arguments.to_vec(),
            faketime,
            running,
        };
        relays.set_clock(0)?;
        Ok(relays)
    }

    /// Writes the manifest of a relay. Every third relay connects through PgBouncer.
    fn manifest(&self, number: u8) -> anyhow::Result<PathBuf> {
        let file = self.folder.join(format!("relay-{number}.yaml"));
        let (host, pooler) = (Host::Postgres.address(), number.is_multiple_of(3));
        let url = |port| format!("postgres://postgres:unused@{host}:{port}/postgres");
        let topics: Vec<_> = self
            .topics
            .iter()
            .map(|name| format!("{{ name: {name} }}"))
            .collect();
        let servers: Vec<_> = kafka::servers()
            .split(',')
            .map(|server| format!("'{server}'"))
            .collect();
        let text = format!(
            "apiVersion: outboxrelay.dev/v1alpha1\nkind: OutboxRelay\n\
             metadata: {{ name: chaos, namespace: chaos }}\nspec:\n  database:\n    \
             urlSecretRef: {{ name: db, key: uri }}\n    tls: {{ mode: disable }}\n    \
             pooler: {pooler}\n  migration:\n    database:\n      \
             urlSecretRef: {{ name: db, key: direct }}\n      tls: {{ mode: disable }}\n  \
             kafka:\n    bootstrapServers: [{}]\n    tls: {{ mode: disable }}\n  \
             topics: [{}]\n---\napiVersion: v1\nkind: Secret\n\
             metadata: {{ name: db, namespace: chaos }}\n\
             stringData: {{ uri: '{}', direct: '{}' }}\n",
            servers.join(", "),
            topics.join(", "),
            url(if pooler { 6432 } else { 5432 }),
            url(5432)
        );
        std::fs::write(&file, text)?;
        Ok(file)
    }

    /// Starts a relay.
    pub(crate) fn start(&mut self, number: u8) -> anyhow::Result<()> {
        let (program, arguments) = (self.program.clone(), self.arguments.clone());
        self.start_program(number, &program, &arguments)
    }

    /// Starts a relay of the other version.
    pub(crate) fn start_other(&mut self, number: u8) -> anyhow::Result<()> {
        let program = self.other.clone();
        self.start_program(number, &program, &[])
    }

    fn start_program(
        &mut self,
        number: u8,
        program: &Path,
        arguments: &[String],
    ) -> anyhow::Result<()> {
        let mut command: Command = Host::Relay(number).command("env");
        command.arg("RUST_BACKTRACE=1");
        if number == STEPPED_CLOCK_RELAY {
            // libfaketime reads the file each second, so that the clock steps while the relay runs.
            let file = self.clock();
            command
                .arg(format!("LD_PRELOAD={}", self.faketime.display()))
                .arg(format!("FAKETIME_TIMESTAMP_FILE={}", file.display()));
            command.args([
                "FAKETIME_CACHE_DURATION=1",
                "FAKETIME_DONT_FAKE_MONOTONIC=1",
            ]);
        }
        command
            .arg(program)
            .args(["run", "--pod", &format!("relay-{number}"), "--manifest"])
            .arg(self.manifest(number)?);
        command.args(["--log", "info"]).args(arguments);
        let process = Process::start(command, &self.folder.join(format!("relay-{number}.log")))?;
        self.running[usize::from(number)] = Some(process);
        Ok(())
    }

    fn clock(&self) -> PathBuf {
        self.folder.join("clock")
    }

    /// Steps the wall clock of relay [`STEPPED_CLOCK_RELAY`].
    pub(crate) fn set_clock(&self, hours: i32) -> anyhow::Result<()> {
        let next = self.folder.join("clock.next");
        std::fs::write(&next, format!("{hours:+}h\n"))?;
        Ok(std::fs::rename(next, self.clock())?)
    }

    pub(crate) fn is_running(&mut self, number: u8) -> bool {
        self.running[usize::from(number)]
            .as_mut()
            .is_some_and(|relay| relay.exit_status().is_none())
    }

    /// The numbers of the running relays.
    pub(crate) fn running(&mut self) -> Vec<u8> {
        (1..=RELAYS_MAX)
            .filter(|number| self.is_running(*number))
            .collect()
    }

    pub(crate) fn kill(&mut self, number: u8) -> anyhow::Result<()> {
        self.running[usize::from(number)]
            .take()
            .with_context(|| format!("relay {number} is not running"))?
            .kill()
    }

    /// Stops a relay with SIGTERM and waits until it has ended.
    pub(crate) async fn stop(&mut self, number: u8) -> anyhow::Result<()> {
        let relay = self.running[usize::from(number)]
            .take()
            .with_context(|| format!("relay {number} is not running"))?;
        relay.stop("TERM", STOP_TIMEOUT).await
    }

    pub(crate) fn signal(&self, number: u8, name: &str) -> anyhow::Result<()> {
        self.running[usize::from(number)]
            .as_ref()
            .with_context(|| format!("relay {number} is not running"))?
            .signal(name)
    }
}

fn faketime() -> Option<PathBuf> {
    let folders = std::fs::read_dir("/usr/lib").ok()?.flatten();
    folders
        .map(|folder| folder.path().join("faketime/libfaketime.so.1"))
        .find(|file| file.exists())
}

/// The status report of a relay. `None` if it does not answer.
pub(crate) async fn report(number: u8) -> Option<RelayReport> {
    serde_json::from_str(&get(number, "/status").await?).ok()
}

/// Body of the answer to a GET request. `None` if the relay does not answer within 2 s.
pub(crate) async fn get(number: u8, path: &str) -> Option<String> {
    let request = async {
        let mut stream = TcpStream::connect((Host::Relay(number).address(), PORT))
            .await
            .ok()?;
        stream
            .write_all(format!("GET {path} HTTP/1.0\r\nhost: chaos\r\n\r\n").as_bytes())
            .await
            .ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.ok()?;
        Some(answer.split_once("\r\n\r\n")?.1.to_owned())
    };
    tokio::time::timeout(Duration::from_secs(2), request)
        .await
        .ok()
        .flatten()
}
