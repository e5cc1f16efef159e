//! A separate, empty API server without controllers, for tests of a whole cluster, such as of its
//! CRDs.

use std::{
    io::Write as _,
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    sync::atomic::{AtomicU32, Ordering},
};

use super::{relay::until, rig::rig, server::free_port};

static NEXT: AtomicU32 = AtomicU32::new(0);

/// etcd and kube-apiserver. They are killed when this is dropped.
pub(crate) struct ApiServer {
    children: Vec<Child>,
    folder: PathBuf,
}

impl ApiServer {
    pub(crate) async fn start() -> Self {
        let folder = std::env::temp_dir().join(format!(
            "it_api_{}_{}",
            std::process::id(),
            NEXT.fetch_add(1, Ordering::Relaxed)
        ));
        std::fs::create_dir_all(&folder).expect("created");
        let mut server = Self {
            children: vec![],
            folder,
        };
        let (clients, peers, port) = (free_port().await, free_port().await, free_port().await);
        let (clients, peers) = (
            format!("http://127.0.0.1:{clients}"),
            format!("http://127.0.0.1:{peers}"),
        );
        server.run(
            "etcd",
            &[
                "--unsafe-no-fsync".to_owned(),
                format!("--data-dir={}/etcd", server.folder.display()),
                format!("--listen-client-urls={clients}"),
                format!("--advertise-client-urls={clients}"),
                format!("--listen-peer-urls={peers}"),
                format!("--initial-advertise-peer-urls={peers}"),
                format!("--initial-cluster=default={peers}"),
            ],
        );
        // With the rig's certificates, its administrator can log in.
        let kubeconfig = PathBuf::from(rig("RIG_KUBECONFIG"));
        let pki = kubeconfig.parent().expect("a folder").join("pki");
        let pki = |file: &str| pki.join(file).display().to_string();
        server.run(
            "kube-apiserver",
            &[
                format!("--etcd-servers={clients}"),
                "--bind-address=127.0.0.1".to_owned(),
                format!("--secure-port={port}"),
                "--authorization-mode=RBAC".to_owned(),
                format!("--client-ca-file={}", pki("ca.crt")),
                format!("--tls-cert-file={}", pki("apiserver.crt")),
                format!("--tls-private-key-file={}", pki("apiserver.key")),
                "--service-account-issuer=https://it.invalid".to_owned(),
                format!("--service-account-key-file={}", pki("service-account.pub")),
                format!(
                    "--service-account-signing-key-file={}",
                    pki("service-account.key")
                ),
                "--service-cluster-ip-range=10.97.0.0/24".to_owned(),
            ],
        );
        let text = std::fs::read_to_string(&kubeconfig).expect("the rig's kubeconfig");
        std::fs::write(
            server.kubeconfig(),
            text.replace(":6443", &format!(":{port}")),
        )
        .expect("written");
        until("the API server to be ready", async || {
            server
                .kubectl(&["get", "--raw", "/readyz"], "")
                .status
                .success()
                .then_some(())
        })
        .await;
        server
    }

    fn run(&mut self, name: &str, arguments: &[String]) {
        let log = std::fs::File::create(self.folder.join(format!("{name}.log"))).expect("created");
        let mut command = Command::new(Path::new(&rig("RIG_BIN")).join(name));
        let command = command
            .args(arguments)
            .stdout(Stdio::null())
            .stderr(Stdio::from(log));
        self.children
            .push(command.spawn().expect("the rig has its program"));
    }

    pub(crate) fn kubeconfig(&self) -> PathBuf {
        self.folder.join("kubeconfig")
    }

    /// Writes a file that commands can read. Returns its path.
    pub(crate) fn file(&self, name: &str, content: &str) -> String {
        let path = self.folder.join(name);
        std::fs::write(&path, content).expect("written");
        path.display().to_string()
    }

    pub(crate) fn kubectl(&self, arguments: &[&str], input: &str) -> Output {
        self.command("kubectl", arguments, input)
    }

    pub(crate) fn helm(&self, arguments: &[&str]) -> Output {
        self.command("helm", arguments, "")
    }

    fn command(&self, name: &str, arguments: &[&str], input: &str) -> Output {
        let mut command = Command::new(Path::new(&rig("RIG_BIN")).join(name));
        command.args(arguments).env("KUBECONFIG", self.kubeconfig());
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the rig has its program");
        child
            .stdin
            .take()
            .expect("piped")
            .write_all(input.as_bytes())
            .expect("it reads its input");
        child.wait_with_output().expect("it ends")
    }
}

impl Drop for ApiServer {
    fn drop(&mut self) {
        for child in self.children.iter_mut().rev() {
            child.kill().ok();
            child.wait().ok();
        }
        if std::thread::panicking() {
            let log =
                std::fs::read_to_string(self.folder.join("kube-apiserver.log")).unwrap_or_default();
            let last: Vec<&str> = log.lines().rev().take(20).collect();
            eprintln!(
                "--- last lines of kube-apiserver\n{}",
                last.into_iter().rev().collect::<Vec<_>>().join("\n")
            );
        }
        std::fs::remove_dir_all(&self.folder).ok();
    }
}
