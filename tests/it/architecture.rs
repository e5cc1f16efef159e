//! ARCHITECTURE.md in force: who may import whom. Reads the sources; no server.

mod circles;
mod code_map;
mod cut;
mod docs;
mod figures;
mod functions;
mod lexer;
mod markdown;
mod paths;
mod rooms;
mod source;
mod words;

use source::{Source, pure, sources};

/// What decides, and so must say that it is pure: no module gets out of the rule by saying nothing.
const DECIDING: &[&str] = &[
    "kafka/delivery_error.rs",
    "operator/reconcile/build.rs",
    "operator/process/election.rs",
    "operator/reconcile/plan.rs",
    "operator/reconcile/upgrade_queue.rs",
    "operator/reconcile/validate.rs",
    "outbox/store/plans.rs",
    "relay/core.rs",
    "relay/core/acknowledgement_check.rs",
    "relay/core/breaker.rs",
    "relay/core/delivery_report.rs",
    "relay/core/drain.rs",
    "relay/core/excluded.rs",
    "relay/core/fair_share.rs",
    "relay/core/fetch_plan.rs",
    "relay/core/first_record_gate.rs",
    "relay/core/gap_scan.rs",
    "relay/core/in_flight.rs",
    "relay/core/isolation.rs",
    "relay/core/isolation/bisect.rs",
    "relay/core/isolation/candidates.rs",
    "relay/core/isolation/disposition.rs",
    "relay/core/isolation/probes.rs",
    "relay/core/lane_share.rs",
    "relay/core/owned_lanes.rs",
    "relay/core/patience.rs",
    "relay/core/recent_max.rs",
    "relay/core/routing.rs",
    "relay/core/send_gate.rs",
    "relay/core/send_window.rs",
    "relay/core/sequence_check.rs",
    "relay/core/settle_batch.rs",
    "relay/core/stale_leaders.rs",
    "relay/core/throttle.rs",
    "relay/core/topic_state.rs",
    "relay/core/unacknowledged.rs",
    "relay/core/watermarks.rs",
    "secrets/change.rs",
    "settings/read.rs",
];

/// What a function of its arguments does not do: IO, other tasks, the clock. The operator's modules
/// speak of Kubernetes objects, but not to the API.
const IO: &[&str] = &[
    "tokio",
    "futures",
    "kube::Client",
    "kube::Api",
    "kube::client",
    "kube::runtime",
    "kube_runtime",
    "std::env",
    "std::fs",
    "std::io::stderr",
    "std::io::stdin",
    "std::io::stdout",
    "std::net::TcpListener",
    "std::net::TcpStream",
    "std::net::ToSocketAddrs",
    "std::net::UdpSocket",
    "std::process",
    "std::thread",
    "Instant::now(",
    "Timestamp::now(",
    "SystemTime::now(",
    "Zoned::now(",
    "elapsed(",
    "new_v4(",
];

#[track_caller]
fn forbid(of: impl Fn(&Source) -> bool, uses: &[&str], why: &str) {
    let guilty = guilty(sources().iter().filter(|source| of(source)), uses);
    assert!(guilty.is_empty(), "{why}: {guilty:#?}");
}

fn guilty<'s>(sources: impl Iterator<Item = &'s Source>, uses: &[&str]) -> Vec<String> {
    let used = |source: &Source| -> Vec<String> {
        uses.iter()
            .filter(|root| source.uses(root))
            .map(|root| format!("src/{} uses {root}", source.path))
            .collect()
    };
    sources.flat_map(used).collect()
}

/// Fails, and prints everything that was found, if that is more than `max`.
#[track_caller]
fn at_most(max: usize, found: &[String], why: &str) {
    let count = found.len();
    assert!(
        count <= max,
        "{why}. Found {count}, at most {max} are allowed:\n{}",
        found.join("\n")
    );
}

const RELAY: &[&str] = &[
    "relay.rs",
    "relay/",
    "kafka.rs",
    "kafka/",
    "outbox.rs",
    "outbox/",
    "report.rs",
];
const OPERATOR: &[&str] = &["operator.rs", "operator/"];

