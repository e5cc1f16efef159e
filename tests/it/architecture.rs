//! ARCHITECTURE.md in force: who may import whom. Reads the sources; no server.

use std::{
    fs,
    path::{Path, PathBuf},
};

/// What decides, and so takes facts and `now`: no IO, no clock. The operator's modules speak of Kubernetes objects, but not to the API.
const PURE: &[&str] = &[
    "relay/core.rs",
    "relay/core/outage.rs",
    "relay/core/poison.rs",
    "relay/breaker.rs",
    "relay/jitter.rs",
    "relay/openers.rs",
    "relay/outstanding.rs",
    "relay/trials.rs",
    "relay/marks.rs",
    "relay/window.rs",
    "relay/lanes.rs",
    "relay/routes.rs",
    "relay/clock.rs",
    "relay/stale_leaders.rs",
    "relay/stops.rs",
    "relay/partitions.rs",
    "relay/sweep.rs",
    "kafka/fault.rs",
    "kafka/record.rs",
    "kafka/sizes.rs",
    "settings/read.rs",
    "outbox/row.rs",
    "outbox/snapshot.rs",
    "secrets/change.rs",
    "secrets/reading.rs",
    "outbox/store/error.rs",
    "outbox/store/plans.rs",
    "outbox/store/statements.rs",
    "operator/validate.rs",
    "operator/plan.rs",
    "operator/plan/",
    "operator/build.rs",
    "operator/build/",
    "operator/backlog.rs",
    "operator/election.rs",
    "operator/fence.rs",
    "operator/health.rs",
    "operator/pace.rs",
    "operator/installation.rs",
    "operator/upgrades.rs",
    "operator/identity.rs",
    "operator/ownership.rs",
];

struct Source {
    /// Below `src/`.
    path: String,
    /// Without comments and without unit tests.
    code: String,
}

fn sources() -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    collect(&root, &mut files);
    let source = |file: &PathBuf| {
        let path = file.strip_prefix(&root).expect("below src").to_string_lossy().into_owned();
        let text = fs::read_to_string(file).expect("a source file");
        let code = text.split("\n#[cfg(test)]\nmod tests {").next().unwrap_or_default();
        let code = code.lines().filter(|line| !line.trim_start().starts_with("//")).map(without_texts).collect::<Vec<_>>().join("\n");
        Source { path, code }
    };
    let is_test = |path: &str| path.ends_with("tests.rs") || path.starts_with("relay/core/model");
    files.iter().map(source).filter(|source| !is_test(&source.path)).collect()
}

/// What stands between quotes imports nothing.
fn without_texts(line: &str) -> String {
    line.split('"').step_by(2).collect()
}

fn collect(folder: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            collect(&path, files);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
}

impl Source {
    fn is_in(&self, places: &[&str]) -> bool {
        places.iter().any(|place| self.path == *place || (place.ends_with('/') && self.path.starts_with(place)))
    }

    /// Whether it names something below `root`, `kube::Client` for `kube` say; what ends in `(` stands for a call of that name.
    fn uses(&self, root: &str) -> bool {
        let path = if root.ends_with('(') { root.to_owned() } else { format!("{root}::") };
        self.code.match_indices(&path).any(|(at, _)| !self.code[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_'))
    }
}

#[track_caller]
fn nobody(of: impl Fn(&Source) -> bool, uses: &[&str], why: &str) {
    let guilty: Vec<String> = sources()
        .iter()
        .filter(|source| of(source))
        .flat_map(|source| uses.iter().filter(|root| source.uses(root)).map(|root| format!("src/{} uses {root}", source.path)))
        .collect();
    assert!(guilty.is_empty(), "{why}: {guilty:#?}");
}

const RELAY: &[&str] = &["relay.rs", "relay/", "kafka.rs", "kafka/", "outbox.rs", "outbox/", "http.rs", "report.rs"];
const OPERATOR: &[&str] = &["operator.rs", "operator/"];

#[test]
fn the_relay_knows_no_kubernetes() {
    nobody(|source| source.is_in(RELAY), &["kube", "kube_runtime", "k8s_openapi", "crate::operator"], "a relay runs without Kubernetes");
}

#[test]
fn the_operator_knows_neither_kafka_nor_postgres() {
    let halves = &["rdkafka", "sqlx", "crate::kafka", "crate::outbox", "crate::relay"];
    nobody(|source| source.is_in(OPERATOR), halves, "the halves meet in settings and report");
}

#[test]
fn only_the_outbox_speaks_to_postgres() {
    nobody(|source| !source.is_in(&["outbox.rs", "outbox/"]), &["sqlx"], "statements and their timeouts are in one place");
}

/// Behind a pooler a statement outside a transaction may run another client's, and a named one stays on a connection that is not ours.
#[test]
fn statements_go_through_units_of_work() {
    nobody(|source| source.path != "outbox/work.rs", &["persistent("], "only a unit of work knows whether a statement may have a name");
    nobody(|_| true, &["statement_cache_capacity("], "each capacity leaves named statements behind at a pooler");
    let pools = sources().into_iter().filter(|source| source.path != "outbox/work.rs" && source.code.contains("PgPool"));
    assert_eq!(pools.map(|source| source.path).collect::<Vec<_>>(), Vec::<String>::new(), "connections are outbox::Connections");
}

#[test]
fn only_kafka_speaks_to_brokers() {
    nobody(|source| !source.is_in(&["kafka.rs", "kafka/"]), &["rdkafka"], "the producer's profile is in one place");
}

#[test]
fn decisions_take_facts_and_the_time() {
    let io = &[
        "tokio",
        "kube::Client",
        "kube::Api",
        "kube_runtime",
        "std::fs",
        "std::net",
        "Instant::now(",
        "Timestamp::now(",
        "SystemTime::now(",
    ];
    nobody(|source| source.is_in(PURE), io, "what decides is a function of its arguments");
}

#[test]
fn each_pure_module_is_there_and_says_so() {
    let sources = sources();
    for place in PURE.iter().filter(|place| !place.ends_with('/')) {
        assert!(sources.iter().any(|source| source.path == *place), "src/{place} has moved: change the list");
        let text = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("src").join(place)).expect("a source file");
        let header: String = text.lines().take_while(|line| line.starts_with("//!")).collect();
        assert!(header.contains("Pure"), "src/{place} does not say that it is pure");
    }
}

#[test]
fn the_environment_is_read_where_a_process_starts() {
    nobody(|source| !source.is_in(&["bin/"]), &["std::env"], "settings are passed, not found");
}
