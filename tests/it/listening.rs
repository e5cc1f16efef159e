//! Both programs listen on IPv4 and IPv6, because a pod may have only an IPv6 address.

use std::process::{Child, Command, Stdio};

use tokio::net::TcpListener;

use crate::harness::{
    operator::kubeconfig,
    postgres::Database,
    relay::until,
    server::{free_port, get_from},
};

/// A running program. It is killed when this is dropped.
struct Program {
    child: Child,
    port: u16,
}

impl Program {
    /// Starts a program with the listen address of the Deployment or the chart.
    async fn start(command: &mut Command) -> Self {
        let port = free_port().await;
        let listening = command
            .args(["--listen", &format!("[::]:{port}")])
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        Self {
            child: listening.spawn().expect("the program"),
            port,
        }
    }

    async fn answers_everywhere(&self) {
        let has_ipv6 = TcpListener::bind("[::1]:0").await.is_ok();
        for host in ["127.0.0.1", "::1"]
            .into_iter()
            .filter(|host| has_ipv6 || *host != "::1")
        {
            until(&format!("an answer from {host}"), async || {
                get_from(host, self.port, "/metrics").await
            })
            .await;
        }
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

#[tokio::test]
async fn a_relay_answers_on_ipv4_and_on_ipv6() {
    let database = Database::create(15).await;
    let settings = database.secrets_folder().join("settings.yaml");
    std::fs::write(
        &settings,
        serde_yaml::to_string(&database.settings()).expect("plain data"),
    )
    .expect("written");
    let mut run = Command::new(env!("CARGO_BIN_EXE_outbox-relay"));
    run.args(["run", "--settings"])
        .arg(&settings)
        .arg("--secrets")
        .arg(database.secrets_folder());
    Program::start(&mut run).await.answers_everywhere().await;
}

/// The operator's API server is not available.
#[tokio::test]
async fn an_operator_answers_on_ipv4_and_on_ipv6() {
    let file = std::env::temp_dir().join(format!("it_{}_listening", std::process::id()));
    std::fs::write(&file, kubeconfig("http://127.0.0.1:1").to_string()).expect("written");
    let mut run = Command::new(env!("CARGO_BIN_EXE_outbox-operator"));
    run.args(["run", "--relay-image", "relay:1", "--namespace", "it"])
        .env("KUBECONFIG", &file);
    Program::start(&mut run).await.answers_everywhere().await;
    std::fs::remove_file(file).ok();
}
