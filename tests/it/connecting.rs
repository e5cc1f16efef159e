//! TLS, logins and pools against real servers and against faulty listeners.

use outbox_relay::{
    outbox::{
        Connections,
        connect::{Connect, ConnectError},
        error::classify,
    },
    report::{Problem, ProblemClass},
    settings::{DatabaseSettings, Endpoint, TlsMode, TlsSettings},
};

use sqlx::Row;

use crate::harness::{
    certificates::expired_server,
    listeners::{
        Hello, at_another_address, closed_port, server_of_another_protocol, server_without_tls,
        silenceable_proxy, with_certificate,
    },
    postgres::{Database, execute, value},
    rig::{certificate, rig},
};

/// The relay's settings with TLS and the rig's certificate authority.
fn with_tls(database: &Database, mode: TlsMode) -> DatabaseSettings {
    database.write_secret("database/ca.crt", &certificate("ca.crt"));
    let mut settings = database.settings().database;
    settings.tls = TlsSettings {
        mode,
        ca: true,
        client_certificate: false,
    };
    settings
}

fn at(settings: &mut DatabaseSettings, new_host: &str, new_port: u16) {
    let Endpoint::Host { host, port, .. } = &mut settings.endpoint else {
        panic!("a host")
    };
    (*host, *port) = (new_host.to_owned(), new_port);
}

pub(crate) async fn open(
    database: &Database,
    settings: &DatabaseSettings,
) -> Result<sqlx::PgConnection, ConnectError> {
    Connect::relay(settings, &database.secrets())?.open().await
}

pub(crate) async fn problem(database: &Database, settings: &DatabaseSettings) -> Problem {
    open(database, settings)
        .await
        .expect_err("refused")
        .problem()
}

on_each_server! {
    async fn the_right_host_and_authority_are_accepted(database: Database) {
        let mut settings = with_tls(&database, TlsMode::VerifyFull);
        at(&mut settings, "localhost", database.address().port());
        let mut connection = open(&database, &settings)
            .await
            .expect("a good certificate");
        assert!(
            value::<bool>(
                &mut connection,
                "select ssl from pg_stat_ssl where pid = \
            pg_backend_pid()"
            )
            .await
        );
    }
}

on_each_server! {
    async fn another_host_name_is_refused_unless_only_the_chain_counts(database: Database) {
        let other = at_another_address(database.address()).await;
        let mut settings = with_tls(&database, TlsMode::VerifyFull);
        at(&mut settings, "127.0.0.2", other.port());
        let refused = problem(&database, &settings).await;
        assert_eq!(refused.class, ProblemClass::TlsFailed);
        assert!(refused.message.contains("another host name"), "{refused:?}");
        settings.tls.mode = TlsMode::VerifyCa;
        open(&database, &settings).await.expect("the chain is good");
    }
}

on_each_server! {
    async fn an_unknown_authority_is_refused(database: Database) {
        let mut settings = with_tls(&database, TlsMode::VerifyFull);
        database.write_secret("database/ca.crt", &certificate("rogue-ca.crt"));
        let refused = problem(&database, &settings).await;
        assert_eq!(refused.class, ProblemClass::TlsFailed);
        assert!(refused.message.contains("authority"), "{refused:?}");
        settings.tls.mode = TlsMode::VerifyCa;
        assert_eq!(
            problem(&database, &settings).await.class,
            ProblemClass::TlsFailed
        );
    }
}

