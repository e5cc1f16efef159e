//! PgBouncer in transaction mode. The rig's has 2 connections for each database and user. A
//! separate one for a test can be killed.

use std::{path::PathBuf, process::Child};

use outbox_relay::settings::{Endpoint, RelaySettings};

use super::{
    certificates::Pair,
    postgres::Database,
    rig::rig,
    server::{free_port, program, wait_until_listening},
};

/// Changes settings to connect through the pooler at this port. The migration stays direct.
pub(crate) fn through(mut settings: RelaySettings, port: u16) -> RelaySettings {
    let Endpoint::Host {
        host, port: direct, ..
    } = &mut settings.database.endpoint
    else {
        panic!("a host")
    };
    (*host, *direct) = ("127.0.0.1".to_owned(), port);
    settings.database.pooler = true;
    settings
}

/// The port of the rig's pooler for PostgreSQL 15.
pub(crate) fn shared() -> u16 {
    rig("RIG_PGBOUNCER")
        .rsplit_once(':')
        .expect("address and port")
        .1
        .parse()
        .expect("a port")
}

/// A separate pooler. It is killed when this is dropped.
pub(crate) struct PgBouncer {
    pub(crate) port: u16,
    folder: PathBuf,
    child: Option<Child>,
}

impl PgBouncer {
    /// Starts a pooler for the database's server and the relay's user, with these further lines of
    /// configuration.
    pub(crate) async fn start(database: &Database, more: &str) -> Self {
        let folder = Self::folder(database);
        std::fs::create_dir_all(&folder).expect("created");
        let (port, server) = (free_port().await, database.address().port());
        std::fs::write(
            folder.join("users.txt"),
            format!("\"{}\" \"{}\"\n", database.relay, database.password()),
        )
        .expect("written");
        let configuration = format!(
            "[databases]\n* = host=127.0.0.1 port={server}\n[pgbouncer]\nlisten_addr = \
             127.0.0.1\nlisten_port = {port}\nunix_socket_dir =\n\
             auth_type = scram-sha-256\nauth_file = {}\n{more}\n",
            folder.join("users.txt").display()
        );
        std::fs::write(folder.join("pgbouncer.ini"), configuration).expect("written");
        let mut pooler = Self {
            port,
            folder,
            child: None,
        };
        pooler.up().await;
        pooler
    }

    /// Starts a pooler that accepts only TLS, with this certificate.
    pub(crate) async fn start_with_tls(database: &Database, pair: &Pair, more: &str) -> Self {
        let folder = Self::folder(database);
        std::fs::create_dir_all(&folder).expect("created");
        std::fs::write(folder.join("tls.crt"), &pair.certificate).expect("written");
        std::fs::write(folder.join("tls.key"), &pair.key).expect("written");
        let file = |name: &str| folder.join(name).display().to_string();
        let tls = format!(
            "client_tls_sslmode = require\nclient_tls_cert_file = {}\nclient_tls_key_file = {}",
            file("tls.crt"),
            file("tls.key")
        );
        Self::start(database, &format!("{tls}\n{more}")).await
    }

    fn folder(database: &Database) -> PathBuf {
        std::env::temp_dir().join(format!("{}_pgbouncer", database.name))
    }

    /// Starts the process and waits until it listens.
    pub(crate) async fn up(&mut self) {
        let mut pgbouncer = program("pgbouncer", &self.folder);
        self.child = Some(
            pgbouncer
                .arg(self.folder.join("pgbouncer.ini"))
                .spawn()
                .expect("pgbouncer: `tests/rig/rig up pgbouncer`"),
        );
        wait_until_listening(self.port).await;
    }

    /// Moves a database to the server at this port. Each connection moves when its transaction
    /// ends.
    pub(crate) fn switch_to(&self, database: &str, port: u16) {
        let file = self.folder.join("pgbouncer.ini");
        let before = std::fs::read_to_string(&file).expect("its configuration");
        let leads = format!(
            "[databases]
{database} = host=127.0.0.1 port={port}
"
        );
        std::fs::write(
            &file,
            before.replacen(
                "[databases]
",
                &leads,
                1,
            ),
        )
        .expect("written");
        let pid = self.child.as_ref().expect("it runs").id().to_string();
        assert!(
            std::process::Command::new("kill")
                .args(["-HUP", &pid])
                .status()
                .expect("kill runs")
                .success()
        );
    }

    /// Kills the pooler with SIGKILL.
    pub(crate) fn kill(&mut self) {
        let mut child = self.child.take().expect("it ran");
        child.kill().expect("killed");
        child.wait().expect("ended");
    }

    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.folder.join("log")).unwrap_or_default()
    }
}

impl Drop for PgBouncer {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- log of the pooler\n{}", self.log());
        }
        if self.child.is_some() {
            self.kill();
        }
        std::fs::remove_dir_all(&self.folder).ok();
    }
}
