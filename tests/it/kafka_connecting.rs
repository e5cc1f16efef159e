//! TLS and logins against the rig's broker and against faulty listeners: which logins are accepted,
//! and the problem classes of the others.

use outbox_relay::{
    kafka::{MetadataClient, TopicDescription},
    report::ProblemClass,
    settings::{KafkaSettings, SaslMechanism, SaslSettings, TlsMode, TlsSettings},
};

use crate::harness::{
    certificates::{client, expired_server},
    kafka::{KafkaVersion, topic_name},
    listeners::{Hello, at_another_address, closed_port, with_certificate},
    postgres::Database,
    rig::{certificate, rig},
};

/// A broker's address with credentials.
struct Login {
    database: Database,
    settings: KafkaSettings,
}

impl Login {
    /// A login at a listener of the rig, with the rig's authority.
    async fn to(listener: &str, mode: TlsMode) -> Self {
        let database = Database::create(15).await;
        database.write_secret("kafka/ca.crt", &certificate("ca.crt"));
        let mut settings = database.settings().kafka;
        settings.bootstrap_servers = vec![rig(listener)];
        settings.tls = TlsSettings {
            mode,
            ca: true,
            client_certificate: false,
        };
        Self { database, settings }
    }

    fn with_password(mut self, mechanism: SaslMechanism, password: &str) -> Self {
        self.database.write_secret("kafka/password", password);
        self.settings.sasl = Some(SaslSettings {
            mechanism,
            username: rig("RIG_KAFKA_USER"),
        });
        self
    }

    fn with_certificate(mut self, certificate: &str, key: &str) -> Self {
        self.database.write_secret("kafka/tls.crt", certificate);
        self.database.write_secret("kafka/tls.key", key);
        self.settings.tls.client_certificate = true;
        self
    }

    fn at(mut self, address: String) -> Self {
        self.settings.bootstrap_servers = vec![address];
        self
    }

    async fn ask(&self, topic: &str) -> Result<TopicDescription, ProblemClass> {
        let topics = MetadataClient::new(&self.settings, &self.database.secrets(), "it")
            .expect("usable secrets");
        let topic = topic.to_owned();
        tokio::task::spawn_blocking(move || topics.describe(&topic))
            .await
            .expect("asked")
    }

    async fn is_let_in(&self, kafka: KafkaVersion) {
        let topic = topic_name("login");
        kafka.create_topic(&topic).await;
        assert_eq!(
            self.ask(&topic).await,
            Ok(TopicDescription::Exists {
                partitions: 6,
                replicas: 1,
                has_leaders: true
            })
        );
    }

    async fn is_refused(&self, class: ProblemClass) {
        assert_eq!(self.ask("any").await, Err(class));
    }
}

on_each_kafka!(
    the_right_password_is_let_in_by_each_mechanism_and_with_each_check_of_the_certificate
);
async fn the_right_password_is_let_in_by_each_mechanism_and_with_each_check_of_the_certificate(
    kafka: KafkaVersion,
) {
    for mode in [TlsMode::VerifyFull, TlsMode::VerifyCa] {
        for mechanism in [
            SaslMechanism::ScramSha512,
            SaslMechanism::ScramSha256,
            SaslMechanism::Plain,
        ] {
            Login::to(&kafka.variable("_SASL_SSL"), mode)
                .await
                .with_password(mechanism, &rig("RIG_KAFKA_PASSWORD"))
                .is_let_in(kafka)
                .await;
        }
    }
}

on_each_kafka!(a_wrong_password_is_refused);
async fn a_wrong_password_is_refused(kafka: KafkaVersion) {
    let login = Login::to(&kafka.variable("_SASL_SSL"), TlsMode::VerifyFull)
        .await
        .with_password(SaslMechanism::ScramSha512, "wrong");
    login
        .is_refused(ProblemClass::KafkaAuthenticationFailed)
        .await;
}

on_each_kafka!(a_client_certificate_is_a_login);
async fn a_client_certificate_is_a_login(kafka: KafkaVersion) {
    let pair = client("relay");
    Login::to(&kafka.variable("_MTLS"), TlsMode::VerifyFull)
        .await
        .with_certificate(&pair.certificate, &pair.key)
        .is_let_in(kafka)
        .await;
}

on_each_kafka!(a_client_certificate_that_is_missing_or_of_another_authority_is_refused);
async fn a_client_certificate_that_is_missing_or_of_another_authority_is_refused(
    kafka: KafkaVersion,
) {
    let login = Login::to(&kafka.variable("_MTLS"), TlsMode::VerifyFull).await;
    login.is_refused(ProblemClass::KafkaTlsFailed).await;
    let login = login.with_certificate(&certificate("rogue.crt"), &certificate("rogue.key"));
    login.is_refused(ProblemClass::KafkaTlsFailed).await;
}

#[tokio::test]
async fn another_host_name_is_refused_unless_only_the_chain_counts() {
    let pair = client("relay");
    for (mode, accepted) in [(TlsMode::VerifyFull, false), (TlsMode::VerifyCa, true)] {
        let login = Login::to("RIG_KAFKA_MTLS", mode)
            .await
            .with_certificate(&pair.certificate, &pair.key);
        let other = at_another_address(rig("RIG_KAFKA_MTLS").parse().expect("an address")).await;
        let login = login.at(format!("127.0.0.2:{}", other.port()));
        if accepted {
            login.is_let_in(KafkaVersion::V4_3).await;
        } else {
            login.is_refused(ProblemClass::KafkaTlsFailed).await;
        }
    }
}

#[tokio::test]
async fn an_unknown_authority_is_refused() {
    for mode in [TlsMode::VerifyFull, TlsMode::VerifyCa] {
        let login = Login::to("RIG_KAFKA_SASL_SSL", mode)
            .await
            .with_password(SaslMechanism::ScramSha512, &rig("RIG_KAFKA_PASSWORD"));
        login
            .database
            .write_secret("kafka/ca.crt", &certificate("rogue-ca.crt"));
        login.is_refused(ProblemClass::KafkaTlsFailed).await;
    }
}

#[tokio::test]
async fn mode_require_encrypts_and_verifies_nothing() {
    let login = Login::to("RIG_KAFKA_SASL_SSL", TlsMode::Require)
        .await
        .with_password(SaslMechanism::ScramSha512, &rig("RIG_KAFKA_PASSWORD"));
    login
        .database
        .write_secret("kafka/ca.crt", &certificate("rogue-ca.crt"));
    login.is_let_in(KafkaVersion::V4_3).await;
}

#[tokio::test]
async fn an_expired_certificate_is_refused() {
    let port = with_certificate(&expired_server(), Hello::Begins);
    for mode in [TlsMode::VerifyFull, TlsMode::VerifyCa] {
        Login::to("RIG_KAFKA_MTLS", mode)
            .await
            .at(format!("127.0.0.1:{port}"))
            .is_refused(ProblemClass::KafkaTlsFailed)
            .await;
    }
}

#[tokio::test]
async fn a_server_without_tls_gets_no_password() {
    let login = Login::to("RIG_KAFKA", TlsMode::VerifyFull)
        .await
        .with_password(SaslMechanism::Plain, &rig("RIG_KAFKA_PASSWORD"));
    login.is_refused(ProblemClass::KafkaTlsFailed).await;
}

#[tokio::test]
async fn a_port_where_nothing_listens_is_unreachable() {
    let closed = format!("127.0.0.1:{}", closed_port().await);
    Login::to("RIG_KAFKA_MTLS", TlsMode::VerifyFull)
        .await
        .at(closed)
        .is_refused(ProblemClass::KafkaUnreachable)
        .await;
}
