//! A PostgreSQL server of a test's own, which may be stopped, killed and started again; and what
//! servers as processes have in common.

use std::{
    os::unix::{
        fs::{MetadataExt, chown},
        process::CommandExt,
    },
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicU32, Ordering},
};

use sqlx::{ConnectOptions, postgres::PgConnectOptions};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

use super::relay::until;

static NEXT: AtomicU32 = AtomicU32::new(0);

/// Debian's, as the rig uses them.
const PROGRAMS: &str = "/usr/lib/postgresql/15/bin";
/// `nobody`: servers refuse to run as root.
const NOBODY: u32 = 65534;

/// Version 15, with a data folder of its own; ended when it goes out of scope.
pub(crate) struct Server {
    port: u16,
    folder: PathBuf,
    child: Option<Child>,
}

impl Server {
    pub(crate) async fn create() -> Self {
        let folder = Self::folder();
        let mut initdb = program(&format!("{PROGRAMS}/initdb"), &folder);
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
            .username("postgres")
            .database("postgres")
    }

    /// Starts it, and returns once it takes connections.
    pub(crate) async fn up(&mut self) {
        let mut postgres = program(&format!("{PROGRAMS}/postgres"), &self.folder);
        // What is committed survives the end of the process without fsync, and the machine stays
        // on.
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
        until("the server to take connections", async || {
            self.admin().connect().await.ok()
        })
        .await;
    }

    /// A standby that has received what is committed now, and nothing later.
    pub(crate) fn stand_by(&self) {
        let mut backup = program(&format!("{PROGRAMS}/pg_basebackup"), &self.folder);
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

    /// The standby takes the place of this server, which has ended, and is promoted.
    pub(crate) async fn fail_over(&mut self) {
        std::fs::rename(self.folder.join("data"), self.folder.join("lost")).expect("moved away");
        std::fs::rename(self.folder.join("standby"), self.folder.join("data")).expect("moved in");
        self.promote().await;
    }

    /// This server has ended; a standby that had received everything takes its place, and is
    /// promoted.
    pub(crate) async fn switch_over(&mut self) {
        std::fs::write(self.folder.join("data/standby.signal"), "").expect("written");
        self.promote().await;
    }

    /// The standby is promoted, and this server goes on.
    pub(crate) async fn split(&self) -> Self {
        let mut other = Self {
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

    /// With SIGINT it says goodbye to its clients; with SIGQUIT it does not, and recovers when it
    /// is started again. Returns once it has ended.
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

/// A server's program, never as root, that works in this folder and writes to its `log`.
pub(crate) fn program(name: &str, folder: &Path) -> Command {
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

pub(crate) async fn listens(port: u16) {
    until(&format!("port {port} to listen"), async || {
        TcpStream::connect(("127.0.0.1", port)).await.ok()
    })
    .await;
}

pub(crate) async fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    listener.local_addr().expect("its address").port()
}

/// The body of an answer over HTTP, of this machine; `None` while nobody listens.
pub(crate) async fn get(port: u16, path: &str) -> Option<String> {
    get_from("127.0.0.1", port, path).await
}

/// The same, from another of its addresses.
pub(crate) async fn get_from(host: &str, port: u16, path: &str) -> Option<String> {
    let mut stream = TcpStream::connect((host, port)).await.ok()?;
    // Of HTTP 1.0, so that the answer comes in one piece.
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
