//! A separate PostgreSQL server that a test can stop, kill and start again, and functions for all
//! servers that run as processes.

use std::{
    ffi::OsStr,
    fs::Permissions,
    os::unix::{
        fs::{MetadataExt, PermissionsExt, chown},
        process::CommandExt,
    },
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicU32, Ordering},
};

use sqlx::{
    ConnectOptions,
    postgres::{PgConnectOptions, PgSslMode},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

pub(crate) use super::listeners::closed_port as free_port;
use super::{certificates::Pair, relay::until, rig::rig};

static NEXT: AtomicU32 = AtomicU32::new(0);

/// Folder of Debian's programs, which the rig also uses.
const PROGRAMS: &str = "/usr/lib/postgresql/15/bin";
/// Folder of the rig's programs of version 18.
const PROGRAMS_18: &str = "programs/postgres-18.6.0/bin";
/// Id of user `nobody`. Servers refuse to run as root.
const NOBODY: u32 = 65534;

/// A server with its own data folder. It is killed when this is dropped.
pub(crate) struct Server {
    programs: PathBuf,
    port: u16,
    folder: PathBuf,
    child: Option<Child>,
}

impl Server {
    /// A server of version 15.
    pub(crate) async fn create() -> Self {
        Self::create_with(PROGRAMS.into()).await
    }

    /// A server of version 18.
    pub(crate) async fn create_18() -> Self {
        let rig = PathBuf::from(rig("RIG"));
        Self::create_with(rig.join(PROGRAMS_18)).await
    }

    async fn create_with(programs: PathBuf) -> Self {
        let folder = Self::folder();
        let mut initdb = program(programs.join("initdb"), &folder);
        let initdb = initdb.args([
            "--username=postgres",
            "--auth=trust",
            "--encoding=UTF8",
            "--locale=C",
            "--no-sync",
            "-D",
        ]);
        let made = initdb.arg(folder.join("data")).status().expect("initdb");
        assert!(
            made.success(),
            "{}",
            std::fs::read_to_string(folder.join("log")).unwrap_or_default()
        );
        let mut server = Self {
            programs,
            port: free_port().await,
            folder,
            child: None,
        };
        server.up().await;
        server
    }

    fn folder() -> PathBuf {
        let folder = std::env::temp_dir().join(format!(
            "it_server_{}_{}",
            std::process::id(),
            NEXT.fetch_add(1, Ordering::Relaxed)
        ));
        std::fs::create_dir_all(&folder).expect("created");
        folder
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// Options of the superuser.
    pub(crate) fn admin(&self) -> PgConnectOptions {
        PgConnectOptions::new_without_pgpass()
            .host("127.0.0.1")
            .port(self.port)
            // sqlx reads no certificate of version 1, whatever the mode.
            .ssl_mode(PgSslMode::Disable)
            .username("postgres")
            .database("postgres")
    }

    /// A connection of the superuser to database `postgres`.
    pub(crate) async fn connect(&self) -> sqlx::PgConnection {
        self.admin().connect().await.expect("the server")
    }

    /// Starts the server again with this certificate.
    pub(crate) async fn serve_tls(&mut self, pair: &Pair) {
        self.down("INT").await;
        let data = self.folder.join("data");
        let write = |name: &str, content: &str, mode| {
            let path = data.join(name);
            std::fs::write(&path, content).expect("written");
            std::fs::set_permissions(&path, Permissions::from_mode(mode)).expect("restricted");
            let owner = std::fs::metadata(&data).expect("the folder");
            chown(&path, Some(owner.uid()), Some(owner.gid())).expect("given away");
        };
        write("server.crt", &pair.certificate, 0o644);
        write("server.key", &pair.key, 0o600);
        write("postgresql.auto.conf", "ssl = on\n", 0o600);
        self.up().await;
    }

    /// Starts the server and waits until it accepts connections.
    pub(crate) async fn up(&mut self) {
        let mut postgres = program(self.programs.join("postgres"), &self.folder);
        // Without fsync, commits survive the end of the process but not a crash of the machine,
        // which tests do not need.
        let settings = [
            format!("port={}", self.port),
            "fsync=off".to_owned(),
            "unix_socket_directories=".to_owned(),
        ];
        let settings = settings.iter().flat_map(|setting| ["-c", setting]);
        self.child = Some(
            postgres
                .arg("-D")
                .arg(self.folder.join("data"))
                .args(settings)
                .spawn()
                .expect("postgres"),
        );
        until("the server to accept connections", async || {
            self.admin().connect().await.ok()
        })
        .await;
    }

    /// Makes a standby that has received all commits so far and receives no later ones.
    pub(crate) fn start_standby(&self) {
        let mut backup = program(self.programs.join("pg_basebackup"), &self.folder);
        let (port, folder) = (self.port.to_string(), self.folder.join("standby"));
        backup
            .args([
                "--host=127.0.0.1",
                "--username=postgres",
                "--checkpoint=fast",
                "--no-sync",
                "--port",
                &port,
                "--pgdata",
            ])
            .arg(&folder);
        assert!(
            backup.status().expect("pg_basebackup").success(),
            "{}",
            std::fs::read_to_string(self.folder.join("log")).unwrap_or_default()
        );
        std::fs::write(folder.join("standby.signal"), "").expect("written");
    }

    /// Promotes the standby in place of this server, which has ended.
    pub(crate) async fn fail_over(&mut self) {
        std::fs::rename(self.folder.join("data"), self.folder.join("lost")).expect("moved away");
        std::fs::rename(self.folder.join("standby"), self.folder.join("data")).expect("moved in");
        self.promote().await;
    }

    /// Promotes a standby that has received all commits in place of this server, which has ended.
    pub(crate) async fn switch_over(&mut self) {
        std::fs::write(self.folder.join("data/standby.signal"), "").expect("written");
        self.promote().await;
    }

    /// Promotes the standby while this server continues.
    pub(crate) async fn split(&self) -> Self {
        let mut other = Self {
            programs: self.programs.clone(),
            port: free_port().await,
            folder: Self::folder(),
            child: None,
        };
        std::fs::rename(self.folder.join("standby"), other.folder.join("data")).expect("moved in");
        other.promote().await;
        other
    }

    async fn promote(&mut self) {
        self.up().await;
        let mut admin = self.admin().connect().await.expect("the standby");
        super::postgres::execute(&mut admin, "select pg_promote()").await;
    }

    /// Stops the server with a signal and waits until it has ended. With SIGINT it closes its
    /// connections. With SIGQUIT it does not, and recovers at the next start.
    pub(crate) async fn down(&mut self, signal: &str) {
        let mut child = self.child.take().expect("it ran");
        let sent = Command::new("kill")
            .args([format!("-{signal}"), child.id().to_string()])
            .status();
        assert!(sent.expect("kill runs").success());
        until("the server to end", async || {
            child.try_wait().expect("its status")
        })
        .await;
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            Command::new("kill")
                .args(["-QUIT".to_owned(), child.id().to_string()])
                .status()
                .ok();
            child.wait().ok();
        }
        std::fs::remove_dir_all(&self.folder).ok();
    }
}

/// A command for a server's program that runs as `nobody` in this folder and writes to its `log`.
pub(crate) fn program(name: impl AsRef<OsStr>, folder: &Path) -> Command {
    let log = std::fs::File::options()
        .create(true)
        .append(true)
        .open(folder.join("log"))
        .expect("created");
    let mut command = Command::new(name);
    command
        .current_dir(folder)
        .stdin(Stdio::null())
        .stdout(log.try_clone().expect("a second handle"))
        .stderr(log);
    if std::fs::metadata("/proc/self")
        .expect("of this process")
        .uid()
        == 0
    {
        chown(folder, Some(NOBODY), Some(NOBODY)).expect("given away");
        command.uid(NOBODY).gid(NOBODY);
    }
    command
}

pub(crate) async fn wait_until_listening(port: u16) {
    until(&format!("port {port} to listen"), async || {
        TcpStream::connect(("127.0.0.1", port)).await.ok()
    })
    .await;
}

/// The body of an answer over HTTP from this machine. `None` while no server listens.
pub(crate) async fn get(port: u16, path: &str) -> Option<String> {
    get_from("127.0.0.1", port, path).await
}

/// The body of an answer over HTTP from another address of this machine. `None` while no server
/// listens.
pub(crate) async fn get_from(host: &str, port: u16, path: &str) -> Option<String> {
    let mut stream = TcpStream::connect((host, port)).await.ok()?;
    // HTTP 1.0, so that the answer is not chunked.
    stream
        .write_all(format!("GET {path} HTTP/1.0\r\nhost: it\r\n\r\n").as_bytes())
        .await
        .ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.ok()?;
    answer
        .split_once("\r\n\r\n")
        .map(|(_, body)| body.to_owned())
}
