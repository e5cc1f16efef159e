//! PostgreSQL 15 from Debian's packages, with PgBouncer.

mod copies;

use std::{
    os::unix::fs::chown,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::Context;
use sqlx::{ConnectOptions, PgConnection, postgres::PgConnectOptions};

use super::{
    AS_NOBODY,
    net::Host,
    process::{Process, accepts_connections},
};

const PROGRAMS: &str = "/usr/lib/postgresql/15/bin";
pub(crate) const PORT: u16 = 5432;
pub(crate) const BOUNCER_PORT: u16 = 6432;
const TMPFS_SIZE: &str = "size=2g";
const START_TIMEOUT: Duration = Duration::from_secs(60);

/// The server with its standby and its pooler.
pub(crate) struct Postgres {
    folder: PathBuf,
    server: Option<Process>,
    standby: Option<Process>,
    bouncer: Option<Process>,
}

/// Options to connect as superuser, through PgBouncer or directly. No password is needed.
pub(crate) fn options(bouncer: bool) -> PgConnectOptions {
    let port = if bouncer { BOUNCER_PORT } else { PORT };
    PgConnectOptions::new_without_pgpass()
        .host(&Host::Postgres.address())
        .port(port)
        .username("postgres")
        .database("postgres")
}

/// Connects as superuser, without PgBouncer.
pub(crate) async fn connect() -> sqlx::Result<PgConnection> {
    options(false).connect().await
}

async fn is_primary() -> bool {
    let Ok(mut connection) = connect().await else {
        return false;
    };
    sqlx::query_scalar("select not pg_is_in_recovery()")
        .fetch_one(&mut connection)
        .await
        .unwrap_or(false)
}

/// Kills all processes that work in a data folder, so that another server can use it.
async fn kill_processes_in(data: &Path) -> anyhow::Result<()> {
    let processes_there = || {
        let processes = std::fs::read_dir("/proc").into_iter().flatten().flatten();
        processes
            .filter(|process| {
                std::fs::read_link(process.path().join("cwd")).is_ok_and(|cwd| cwd == data)
            })
            .collect::<Vec<_>>()
    };
    loop {
        let left = processes_there();
        if left.is_empty() {
            break;
        }
        for process in left {
            super::net::run("kill", &["-KILL", &process.file_name().to_string_lossy()]).ok();
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    std::fs::remove_file(data.join("postmaster.pid")).ok();
    Ok(())
}

impl Postgres {
    pub(crate) async fn create(run: &Path) -> anyhow::Result<Self> {
        let folder = run.join("postgres");
        std::fs::create_dir_all(&folder)?;
        // A separate file system, so that it can be full.
        super::net::run(
            "mount",
            &[
                "-t",
                "tmpfs",
                "-o",
                TMPFS_SIZE,
                "tmpfs",
                &folder.display().to_string(),
            ],
        )?;
        chown(&folder, Some(65534), Some(65534))?;
        let mut postgres = Self {
            folder,
            server: None,
            standby: None,
            bouncer: None,
        };
        let data = postgres.data();
        let mut initdb = postgres.command("initdb");
        initdb
            .args([
                "--username=postgres",
                "--auth=trust",
                "--encoding=UTF8",
                "--locale=C",
                "--no-sync",
                "-D",
            ])
            .arg(&data);
        let done = initdb.output().context("initdb")?;
        anyhow::ensure!(
            done.status.success(),
            "initdb: {}",
            String::from_utf8_lossy(&done.stderr)
        );
        std::fs::write(
            data.join("pg_hba.conf"),
            "host all,replication all 10.91.0.0/24 trust\nhost all,replication all 127.0.0.1/32 \
             trust\n",
        )?;
        postgres.start().await?;
        postgres.start_bouncer().await?;
        Ok(postgres)
    }

    fn data(&self) -> PathBuf {
        self.folder.join("data")
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Host::Postgres.command("setpriv");
        command
            .args(AS_NOBODY)
            .arg(format!("{PROGRAMS}/{program}"))
            .current_dir(&self.folder);
        command
    }

    /// Starts the server, and waits until it accepts connections.
    pub(crate) async fn start(&mut self) -> anyhow::Result<()> {
        self.start_with(&[]).await
    }

    async fn start_with(&mut self, settings: &[&str]) -> anyhow::Result<()> {
        let mut server = self.launch(&self.data(), PORT, settings)?;
        server
            .wait_until("PostgreSQL", START_TIMEOUT, async || is_primary().await)
            .await?;
        self.server = Some(server);
        Ok(())
    }

    fn launch(&self, data: &Path, port: u16, settings: &[&str]) -> anyhow::Result<Process> {
        let mut command = self.command("postgres");
        command.arg("-D").arg(data).args(["-p", &port.to_string()]);
        // Without fsync, commits survive the end of the process but not a crash of the machine,
        // which the test does not need.
        let always = [
            "listen_addresses=*",
            "unix_socket_directories=",
            "fsync=off",
            "max_connections=200",
            "max_wal_size=128MB",
        ];
        for setting in always.iter().chain(settings) {
            command.args(["-c", setting]);
        }
        Process::start(command, &self.folder.with_extension("log"))
    }

    /// Kills all processes of the server with SIGKILL.
    pub(crate) async fn kill(&mut self) -> anyhow::Result<()> {
        self.server
            .take()
            .context("PostgreSQL is already down")?
            .kill()?;
        kill_processes_in(&self.data()).await
    }

    /// Sends a signal to all processes of the server: `STOP` or `CONT`.
    pub(crate) fn signal_all(&self, name: &str) -> anyhow::Result<()> {
        self.server
            .as_ref()
            .context("PostgreSQL is down")?
            .signal_with_children(name)
    }

    pub(crate) async fn start_bouncer(&mut self) -> anyhow::Result<()> {
        let settings = self.folder.join("pgbouncer.ini");
        let address = Host::Postgres.address();
        std::fs::write(
            &settings,
            format!(
                "[databases]\n* = user=postgres host=127.0.0.1 port={PORT}\n[pgbouncer]\n\
                 listen_addr = {address}\nlisten_port = {BOUNCER_PORT}\nunix_socket_dir =\n\
                 auth_type = any\npool_mode = transaction\ndefault_pool_size = 10\n\
                 max_client_conn = 200\n\
                 ignore_startup_parameters = extra_float_digits\n"
            ),
        )?;
        let mut command = Host::Postgres.command("setpriv");
        command
            .args(AS_NOBODY)
            .arg("pgbouncer")
            .arg(&settings)
            .current_dir(&self.folder);
        let mut bouncer = Process::start(command, &self.folder.with_file_name("pgbouncer.log"))?;
        bouncer
            .wait_until("PgBouncer", START_TIMEOUT, async || {
                accepts_connections(&address, BOUNCER_PORT).await
            })
            .await?;
        self.bouncer = Some(bouncer);
        Ok(())
    }

    pub(crate) fn kill_bouncer(&mut self) -> anyhow::Result<()> {
        self.bouncer
            .take()
            .context("PgBouncer is already down")?
            .kill()
    }
}
