//! Secrets that change while a relay runs: nothing restarts, nothing fails, and there are no
//! duplicates. An unusable or rejected secret is a problem, and the last good one is used until it
//! is fixed.

use std::time::Duration;

use outbox_relay::{
    report::{Problem, ProblemClass},
    settings::{
        OnPoison, RelaySettings, SaslMechanism, SaslSettings, TlsMode, TlsSettings, TopicSettings,
    },
};

use crate::harness::{
    certificates::{Pair, client},
    kafka::{create_topic, read_all, set_scram_password, topic_name},
    outbox::wait_until_drained,
    postgres::{Database, execute, values},
    relay::{Relay, until},
    rig::{certificate, rig},
    writers::{Committed, Load, Steady, verify, write},
};

/// A relay that logs at the most detailed level, and its secrets.
struct Setup {
    database: Database,
    settings: RelaySettings,
    topic: String,
    /// Contents that must never be logged or reported.
    secrets: Vec<String>,
}

impl Setup {
    async fn new(version: u32) -> Self {
        let database = Database::create(version).await.migrated().await;
        let topic = topic_name("rotated");
        create_topic(&topic).await;
        let declared = TopicSettings {
            name: topic.clone(),
            event_types: vec![],
            aggregate_types: vec![],
            on_poison: OnPoison::default(),
        };
        let settings = database.publishing(vec![declared]);
        Self {
            database,
            settings,
            topic,
            secrets: vec![],
        }
    }

    /// A setup with the listener that requires a password, with a separate user.
    async fn with_kafka_password(version: u32, password: &str) -> (Self, String) {
        let mut setup = Self::new(version).await;
        let user = setup.topic.clone();
        set_scram_password(&user, password).await;
        setup.settings.kafka.bootstrap_servers = vec![rig("RIG_KAFKA_SASL_SSL")];
        setup.settings.kafka.tls = TlsSettings {
            mode: TlsMode::VerifyFull,
            ca: true,
            client_certificate: false,
        };
        setup.settings.kafka.sasl = Some(SaslSettings {
            mechanism: SaslMechanism::ScramSha512,
            username: user.clone(),
        });
        setup.write("kafka/ca.crt", &certificate("ca.crt"));
        setup.write("kafka/password", password);
        (setup, user)
    }

    /// A setup with the listener that requires a client certificate.
    async fn with_kafka_certificate(version: u32) -> Self {
        let mut setup = Self::new(version).await;
        setup.settings.kafka.bootstrap_servers = vec![rig("RIG_KAFKA_MTLS")];
        setup.settings.kafka.tls = TlsSettings {
            mode: TlsMode::VerifyFull,
            ca: true,
            client_certificate: true,
        };
        setup.write("kafka/ca.crt", &certificate("ca.crt"));
        setup.write_pair("kafka", &client("first"));
        setup
    }

    /// Writes a secret file. Its content must not be logged or reported.
    fn write(&mut self, file: &str, content: &str) {
        // Any line in the middle of a PEM file would reveal it.
        let middle = content.lines().nth(1).unwrap_or(content);
        self.secrets.push(middle.to_owned());
        self.database.write_secret(file, content);
    }

    fn write_pair(&mut self, side: &str, pair: &Pair) {
        self.write(&format!("{side}/tls.crt"), &pair.certificate);
        self.write(&format!("{side}/tls.key"), &pair.key);
    }

    async fn start(&self) -> Relay {
        let relay = Relay::start_with(&self.database, &self.settings, &["--log", "debug"]).await;
        until("all lanes", async || {
            relay.report().await.filter(|report| report.lanes == 64)
        })
        .await;
        relay
    }

    fn load(&self) -> Load {
        let (during, open_max) = (Duration::from_secs(15), Duration::from_millis(100));
        Load {
            topic: self.topic.clone(),
            writers: 8,
            keys: 100,
            during,
            open_max,
            pause_max: Duration::ZERO,
        }
    }

    /// A service that writes 1,000 rows per second.
    fn busy_service(&self) -> Steady {
        Steady::start(&self.database, &self.topic, 50)
    }

    /// Asserts that nothing failed, restarted, was lost, duplicated or out of order, and that no
    /// secret was shown.
    async fn expect_a_quiet_rotation(&self, relay: &Relay, instance: &str, committed: &Committed) {
        wait_until_drained(&self.database).await;
        let topic = self.topic.clone();
        let records = tokio::task::spawn_blocking(move || read_all(&topic))
            .await
            .expect("read");
        eprintln!("ROWS {}", records.len());
        assert_eq!(
            verify(committed, &records),
            0,
            "duplicates; log: {}",
            relay.log()
        );
        let report = relay.report().await.expect("a report");
        assert_eq!(report.instance, instance, "the relay restarted");
        let metrics = relay.metrics().await;
        let failed: Vec<&str> = metrics
            .lines()
            .filter(|line| line.starts_with("outbox_events_failed_total{"))
            .collect();
        assert!(failed.iter().all(|line| line.ends_with(" 0")), "{failed:?}");
        self.expect_nothing_shown(relay).await;
    }