#[test]
fn the_relay_knows_no_kubernetes() {
    forbid(
        |source| source.is_in(RELAY),
        &["kube", "kube_runtime", "k8s_openapi", "crate::operator"],
        "a relay runs without Kubernetes",
    );
}

#[test]
fn the_operator_knows_neither_kafka_nor_postgres() {
    let halves = &[
        "rdkafka",
        "sqlx",
        "crate::kafka",
        "crate::outbox",
        "crate::relay",
    ];
    forbid(
        |source| source.is_in(OPERATOR),
        halves,
        "the halves meet in settings and report",
    );
}

#[test]
fn only_the_outbox_speaks_to_postgres() {
    forbid(
        |source| !source.is_in(&["outbox.rs", "outbox/"]),
        &["sqlx"],
        "statements and their timeouts are in one place",
    );
}

/// Behind a pooler a statement outside a transaction may run another client's, and a named one
/// stays on a connection that is not ours.
#[test]
fn statements_go_through_units_of_work() {
    forbid(
        |source| source.path != "outbox/unit_of_work.rs",
        &["persistent("],
        "only a unit of work knows whether a statement may have a name",
    );
    forbid(
        |_| true,
        &["statement_cache_capacity("],
        "each capacity leaves named statements behind at a pooler",
    );
    // The listener of the doorbell's connection needs a pool, which has nothing else.
    let allowed = ["outbox/unit_of_work.rs", "outbox/bell.rs"];
    let pools = sources().into_iter().filter(|source| {
        !allowed.contains(&source.path.as_str()) && source.code.contains("PgPool")
    });
    assert_eq!(
        pools.map(|source| source.path).collect::<Vec<_>>(),
        Vec::<String>::new(),
        "connections are outbox::Connections"
    );
}

#[test]
fn only_kafka_speaks_to_brokers() {
    forbid(
        |source| !source.is_in(&["kafka.rs", "kafka/"]),
        &["rdkafka"],
        "the producer's profile is in one place",
    );
}

#[test]
fn what_says_that_it_is_pure_takes_facts_and_the_time() {
    let sources = sources();
    let pure = pure(&sources);
    assert!(
        pure.len() > 60,
        "only {} modules say that they are pure",
        pure.len()
    );
    let guilty = guilty(pure.iter().copied(), IO);
    assert!(
        guilty.is_empty(),
        "a function of its arguments does none of this; if the module does, its header says what: \
         {guilty:#?}"
    );
}

#[test]
fn what_decides_says_that_it_is_pure() {
    let sources = sources();
    let pure: Vec<&str> = pure(&sources)
        .iter()
        .map(|source| source.path.as_str())
        .collect();
    let silent: Vec<_> = DECIDING
        .iter()
        .filter(|path| !pure.contains(path))
        .collect();
    assert!(
        silent.is_empty(),
        "these have moved, or do not say \"Pure.\" in their header: {silent:?}"
    );
}

/// The rules can fail: each finds what is planted.
#[test]
fn what_is_planted_is_found() {
    let planted = Source::new(
        "relay/core/planted.rs",
        "//! Pure.\nuse kube::{Api, Client};\nuse std::{env, time::Instant};\nfn f() \
         { (Instant::now(), super::super::super::operator::run()) }\n",
    );
    let found = |uses: &[&str]| guilty(std::iter::once(&planted), uses).len();
    assert_eq!(
        found(IO),
        4,
        "kube::Api, kube::Client, std::env and the clock"
    );
    assert_eq!(found(&["kube", "crate::operator"]), 2);
    assert_eq!(found(&["kube_runtime", "crate::outbox", "tokio"]), 0);
}

#[test]
fn the_environment_is_read_where_a_process_starts() {
    forbid(
        |source| !source.is_in(&["bin/"]),
        &["std::env"],
        "settings are passed, not found",
    );
}
