//! A relay as a separate process, started as in a pod. Tests kill and stop it and request its
//! status.

use std::{
    path::PathBuf,
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicU32, Ordering},
    time::{Duration, Instant},
};

use outbox_relay::{report::RelayReport, settings::RelaySettings};

use super::{
    fake_clock::FakeClock,
    postgres::Database,
    server::{free_port, get},
};

static NEXT: AtomicU32 = AtomicU32::new(0);

/// A running relay. It is killed when this is dropped.
pub(crate) struct Relay {
    child: Child,
    port: u16,
    folder: PathBuf,
}

impl Relay {
    pub(crate) async fn start(database: &Database, settings: &RelaySettings) -> Self {
        Self::start_with(database, settings, &[]).await
    }

    /// Starts a relay with further arguments.
    pub(crate) async fn start_with(
        database: &Database,
        settings: &RelaySettings,
        arguments: &[&str],
    ) -> Self {
        Self::launch(database, settings, arguments, |_| {}).await
    }

    /// Starts a relay on a node with this clock.
    pub(crate) async fn start_at(
        clock: &FakeClock,
        database: &Database,
        settings: &RelaySettings,
    ) -> Self {
        Self::launch(database, settings, &[], |program| clock.give_to(program)).await
    }

    async fn launch(
        database: &Database,
        settings: &RelaySettings,
        arguments: &[&str],
        change: impl FnOnce(&mut Command),
    ) -> Self {
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let folder = std::env::temp_dir().join(format!("{}_relay_{number}", database.name));
        std::fs::create_dir_all(&folder).expect("created");
        std::fs::write(
            folder.join("settings.yaml"),
            serde_yaml::to_string(settings).expect("plain data"),
        )
        .expect("written");
        let port = free_port().await;
        let log = std::fs::File::create(folder.join("log")).expect("created");
        let mut program = Command::new(env!("CARGO_BIN_EXE_outbox-relay"));
        change(&mut program);
        let child = program
            .args([
                "run",
                "--listen",
                &format!("127.0.0.1:{port}"),
                "--pod",
                &format!("relay-{number}"),
            ])
            .arg("--settings")
            .arg(folder.join("settings.yaml"))
            .arg("--secrets")
            .arg(database.secrets_folder())
            .args(arguments)
            .stdout(Stdio::from(log.try_clone().expect("a second handle")))
            .stderr(Stdio::from(log))
            .spawn()
            .expect("the relay's program");
        Self {
            child,
            port,
            folder,
        }
    }

    /// Kills the relay with SIGKILL.
    pub(crate) fn kill(&mut self) {
        self.child.kill().expect("it ran");
        self.child.wait().expect("it ended");
    }

    /// Stops the relay with SIGTERM and waits until it has ended.
    pub(crate) async fn stop(&mut self) {
        self.signal("TERM");
        let status = until("the relay to end", async || {
            self.child.try_wait().expect("its status")
        })
        .await;
        assert!(status.success(), "it ended with {status}: {}", self.log());
    }

    pub(crate) fn signal(&self, name: &str) {
        let sent = Command::new("kill")
            .args([format!("-{name}"), self.child.id().to_string()])
            .status();
        assert!(sent.expect("kill runs").success());
    }

    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.folder.join("log")).unwrap_or_default()
    }

    /// The status report. `None` while the relay does not listen.
    pub(crate) async fn report(&self) -> Option<RelayReport> {
        serde_json::from_str(&self.get("/status").await?).ok()
    }

    /// The status report as text.
    pub(crate) async fn status(&self) -> String {
        self.get("/status").await.unwrap_or_default()
    }

    /// All metrics as text.
    pub(crate) async fn metrics(&self) -> String {
        self.get("/metrics").await.unwrap_or_default()
    }

    /// The value of a metric without labels, or 0 if there is none.
    pub(crate) async fn metric(&self, name: &str) -> f64 {
        let text = self.metrics().await;
        let line = text
            .lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line.map_or(0.0, |value| value.parse().expect("a number"))
    }

    /// The body of an answer. `None` while the relay does not listen.
    pub(crate) async fn get(&self, path: &str) -> Option<String> {
        get(self.port, path).await
    }

    /// Most memory that the process has had, in bytes.
    pub(crate) fn peak_memory(&self) -> usize {
        let status = format!("/proc/{}/status", self.child.id());
        let status = std::fs::read_to_string(status).expect("it runs");
        let line = status.lines().find(|line| line.starts_with("VmHWM:"));
        let kib = line.and_then(|line| line.split_whitespace().nth(1));
        kib.and_then(|kib| kib.parse::<usize>().ok())
            .expect("a number")
            << 10
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- log of the relay\n{}", self.log());
        }
        self.child.kill().ok();
        self.child.wait().ok();
        std::fs::remove_dir_all(&self.folder).ok();
    }
}

/// Limit for [`until`]. It is long because a relay on a busy machine counts its rows rarely: it
/// waits a hundred times as long as counting took.
const ANSWER_MAX: Duration = Duration::from_secs(180);

/// Repeats a check until it returns a value.
///
/// # Panics
///
/// After [`ANSWER_MAX`].
pub(crate) async fn until<T>(what: &str, mut ask: impl AsyncFnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + ANSWER_MAX;
    loop {
        if let Some(answer) = ask().await {
            return answer;
        }
        assert!(
            Instant::now() < deadline,
            "waited {ANSWER_MAX:?} for {what}"
        );
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