    async fn expect_nothing_shown(&self, relay: &Relay) {
        let shown = format!(
            "{}{}{}",
            relay.log(),
            relay.metrics().await,
            relay.status().await
        );
        assert!(
            shown.contains("outbox_lanes_owned") && shown.contains("problems"),
            "nothing to search: {shown}"
        );
        for secret in &self.secrets {
            assert!(secret.len() > 10, "too short to search for: {secret}");
            let line = shown.lines().find(|line| line.contains(secret));
            assert_eq!(line, None, "shows {secret}");
        }
    }

    /// Waits until one more row arrives.
    async fn still_publishes(&self) {
        let insert = "insert into outbox.event (event_id, aggregate_type, aggregate_id, \
            event_type, topic, payload)";
        let topic = &self.topic;
        let sql = format!("{insert} values (gen_random_uuid(), 'a', 'k', 'E', '{topic}', 'x')");
        execute(&mut self.database.as_admin().await, &sql).await;
        wait_until_drained(&self.database).await;
    }
}

async fn instance(relay: &Relay) -> String {
    relay.report().await.expect("a report").instance
}

/// Waits until rows are published, and until a number of further rows have arrived.
async fn wait_until_publishing(relay: &Relay) {
    let before = relay.metric("outbox_publish_latency_seconds_count").await;
    until("rows to be published", async || {
        (relay.metric("outbox_publish_latency_seconds_count").await > before + 100.0).then_some(())
    })
    .await;
}

async fn logged(relay: &Relay, text: &str, times: usize) {
    until(&format!("{times} times '{text}' in the log"), async || {
        (relay.log().matches(text).count() >= times).then_some(())
    })
    .await;
}

async fn problem(relay: &Relay, class: ProblemClass) -> Problem {
    until(&format!("problem {class}"), async || {
        relay
            .report()
            .await?
            .problems
            .into_iter()
            .find(|problem| problem.class == class)
    })
    .await
}

async fn wait_until_resolved(relay: &Relay) {
    until("no problem", async || {
        let quiet = |class| matches!(class, ProblemClass::TopicUnderReplicated);
        relay
            .report()
            .await
            .filter(|report| report.problems.iter().all(|problem| quiet(problem.class)))
    })
    .await;
}

const PRODUCER_REPLACED: &str = "the producer is replaced";

/// Ids of the server processes of the relay's connections.
async fn backends(database: &Database) -> Vec<i32> {
    let of_relay = format!(
        "select pid from pg_stat_activity where application_name = 'outbox-relay' and datname = \
         '{}'",
        database.name
    );
    values(&mut database.as_admin().await, &of_relay).await
}

async fn all_new(database: &Database, old: &[i32]) {
    until("new connections only", async || {
        let now = backends(database).await;
        (!now.is_empty() && now.iter().all(|pid| !old.contains(pid))).then_some(())
    })
    .await;
}