/// Checks docs/secrets.md: a configured authority is trusted in addition to the system's, unless
/// the system has none.
#[tokio::test]
async fn the_given_authority_is_trusted_besides_those_of_the_system() {
    let database = Database::create(15).await;
    let tls = TlsSettings {
        mode: TlsMode::VerifyFull,
        ca: true,
        client_certificate: false,
    };
    let mut settings = database.settings();
    settings.database.tls = tls.clone();
    settings.migration.database.as_mut().expect("its own").tls = tls;
    database.write_secret(
        "settings.yaml",
        &serde_yaml::to_string(&settings).expect("plain data"),
    );
    let folder = database.secrets_folder();
    let ours = std::path::PathBuf::from(rig("RIG_TLS")).join("ca.crt");
    for (given, of_the_system, accepted) in [
        ("rogue-ca.crt", ours, true),
        ("rogue-ca.crt", "/dev/null".into(), false),
        ("ca.crt", "/dev/null".into(), true),
    ] {
        database.write_secret("migration/ca.crt", &certificate(given));
        database.write_secret("database/ca.crt", &certificate(given));
        let mut program = std::process::Command::new(env!("CARGO_BIN_EXE_outbox-relay"));
        program
            .arg("migrate")
            .arg("--settings")
            .arg(folder.join("settings.yaml"))
            .arg("--secrets")
            .arg(folder);
        program
            .env("SSL_CERT_FILE", &of_the_system)
            .env_remove("SSL_CERT_DIR");
        let output = tokio::task::spawn_blocking(move || program.output())
            .await
            .expect("not cancelled")
            .expect("it runs");
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(
            output.status.success(),
            accepted,
            "{given} with {}: {stderr}",
            of_the_system.display()
        );
        assert!(accepted || stderr.contains("TlsFailed"), "{stderr}");
    }
}

#[tokio::test]
async fn an_expired_certificate_is_refused() {
    let database = Database::create(15).await;
    let port = with_certificate(&expired_server(), Hello::Asks);
    for mode in [TlsMode::VerifyFull, TlsMode::VerifyCa] {
        let mut settings = with_tls(&database, mode);
        at(&mut settings, "127.0.0.1", port);
        let refused = problem(&database, &settings).await;
        assert_eq!(refused.class, ProblemClass::TlsFailed);
        assert!(refused.message.contains("expired"), "{refused:?}");
    }
}

on_each_server! {
    async fn a_server_without_tls_gets_no_password(database: Database) {
        let mut settings = with_tls(&database, TlsMode::VerifyFull);
        at(&mut settings, "localhost", server_without_tls().await);
        let refused = problem(&database, &settings).await;
        assert_eq!(refused.class, ProblemClass::TlsFailed);
        assert!(
            refused.message.contains("does not offer TLS"),
            "{refused:?}"
        );
    }
}

on_each_server! {
    async fn a_server_of_another_protocol_is_unreachable(database: Database) {
        let mut settings = database.settings().database;
        at(
            &mut settings,
            "127.0.0.1",
            server_of_another_protocol().await,
        );
        assert_eq!(
            problem(&database, &settings).await.class,
            ProblemClass::Unreachable
        );
        at(&mut settings, "127.0.0.1", closed_port().await);
        assert_eq!(
            problem(&database, &settings).await.class,
            ProblemClass::Unreachable
        );
    }
}

on_each_server! {
    async fn a_url_sets_user_and_password_and_not_the_tls_mode(database: Database) {
        let mut settings = with_tls(&database, TlsMode::VerifyFull);
        settings.endpoint = Endpoint::Url;
        let address = database.address();
        let url = format!(
            "postgresql://{}:not-secret@{address}/{}?sslmode=disable",
            database.relay, database.name
        );
        database.write_secret("database/url", &url);
        let mut connection = open(&database, &settings).await.expect("a good URL");
        assert!(
            value::<bool>(
                &mut connection,
                "select ssl from pg_stat_ssl where pid = \
            pg_backend_pid()"
            )
            .await
        );
        database.write_secret("database/url", &url.replace("not-secret", "wrong-password"));
        let refused = problem(&database, &settings).await;
        assert_eq!(refused.class, ProblemClass::AuthenticationFailed);
        assert!(
            !refused.message.contains("wrong-password")
                && !refused.message.contains(&database.relay),
            "{refused:?}"
        );
    }
}

