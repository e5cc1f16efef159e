//! A program that runs in a pod handles SIGTERM before anything else. There it is process 1, for
//! which the kernel drops a signal without a handler. Here each program is held up in its first
//! step: the file that it reads is a pipe which nobody has written to yet.

use std::{
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use crate::harness::{
    postgres::{Database, value},
    relay::until,
    server::free_port,
};

/// Bit of SIGTERM in the masks of `/proc/PID/status`.
const SIGTERM_BIT: u64 = 1 << 14;

/// A pipe with a name, which a program reads as a file.
fn pipe(name: &str) -> PathBuf {
    let path = std::env::temp_dir().join(format!("it_{}_{name}", std::process::id()));
    std::fs::remove_file(&path).ok();
    let made = Command::new("mkfifo").arg(&path).status();
    assert!(made.expect("mkfifo runs").success());
    path
}

/// Mask of the signals that a process handles.
fn handled_signals(process: u32) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).ok()?;
    let mask = status
        .lines()
        .find_map(|line| line.strip_prefix("SigCgt:"))?;
    u64::from_str_radix(mask.trim(), 16).ok()
}

/// Starts a program that reads `pipe`, stops it before it has read a byte, and then writes `text`
/// to the pipe. Returns the exit code.
async fn stopped_at_its_first_step(command: &mut Command, pipe: &Path, text: &str) -> Option<i32> {
    let mut child: Child = command
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("the program");
    let process = child.id();
    until("a handler for SIGTERM", async || {
        handled_signals(process).filter(|mask| mask & SIGTERM_BIT != 0)
    })
    .await;
    let sent = Command::new("kill")
        .args(["-TERM", &process.to_string()])
        .status();
    assert!(sent.expect("kill runs").success());
    std::fs::write(pipe, text).expect("the program reads");
    std::fs::remove_file(pipe).ok();
    let ended = until("the program to end", async || {
        child.try_wait().expect("its status")
    })
    .await;
    ended.code()
}

#[tokio::test]
async fn a_relay_that_is_stopped_at_its_first_step_takes_no_lane() {
    let database = Database::create(15).await.migrated().await;
    let (pipe, listen) = (pipe("settings"), free_port().await);
    let mut run = Command::new(env!("CARGO_BIN_EXE_outbox-relay"));
    run.args(["run", "--listen", &format!("127.0.0.1:{listen}")])
        .arg("--settings")
        .arg(&pipe)
        .arg("--secrets")
        .arg(database.secrets_folder());
    let settings = serde_yaml::to_string(&database.settings()).expect("plain data");
    assert_eq!(
        stopped_at_its_first_step(&mut run, &pipe, &settings).await,
        Some(0)
    );
    let instances = "select count(*) from outbox.relay";
    assert_eq!(
        value::<i64>(&mut database.as_admin().await, instances).await,
        0
    );
}

#[tokio::test]
async fn a_migration_that_is_stopped_at_its_first_step_changes_nothing() {
    let database = Database::create(15).await;
    let pipe = pipe("migration");
    let manifest = std::fs::read_to_string(database.manifest("")).expect("written");
    let mut migrate = Command::new(env!("CARGO_BIN_EXE_outbox-relay"));
    migrate.args(["migrate", "--manifest"]).arg(&pipe);
    assert_eq!(
        stopped_at_its_first_step(&mut migrate, &pipe, &manifest).await,
        Some(1)
    );
    let schemas = "select count(*) from pg_namespace where nspname = 'outbox'";
    assert_eq!(
        value::<i64>(&mut database.as_admin().await, schemas).await,
        0
    );
}

#[tokio::test]
async fn an_operator_that_is_stopped_at_its_first_step_ends() {
    let (pipe, listen) = (pipe("kubeconfig"), free_port().await);
    let mut run = Command::new(env!("CARGO_BIN_EXE_outbox-operator"));
    run.args(["run", "--relay-image", "relay:1", "--namespace", "it"])
        .args(["--listen", &format!("127.0.0.1:{listen}")])
        .env("KUBECONFIG", &pipe);
    let kubeconfig = crate::harness::operator::kubeconfig("http://127.0.0.1:1").to_string();
    assert_eq!(
        stopped_at_its_first_step(&mut run, &pipe, &kubeconfig).await,
        Some(0)
    );
}