async fn alter_password(database: &Database, password: &str) {
    execute(
        &mut database.as_admin().await,
        &format!("alter role {} password '{password}'", database.relay),
    )
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_database_password_is_rotated_under_load() {
    let mut setup = Setup::new(15).await;
    let relay = setup.start().await;
    let instance = instance(&relay).await;
    let service = setup.busy_service();
    for password in ["first-new-password", "second-new-password"] {
        wait_until_publishing(&relay).await;
        let old = backends(&setup.database).await;
        alter_password(&setup.database, password).await;
        setup.write("database/password", password);
        all_new(&setup.database, &old).await;
        wait_until_publishing(&relay).await;
    }
    let committed = service.stop().await;
    setup
        .expect_a_quiet_rotation(&relay, &instance, &committed)
        .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_database_user_takes_over_once_it_has_its_rights() {
    let mut setup = Setup::new(17).await;
    let relay = setup.start().await;
    let instance = instance(&relay).await;
    let second = format!("{}_second", setup.database.relay);
    let mut admin = setup.database.as_admin().await;
    execute(
        &mut admin,
        &format!("create role {second} login password 'password-of-the-second'"),
    )
    .await;
    let load = setup.load();
    let writes = write(&setup.database, &load);
    let rotation = async {
        wait_until_publishing(&relay).await;
        let old = backends(&setup.database).await;
        setup
            .database
            .write_secrets(&second, "password-of-the-second");
        let problem = problem(&relay, ProblemClass::InsufficientPrivilege).await;
        assert!(problem.last_good_used, "{problem:?}");
        let mut settings = setup.settings.clone();
        settings.migration.relays = vec![setup.database.relay.clone()];
        assert_eq!(setup.database.migrate(&settings).await.problem, None);
        all_new(&setup.database, &old).await;
        wait_until_publishing(&relay).await;
    };
    let (committed, ()) = tokio::join!(writes, rotation);
    setup.secrets.push("password-of-the-second".to_owned());
    setup
        .expect_a_quiet_rotation(&relay, &instance, &committed)
        .await;
    let users = format!(
        "select distinct usename::text from pg_stat_activity where application_name = \
         'outbox-relay' and datname = '{}'",
        setup.database.name
    );
    assert_eq!(
        values::<String>(&mut admin, &users).await,
        std::slice::from_ref(&second)
    );
    drop(relay);
    execute(
        &mut admin,
        &format!("drop owned by {second}; drop role {second}"),
    )
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_password_for_the_brokers_is_rotated_under_load() {
    let (mut setup, user) = Setup::with_kafka_password(17, "kafka-password-1").await;
    let relay = setup.start().await;
    let instance = instance(&relay).await;
    let service = setup.busy_service();
    for (times, password) in [(1, "kafka-password-2"), (2, "kafka-password-3")] {
        wait_until_publishing(&relay).await;
        set_scram_password(&user, password).await;
        setup.write("kafka/password", password);
        logged(&relay, PRODUCER_REPLACED, times).await;
        wait_until_publishing(&relay).await;
    }
    let committed = service.stop().await;
    setup
        .expect_a_quiet_rotation(&relay, &instance, &committed)
        .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn authority_and_client_certificate_for_the_brokers_are_rotated_under_load() {
    let mut setup = Setup::with_kafka_certificate(18).await;
    let relay = setup.start().await;
    let instance = instance(&relay).await;
    let load = setup.load();
    let second = client("second");
    let both = format!("{}{}", certificate("rogue-ca.crt"), certificate("ca.crt"));
    let writes = write(&setup.database, &load);
    let rotations = async {
        let replaced = async |times| {
            logged(&relay, PRODUCER_REPLACED, times).await;
            wait_until_publishing(&relay).await;
        };
        wait_until_publishing(&relay).await;
        setup.database.write_secret("kafka/ca.crt", &both);
        replaced(1).await;
        setup
            .database
            .write_secret("kafka/tls.crt", &second.certificate);
        setup.database.write_secret("kafka/tls.key", &second.key);
        replaced(2).await;
        setup
            .database
            .write_secret("kafka/ca.crt", &certificate("ca.crt"));
        replaced(3).await;
    };
    let (committed, ()) = tokio::join!(writes, rotations);
    setup.write_pair("kafka", &second);
    setup
        .expect_a_quiet_rotation(&relay, &instance, &committed)
        .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn authority_and_client_certificate_for_the_database_are_rotated_under_load() {
    let mut setup = Setup::new(15).await;
    // Members of this role need a certificate of their name. Other tests use it as well.
    let mut admin = setup.database.as_admin().await;
    setup.database.needs_a_certificate(&mut admin).await;
    let user = setup.database.relay.clone();
    setup.settings.database.tls = TlsSettings {
        mode: TlsMode::VerifyFull,
        ca: true,
        client_certificate: true,
    };
    setup.database.remove_secret("database/password");
    setup.write("database/ca.crt", &certificate("ca.crt"));
    setup.write_pair("database", &client(&user));
    let relay = setup.start().await;
    let instance = instance(&relay).await;
    let load = setup.load();
    let second = client(&user);
    let both = format!("{}{}", certificate("rogue-ca.crt"), certificate("ca.crt"));
    let writes = write(&setup.database, &load);
    let rotations = async {
        wait_until_publishing(&relay).await;
        let old = backends(&setup.database).await;
        setup.database.write_secret("database/ca.crt", &both);
        all_new(&setup.database, &old).await;
        wait_until_publishing(&relay).await;
        let old = backends(&setup.database).await;
        setup
            .database
            .write_secret("database/tls.crt", &second.certificate);
        setup.database.write_secret("database/tls.key", &second.key);
        all_new(&setup.database, &old).await;
        wait_until_publishing(&relay).await;
    };
    let (committed, ()) = tokio::join!(writes, rotations);
    setup.write_pair("database", &second);
    setup
        .expect_a_quiet_rotation(&relay, &instance, &committed)
        .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wrong_new_database_password_is_a_problem_until_the_right_one_comes() {
    let mut setup = Setup::new(15).await;
    let relay = setup.start().await;
    let instance = instance(&relay).await;
    let before = backends(&setup.database).await;
    setup.write("database/password", "a-wrong-new-password");
    let problem = problem(&relay, ProblemClass::AuthenticationFailed).await;
    assert!(problem.last_good_used, "{problem:?}");
    setup.still_publishes().await;
    assert!(
        backends(&setup.database)
            .await
            .iter()
            .any(|pid| before.contains(pid)),
        "connections that worked were closed"
    );
    // The old password is no longer valid and its connections are closed: rows wait for the file.
    alter_password(&setup.database, "the-right-new-password").await;
    let cut = format!(
        "select pg_terminate_backend(pid) from pg_stat_activity where usename = '{}'",
        setup.database.relay
    );
    execute(&mut setup.database.as_admin().await, &cut).await;
    until("old and new to be refused", async || {
        let problems = relay.report().await?.problems;
        (problems
            .iter()
            .filter(|problem| problem.class == ProblemClass::AuthenticationFailed)
            .count()
            == 2)
            .then_some(())
    })
    .await;
    setup.write("database/password", "the-right-new-password");
    all_new(&setup.database, &before).await;
    wait_until_resolved(&relay).await;
    setup.still_publishes().await;
    assert_eq!(
        relay.report().await.expect("a report").instance,
        instance,
        "the relay restarted"
    );
    setup.expect_nothing_shown(&relay).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wrong_new_password_for_the_brokers_is_a_problem_until_the_right_one_comes() {
    let (mut setup, user) = Setup::with_kafka_password(15, "kafka-password-1").await;
    let relay = setup.start().await;
    let instance = instance(&relay).await;
    setup.write("kafka/password", "a-wrong-new-password");
    let problem = problem(&relay, ProblemClass::KafkaAuthenticationFailed).await;
    assert!(problem.last_good_used, "{problem:?}");
    setup.still_publishes().await;
    assert!(
        !relay.log().contains(PRODUCER_REPLACED),
        "a working producer was replaced"
    );
    set_scram_password(&user, "the-right-new-password").await;
    setup.write("kafka/password", "the-right-new-password");
    logged(&relay, PRODUCER_REPLACED, 1).await;
    wait_until_resolved(&relay).await;
    setup.still_publishes().await;
    assert_eq!(
        relay.report().await.expect("a report").instance,
        instance,
        "the relay restarted"
    );
    setup.expect_nothing_shown(&relay).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn missing_or_mismatched_files_are_problems_and_the_last_good_ones_are_used() {
    let mut setup = Setup::with_kafka_certificate(15).await;
    let good = client("good");
    setup.write_pair("kafka", &good);
    let relay = setup.start().await;
    let instance = instance(&relay).await;
    let other = client("other");
    let (missing, invalid) = (ProblemClass::SecretMissing, ProblemClass::SecretInvalid);
    let cases = [
        (
            "kafka/tls.key",
            None,
            missing,
            "spec.kafka.tls.clientCertSecretRef",
        ),
        (
            "kafka/tls.key",
            Some(other.key.as_str()),
            invalid,
            "spec.kafka.tls.clientCertSecretRef",
        ),
        (
            "kafka/tls.crt",
            Some("no certificate"),
            invalid,
            "spec.kafka.tls.clientCertSecretRef",
        ),
        (
            "kafka/tls.crt",
            Some(""),
            invalid,
            "spec.kafka.tls.clientCertSecretRef",
        ),
        (
            "kafka/ca.crt",
            Some("no certificate"),
            invalid,
            "spec.kafka.tls.ca",
        ),
        ("kafka/ca.crt", None, missing, "spec.kafka.tls.ca"),
        (
            "database/password",
            None,
            missing,
            "spec.database.credentialsSecretRef",
        ),
        (
            "database/username",
            Some("\n"),
            invalid,
            "spec.database.credentialsSecretRef",
        ),
    ];
    for (file, content, class, field) in cases {
        let right = std::fs::read_to_string(setup.database.secrets_folder().join(file))
            .expect("it was there");
        match content {
            None => setup.database.remove_secret(file),
            Some(content) => setup.database.write_secret(file, content),
        }
        let problem = problem(&relay, class).await;
        assert!(
            problem.message.contains(field) && problem.last_good_used,
            "{file}: {problem:?}"
        );
        setup.still_publishes().await;
        setup.database.write_secret(file, &right);
        wait_until_resolved(&relay).await;
    }
    assert!(
        !relay.log().contains(PRODUCER_REPLACED),
        "the secret in use came back, and the producer is not replaced"
    );
    assert_eq!(
        relay.report().await.expect("a report").instance,
        instance,
        "the relay restarted"
    );
    setup.expect_nothing_shown(&relay).await;
}