on_each_server! {
    async fn a_client_certificate_replaces_a_password(database: Database) {
        // The rig requires certificates in databases of this name. The certificate's user is
        // `relay`, which other tests use as well.
        let mut admin = database.as_admin().await;
        for sql in ["create role relay login", "create database certonly"] {
            let created = sqlx::raw_sql(sqlx::AssertSqlSafe(sql.to_owned()))
                .execute(&mut admin)
                .await;
            let code = created.err().and_then(|error| {
                error
                    .as_database_error()?
                    .code()
                    .map(|code| code.into_owned())
            });
            assert!(
                matches!(code.as_deref(), None | Some("42710" | "42P04" | "23505")),
                "{sql}: {code:?}"
            );
        }
        let mut settings = with_tls(&database, TlsMode::VerifyFull);
        let Endpoint::Host { name, .. } = &mut settings.endpoint else {
            panic!("a host")
        };
        *name = "certonly".to_owned();
        database.write_secret("database/username", "relay");
        database.remove_secret("database/password");
        database.write_secret("database/tls.crt", &certificate("client.crt"));
        database.write_secret("database/tls.key", &certificate("client.key"));
        settings.tls.client_certificate = true;
        let mut connection = open(&database, &settings)
            .await
            .expect("a good certificate");
        assert_eq!(
            value::<String>(&mut connection, "select current_user::text").await,
            "relay"
        );

        database.write_secret("database/tls.crt", &certificate("rogue.crt"));
        database.write_secret("database/tls.key", &certificate("rogue.key"));
        assert_eq!(
            problem(&database, &settings).await.class,
            ProblemClass::TlsFailed
        );
        database.write_secret("database/tls.key", &certificate("client.key"));
        let refused = problem(&database, &settings).await;
        assert_eq!(refused.class, ProblemClass::SecretInvalid, "not a pair");
        assert!(
            refused.message.contains("database/tls.crt")
                && refused.message.contains("clientCertSecretRef"),
            "{refused:?}"
        );
    }
}

on_each_server! {
    async fn a_pool_has_the_timeouts_and_its_own_settings(database: Database) {
        let pool = database.relay_pool(&[("enable_seqscan", "off"), ("statement_timeout", "7s")]);
        for (name, expected) in [
            ("enable_seqscan", "off"),
            ("statement_timeout", "7s"),
            ("lock_timeout", "2s"),
            ("idle_in_transaction_session_timeout", "10s"),
            ("application_name", "outbox-relay"),
        ] {
            let row = pool
                .row(sqlx::query("select current_setting($1)").bind(name))
                .await
                .expect("a setting");
            assert_eq!(row.get::<String, _>(0), expected, "{name}");
        }
    }
}

on_each_server! {
    async fn a_pool_recovers_after_its_connections_were_killed(database: Database) {
        let connect = Connect::relay(&database.settings().database, &database.secrets())
            .expect("good secrets");
        let pool = Connections::new(&connect, 1, &[]);
        let first: i32 = pool
            .row(sqlx::query("select pg_backend_pid()"))
            .await
            .expect("a connection")
            .get(0);
        let mut admin = database.as_admin().await;
        execute(
            &mut admin,
            &format!("select pg_terminate_backend({first}, 5000)"),
        )
        .await;
        let error = pool
            .rows(sqlx::query("select 1"))
            .await
            .expect_err("the connection is dead");
        assert_eq!(classify(&error).class, ProblemClass::Unreachable);
        pool.rows(sqlx::query("select 1"))
            .await
            .expect("a new connection");
    }
}

#[tokio::test]
async fn a_connection_that_dies_silently_times_out() {
    let database = Database::create(15).await;
    let (port, silence) = silenceable_proxy(database.address()).await;
    let mut settings = database.settings().database;
    at(&mut settings, "127.0.0.1", port);
    let connections = Connections::new(
        &Connect::relay(&settings, &database.secrets()).expect("good secrets"),
        1,
        &[],
    );
    connections
        .rows(sqlx::query("select 1"))
        .await
        .expect("it answers");
    silence.notify_one();
    tokio::time::pause(); // from here on time passes as soon as all wait for it
    let error = connections
        .rows(sqlx::query("select 1"))
        .await
        .expect_err("there is no answer");
    let fault = classify(&error);
    assert_eq!(fault.class, ProblemClass::Unreachable);
    assert!(fault.to_string().contains("no answer in time"), "{fault}");
}
