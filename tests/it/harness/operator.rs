//! The operator as a process of its own, as it runs in a pod: killed, stopped, frozen and started
//! again like there.

use std::{
    path::PathBuf,
    process::{Child, Command, ExitStatus, Stdio},
};

use serde_json::{Value, json};

use super::{
    api_proxy::ApiProxy,
    kubernetes::client,
    relay::until,
    server::{free_port, get},
};

/// A running operator, with a proxy of its own before the API server; killed when it goes out of
/// scope.
pub(crate) struct OperatorProcess {
    pub(crate) proxy: ApiProxy,
    child: Child,
    port: u16,
    folder: PathBuf,
    arguments: Vec<String>,
}

impl OperatorProcess {
    /// Starts an operator of one namespace that listens on `port`, as `user` if given.
    pub(crate) async fn start(namespace: &str, port: u16, user: Option<String>) -> Self {
        Self::start_pod(namespace, "pod", port, user, &[]).await
    }

    /// Starts an operator of one namespace on a free port.
    pub(crate) async fn start_anywhere(namespace: &str, user: Option<String>) -> Self {
        Self::start(namespace, free_port().await, user).await
    }

    /// Starts one of several operators, with further arguments.
    pub(crate) async fn start_one(namespace: &str, pod: &str, arguments: &[&str]) -> Self {
        Self::start_pod(namespace, pod, free_port().await, None, arguments).await
    }

    /// Starts an operator on a free port, as `user`, with further arguments.
    pub(crate) async fn start_as(namespace: &str, user: &str, arguments: &[&str]) -> Self {
        Self::start_pod(
            namespace,
            "pod",
            free_port().await,
            Some(user.to_owned()),
            arguments,
        )
        .await
    }

    async fn start_pod(
        namespace: &str,
        pod: &str,
        port: u16,
        user: Option<String>,
        arguments: &[&str],
    ) -> Self {
        let proxy = ApiProxy::start(client(user).await, namespace).await;
        let folder = std::env::temp_dir().join(format!("{namespace}_operator_{pod}"));
        std::fs::create_dir_all(&folder).expect("created");
        let kubeconfig = kubeconfig(&format!("http://{}", proxy.address()));
        std::fs::write(folder.join("kubeconfig"), kubeconfig.to_string()).expect("written");
        let (listen, lease) = (
            format!("127.0.0.1:{port}"),
            format!("{namespace}-outbox-operator"),
        );
        let own = [
            "run",
            "--relay-image",
            "localhost/outbox-relay:none",
            "--listen",
            &listen,
        ];
        let place = [
            "--namespace",
            namespace,
            "--pod-name",
            pod,
            "--lease-name",
            &lease,
        ];
        let arguments = [&own, place.as_slice(), arguments]
            .concat()
            .into_iter()
            .map(str::to_owned)
            .collect::<Vec<_>>();
        let child = spawn(&folder, &arguments);
        Self {
            proxy,
            child,
            port,
            folder,
            arguments,
        }
    }

    /// Starts the process again, as kubelet does after it has ended.
    pub(crate) fn start_again(&mut self) {
        self.child = spawn(&self.folder, &self.arguments);
    }

    /// Method and path with query, as the operator asked.
    pub(crate) fn requests(&self) -> Vec<(String, String)> {
        self.proxy
            .asked()
            .into_iter()
            .map(|asked| (asked.method, asked.path))
            .collect()
    }

    pub(crate) async fn get(&self, path: &str) -> Option<String> {
        get(self.port, path).await
    }

    pub(crate) async fn leads(&self) -> bool {
        self.get("/metrics")
            .await
            .is_some_and(|text| text.lines().any(|line| line == "outbox_operator_leader 1"))
    }

    /// Whether a probe would be content.
    pub(crate) async fn is_fine(&self, path: &str) -> bool {
        self.get(path).await.as_deref() == Some("ok\n")
    }

    pub(crate) fn signal(&self, name: &str) {
        let sent = Command::new("kill")
            .args([format!("-{name}"), self.child.id().to_string()])
            .status();
        assert!(sent.expect("kill runs").success());
    }

    /// Once it has ended.
    pub(crate) async fn ended(&mut self) -> ExitStatus {
        until("the operator to end", async || {
            self.child.try_wait().expect("its status")
        })
        .await
    }

    pub(crate) fn has_ended(&mut self) -> bool {
        self.child.try_wait().expect("its status").is_some()
    }

    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.folder.join("log")).unwrap_or_default()
    }
}

/// For a server that asks for no credentials.
pub(crate) fn kubeconfig(server: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "it",
        "clusters": [{"name": "it", "cluster": {"server": server}}],
        "contexts": [{"name": "it", "context": {"cluster": "it", "user": "it"}}],
        "users": [{"name": "it", "user": {}}],
    })
}

fn spawn(folder: &std::path::Path, arguments: &[String]) -> Child {
    let log = std::fs::File::options()
        .create(true)
        .append(true)
        .open(folder.join("log"))
        .expect("created");
    Command::new(env!("CARGO_BIN_EXE_outbox-operator"))
        .args(arguments)
        .env("KUBECONFIG", folder.join("kubeconfig"))
        .stdout(Stdio::from(log.try_clone().expect("a second handle")))
        .stderr(Stdio::from(log))
        .spawn()
        .expect("the operator's program")
}

impl Drop for OperatorProcess {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!(
                "--- log of the operator in {}\n{}",
                self.folder.display(),
                self.log()
            );
        }
        self.child.kill().ok();
        self.child.wait().ok();
        std::fs::remove_dir_all(&self.folder).ok();
    }
}
