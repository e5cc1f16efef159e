//! Debian's Prometheus: `promtool`, and a separate server for a test.

use std::{
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    sync::atomic::{AtomicU32, Ordering},
};

use super::{
    relay::until,
    server::{free_port, get, program},
};
use serde_json::{Value, json};

static NEXT: AtomicU32 = AtomicU32::new(0);

fn tool(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("target/tools/bin")
        .join(name)
}

/// Runs promtool in the project's folder.
pub(crate) fn promtool(arguments: &[&str], input: &str) -> Output {
    use std::io::Write as _;
    let mut command = Command::new(tool("promtool"));
    command
        .args(arguments)
        .current_dir(env!("CARGO_MANIFEST_DIR"));
    let piped = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let mut promtool = piped.expect("tests/tools brings promtool");
    promtool
        .stdin
        .take()
        .expect("a pipe")
        .write_all(input.as_bytes())
        .expect("written");
    promtool.wait_with_output().expect("it ends")
}

/// The output of a program: stdout and stderr.
pub(crate) fn output_text(output: &Output) -> String {
    String::from_utf8_lossy(&[output.stdout.as_slice(), &output.stderr].concat()).into_owned()
}

/// A server that scrapes some addresses each second. It is killed when this is dropped.
pub(crate) struct Prometheus {
    child: Child,
    port: u16,
    folder: PathBuf,
}

/// A port to scrape, with the labels that a monitor of the chart adds.
pub(crate) type Target<'a> = (u16, &'a [(&'a str, &'a str)]);

impl Prometheus {
    pub(crate) async fn start(targets: &[Target<'_>]) -> Self {
        let folder = std::env::temp_dir().join(format!(
            "it_prometheus_{}_{}",
            std::process::id(),
            NEXT.fetch_add(1, Ordering::Relaxed)
        ));
        std::fs::create_dir_all(&folder).expect("created");
        let configs = targets.iter().map(|(port, labels)| {
            let labels: serde_json::Map<String, Value> = labels
                .iter()
                .map(|(name, value)| ((*name).to_owned(), json!(value)))
                .collect();
            json!({"targets": [format!("127.0.0.1:{port}")], "labels": labels})
        });
        let config = json!({
            "global": {"scrape_interval": "1s", "scrape_timeout": "1s"},
            "scrape_configs": [{"job_name": "it", "static_configs": configs.collect::<Vec<_>>()}],
        });
        std::fs::write(folder.join("prometheus.yml"), config.to_string()).expect("written");
        let port = free_port().await;
        let mut server = program(tool("prometheus").to_str().expect("UTF-8"), &folder);
        let server = server.args([
            "--config.file=prometheus.yml",
            "--storage.tsdb.path=data",
            "--log.level=warn",
        ]);
        let child = server
            .arg(format!("--web.listen-address=127.0.0.1:{port}"))
            .spawn()
            .expect("tests/tools brings prometheus");
        let prometheus = Self {
            child,
            port,
            folder,
        };
        until("Prometheus to be ready", async || {
            get(port, "/-/ready")
                .await
                .filter(|text| text.contains("Ready"))
        })
        .await;
        prometheus
    }

    /// The current samples of an expression, or the error.
    pub(crate) async fn query(&self, expression: &str) -> Result<Vec<Value>, String> {
        let answer = get(
            self.port,
            &format!("/api/v1/query?query={}", encoded(expression)),
        )
        .await
        .ok_or("no answer")?;
        let answer: Value =
            serde_json::from_str(&answer).map_err(|error| format!("{error}: {answer}"))?;
        match answer["data"]["result"].as_array() {
            Some(samples) if answer["data"]["resultType"] == "vector" => Ok(samples.clone()),
            _ => Err(answer.to_string()),
        }
    }
}

/// Encodes text for the query of a URL.
fn encoded(text: &str) -> String {
    text.bytes()
        .map(|byte| {
            if byte.is_ascii_alphanumeric() {
                char::from(byte).to_string()
            } else {
                format!("%{byte:02X}")
            }
        })
        .collect()
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!(
                "--- log of Prometheus\n{}",
                std::fs::read_to_string(self.folder.join("log")).unwrap_or_default()
            );
        }
        self.child.kill().ok();
        self.child.wait().ok();
        std::fs::remove_dir_all(&self.folder).ok();
    }
}
