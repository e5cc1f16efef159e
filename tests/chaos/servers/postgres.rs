//! PostgreSQL 15, as Debian has it, with PgBouncer in front.

use std::{
    os::unix::fs::chown,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::Context;
use sqlx::{ConnectOptions, PgConnection, postgres::PgConnectOptions};

use super::{
    NOBODY,
    net::Host,
    process::{Process, listens},
};

const PROGRAMS: &str = "/usr/lib/postgresql/15/bin";
pub(crate) const PORT: u16 = 5432;
pub(crate) const BOUNCER_PORT: u16 = 6432;
const UP_MAX: Duration = Duration::from_secs(60);

pub(crate) struct Postgres {
    folder: PathBuf,
    server: Option<Process>,
    bouncer: Option<Process>,
}

/// Options of the superuser, who needs no password; through PgBouncer or directly.
pub(crate) fn options(bouncer: bool) -> PgConnectOptions {
    let port = if bouncer { BOUNCER_PORT } else { PORT };
    PgConnectOptions::new_without_pgpass().host(&Host::Postgres.address()).port(port).username("postgres").database("postgres")
}

pub(crate) async fn connect() -> sqlx::Result<PgConnection> {
    options(false).connect().await
}

impl Postgres {
    pub(crate) async fn create(run: &Path) -> anyhow::Result<Self> {
        let folder = run.join("postgres");
        std::fs::create_dir_all(&folder)?;
        chown(&folder, Some(65534), Some(65534))?;
        let mut postgres = Self { folder, server: None, bouncer: None };
        let data = postgres.data();
        let mut initdb = postgres.command("initdb");
        initdb.args(["--username=postgres", "--auth=trust", "--encoding=UTF8", "--locale=C", "--no-sync", "-D"]).arg(&data);
        let done = initdb.output().context("initdb")?;
        anyhow::ensure!(done.status.success(), "initdb: {}", String::from_utf8_lossy(&done.stderr));
        std::fs::write(data.join("pg_hba.conf"), "host all,replication all 10.91.0.0/24 trust\nhost all all 127.0.0.1/32 trust\n")?;
        postgres.start().await?;
        postgres.start_bouncer().await?;
        Ok(postgres)
    }

    fn data(&self) -> PathBuf {
        self.folder.join("data")
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Host::Postgres.command("setpriv");
        command.args(NOBODY).arg(format!("{PROGRAMS}/{program}")).current_dir(&self.folder);
        command
    }

    /// Starts the server, and returns once it takes connections.
    pub(crate) async fn start(&mut self) -> anyhow::Result<()> {
        let mut command = self.command("postgres");
        command.arg("-D").arg(self.data());
        // What is committed survives the end of the process without fsync, and the machine stays on.
        for setting in
            ["listen_addresses=*", "unix_socket_directories=", "fsync=off", "max_connections=200", "max_prepared_transactions=10"]
        {
            command.args(["-c", setting]);
        }
        let mut server = Process::start(command, &self.folder.join("log"))?;
        server.until("PostgreSQL", UP_MAX, async || connect().await.is_ok()).await?;
        self.server = Some(server);
        Ok(())
    }

    /// The postmaster goes by SIGKILL, its children follow, and what it had in memory is gone.
    pub(crate) async fn kill(&mut self) -> anyhow::Result<()> {
        let server = self.server.take().context("PostgreSQL is down already")?;
        let children = std::fs::read_to_string(format!("/proc/{0}/task/{0}/children", server.pid())).unwrap_or_default();
        server.kill()?;
        // A backend that is stopped, or writes, would keep the next server from starting.
        for child in children.split_whitespace() {
            super::net::run("kill", &["-KILL", child]).ok();
        }
        std::fs::remove_file(self.data().join("postmaster.pid")).ok();
        while children.split_whitespace().any(|child| Path::new(&format!("/proc/{child}")).exists()) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        Ok(())
    }

    /// Stops or continues the server with all its processes.
    pub(crate) fn signal_all(&self, name: &str) -> anyhow::Result<()> {
        let server = self.server.as_ref().context("PostgreSQL is down")?;
        let children = std::fs::read_to_string(format!("/proc/{0}/task/{0}/children", server.pid()))?;
        server.signal(name)?;
        for child in children.split_whitespace() {
            // One that has just ended needs no signal.
            super::net::run("kill", &[&format!("-{name}"), child]).ok();
        }
        Ok(())
    }

    pub(crate) async fn start_bouncer(&mut self) -> anyhow::Result<()> {
        let settings = self.folder.join("pgbouncer.ini");
        let address = Host::Postgres.address();
        std::fs::write(
            &settings,
            format!(
                "[databases]\n* = user=postgres host=127.0.0.1 port={PORT}\n[pgbouncer]\nlisten_addr = {address}\nlisten_port = {BOUNCER_PORT}\nunix_socket_dir =\n\
                 auth_type = any\npool_mode = transaction\ndefault_pool_size = 10\nmax_client_conn = 200\n\
                 ignore_startup_parameters = extra_float_digits\n"
            ),
        )?;
        let mut command = Host::Postgres.command("setpriv");
        command.args(NOBODY).arg("pgbouncer").arg(&settings).current_dir(&self.folder);
        let mut bouncer = Process::start(command, &self.folder.join("pgbouncer.log"))?;
        bouncer.until("PgBouncer", UP_MAX, async || listens(&address, BOUNCER_PORT).await).await?;
        self.bouncer = Some(bouncer);
        Ok(())
    }

    pub(crate) fn kill_bouncer(&mut self) -> anyhow::Result<()> {
        self.bouncer.take().context("PgBouncer is down already")?.kill()
    }
}
