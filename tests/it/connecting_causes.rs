//! Odd certificates, passwords and limits: what connects as with libpq, and what is told.

use outbox_relay::{
    outbox::{Connections, connect::Connect, error::classify, with_lacking_rights},
    report::{Problem, ProblemClass},
    settings::{DatabaseSettings, Endpoint, TlsMode, TlsSettings},
};

use crate::{
    connecting::{open, problem},
    harness::{
        certificates::{Form, NAMELESS, OF_OPENSSL, own_pair},
        listeners::closed_port,
        postgres::{Database, execute, value},
        server::Server,
    },
};

/// Settings of the superuser of a test's own server, with TLS.
fn tls_settings(
    database: &Database,
    server: &Server,
    host: &str,
    mode: TlsMode,
) -> DatabaseSettings {
    let mut settings = database.settings().database;
    settings.endpoint = Endpoint::Host {
        host: host.to_owned(),
        port: server.port(),
        name: "postgres".to_owned(),
    };
    settings.tls = TlsSettings {
        mode,
        ca: mode != TlsMode::Require,
        client_certificate: false,
    };
    settings
}

const SELF_SIGNED: Form = Form {
    common_name: "localhost",
    extensions: OF_OPENSSL,
    days: 2,
};
const VERSION_1: Form = Form {
    extensions: "",
    ..SELF_SIGNED
};

/// Each server is started again with each certificate: about 10 s.
#[tokio::test]
async fn a_servers_own_certificate_is_trusted_if_it_is_the_given_one() {
    use TlsMode::{Require, VerifyCa, VerifyFull};
    let database = Database::create(15).await;
    database.write_secret("database/username", "postgres");
    let mut server = Server::create().await;
    let named = Form {
        extensions: "basicConstraints=critical,CA:TRUE\nsubjectAltName=DNS:other,IP:127.0.0.1\n",
        ..SELF_SIGNED
    };
    let expired = Form {
        days: -1,
        ..SELF_SIGNED
    };
    for (case, own, answers) in [
        (
            "with names",
            named,
            &[
                ("127.0.0.1", VerifyFull, ""),
                ("127.0.0.1", Require, ""),
                ("localhost", VerifyCa, ""),
                // Its common name does not count: it has other names.
                ("localhost", VerifyFull, "another host name"),
            ][..],
        ),
        (
            "as in PostgreSQL's manual, without subjectAltName",
            SELF_SIGNED,
            &[
                ("localhost", VerifyFull, ""),
                ("localhost", VerifyCa, ""),
                ("127.0.0.1", VerifyFull, "another host name"),
                ("127.0.0.1", VerifyCa, ""),
            ],
        ),
        (
            "of version 1",
            VERSION_1,
            &[
                ("localhost", VerifyFull, ""),
                ("127.0.0.1", VerifyCa, ""),
                ("localhost", Require, ""),
            ],
        ),
        (
            "expired",
            expired,
            &[
                ("localhost", VerifyFull, "expired"),
                ("localhost", VerifyCa, "expired"),
                ("localhost", Require, ""),
            ],
        ),
    ] {
        let pair = own_pair(own, None);
        server.serve_tls(&pair).await;
        database.write_secret("database/ca.crt", &pair.certificate);
        for (host, mode, words) in answers {
            let settings = tls_settings(&database, &server, host, *mode);
            match open(&database, &settings).await {
                Ok(mut connection) => {
                    assert_eq!(*words, "", "{case}, {host}, {mode:?}: accepted");
                    let sql = "select ssl from pg_stat_ssl where pid = pg_backend_pid()";
                    assert!(value::<bool>(&mut connection, sql).await);
                }
                Err(error) => {
                    let refused = error.problem();
                    assert_eq!(
                        refused.class,
                        ProblemClass::TlsFailed,
                        "{case}: {refused:?}"
                    );
                    assert!(
                        !words.is_empty() && refused.message.contains(words),
                        "{case}, {host}, {mode:?}: {refused:?}"
                    );
                }
            }
        }
    }
}

#[tokio::test]
async fn what_is_wrong_with_a_certificate_is_told_in_plain_words() {
    use TlsMode::{VerifyCa, VerifyFull};
    let database = Database::create(15).await;
    database.write_secret("database/username", "postgres");
    let mut server = Server::create().await;
    let authority = own_pair(
        Form {
            common_name: "root",
            ..SELF_SIGNED
        },
        None,
    );
    let other = own_pair(SELF_SIGNED, None);
    let nameless = Form {
        extensions: NAMELESS,
        ..SELF_SIGNED
    };
    let of_authority = |leaf| own_pair(leaf, Some(&authority));
    for (presented, given, mode, words) in [
        (of_authority(VERSION_1), &authority, VerifyFull, "version 1"),
        (own_pair(SELF_SIGNED, None), &other, VerifyCa, "CA:TRUE"),
        (
            of_authority(nameless),
            &authority,
            VerifyFull,
            "no subjectAltName",
        ),
        (
            of_authority(nameless),
            &other,
            VerifyCa,
            "unknown authority",
        ),
        (of_authority(nameless), &authority, VerifyCa, ""),
    ] {
        server.serve_tls(&presented).await;
        database.write_secret("database/ca.crt", &given.certificate);
        let settings = tls_settings(&database, &server, "localhost", mode);
        if words.is_empty() {
            open(&database, &settings).await.expect("a good chain");
            continue;
        }
        let refused = problem(&database, &settings).await;
        assert_eq!(
            refused.class,
            ProblemClass::TlsFailed,
            "{words}: {refused:?}"
        );
        assert!(refused.message.contains(words), "{words}: {refused:?}");
    }
}

/// Passwords that libpq sends as they are, because SASLprep refuses them, and ordinary odd ones.
const PASSWORDS: &[&str] = &[
    "smile \u{1F600}",
    "tab\there",
    "private \u{E000}",
    "mixed \u{5D0}a1",
    "#/?%&=+@: ' \" \\",
    "d\u{e9}j\u{e0} \u{2168}",
];

on_oldest_and_newest_server! {
    async fn odd_passwords_work_in_secrets_and_in_urls(database: Database) {
        let mut admin = database.as_admin().await;
        for password in PASSWORDS {
            let literal = password.replace('\'', "''").replace('\\', "\\\\");
            let alter = format!("alter role {} password E'{literal}'", database.relay);
            execute(&mut admin, &alter).await;
            let mut settings = database.settings().database;
            database.write_secret("database/password", password);
            let connect = Connect::relay(&settings, &database.secrets()).expect("good secrets");
            connect.open().await.unwrap_or_else(|error| panic!("{password:?}: {error:?}"));
            let pool = Connections::new(&connect, 1, &[]);
            pool.rows(sqlx::query("select 1")).await.expect("in a pool, too");

            settings.endpoint = Endpoint::Url;
            let encoded: String = password.bytes().map(|byte| format!("%{byte:02x}")).collect();
            let address = database.address();
            let url = format!("postgres://{}:{encoded}@{address}/{}", database.relay, database.name);
            database.write_secret("database/url", &url);
            open(&database, &settings).await.unwrap_or_else(|error| panic!("{url}: {error:?}"));

            settings = database.settings().database;
            database.write_secret("database/password", &format!("{password}x"));
            let refused = problem(&database, &settings).await;
            assert_eq!(refused.class, ProblemClass::AuthenticationFailed, "{refused:?}");
        }
    }
}

#[tokio::test]
async fn an_odd_password_works_with_tls_and_a_server_must_know_it_too() {
    let database = Database::create(15).await;
    let mut admin = database.as_admin().await;
    let password = "smile \u{1F600}";
    let alter = format!("alter role {} password '{password}'", database.relay);
    execute(&mut admin, &alter).await;
    database.write_secret("database/password", password);
    let authority = crate::harness::rig::certificate("ca.crt");
    database.write_secret("database/ca.crt", &authority);
    let mut settings = database.settings().database;
    for (mode, ca) in [(TlsMode::VerifyCa, true), (TlsMode::Require, false)] {
        settings.tls = TlsSettings {
            mode,
            ca,
            client_certificate: false,
        };
        let mut connection = open(&database, &settings).await.expect("a good login");
        let sql = "select ssl from pg_stat_ssl where pid = pg_backend_pid()";
        assert!(value::<bool>(&mut connection, sql).await);
    }
}

on_oldest_and_newest_server! {
    async fn what_ends_a_login_is_told_by_its_cause(database: Database) {
        let mut settings = database.settings().database;
        settings.endpoint = Endpoint::Url;
        let url = format!(
            "postgres://{}:not-secret@{}/{}?options=-c%20nosuch_setting%3D1",
            database.relay,
            database.address(),
            database.name
        );
        database.write_secret("database/url", &url);
        let refused = problem(&database, &settings).await;
        assert_eq!(refused.class, ProblemClass::InvalidSettings, "{refused:?}");
        assert!(refused.message.contains("'options' of the URL"), "{refused:?}");

        let mut admin = database.as_admin().await;
        let revoke = format!("revoke connect on database {} from public", database.name);
        execute(&mut admin, &revoke).await;
        let refused = problem(&database, &database.settings().database).await;
        assert_eq!(refused.class, ProblemClass::InsufficientPrivilege, "{refused:?}");
        assert!(refused.message.contains("GRANT CONNECT ON DATABASE"), "{refused:?}");
    }
}

/// The pool tries for 5 s before it reports why it could not.
#[tokio::test]
async fn a_pool_tells_why_it_has_no_connection() {
    let database = Database::create(18).await;
    let mut admin = database.as_admin().await;
    let limit = format!("alter role {} connection limit 1", database.relay);
    execute(&mut admin, &limit).await;
    let mut settings = database.settings().database;
    let held = open(&database, &settings).await.expect("the only one");
    let connect = Connect::relay(&settings, &database.secrets()).expect("good secrets");
    let error = Connections::new(&connect, 1, &[])
        .rows(sqlx::query("select 1"))
        .await
        .expect_err("one too many");
    let text = classify(&error).to_string();
    let user = format!("as user '{}'", database.relay);
    assert!(
        text.contains("CONNECTION LIMIT of this user") && text.contains(&user),
        "{text}"
    );
    drop(held);

    let Endpoint::Host { port, .. } = &mut settings.endpoint else {
        panic!("a host")
    };
    *port = closed_port().await;
    let address = format!("127.0.0.1:{port}");
    let connect = Connect::relay(&settings, &database.secrets()).expect("good secrets");
    let error = Connections::new(&connect, 1, &[])
        .rows(sqlx::query("select 1"))
        .await
        .expect_err("nothing listens");
    let text = classify(&error).to_string();
    for words in ["cannot connect to", &address, &user, "nothing listens"] {
        assert!(text.contains(words), "{words}: {text}");
    }
}

#[tokio::test]
async fn limits_of_time_are_told_as_what_they_are() {
    let database = Database::create(18).await;
    let connect = Connect::relay(&database.settings().database, &database.secrets())
        .expect("good secrets")
        .with(&[("transaction_timeout", "50ms")]);
    let error = Connections::new(&connect, 1, &[])
        .rows(sqlx::query("select pg_sleep(30)"))
        .await
        .expect_err("ended by the server");
    let fault = classify(&error);
    assert!(
        fault
            .to_string()
            .contains("ALTER ROLE .. SET transaction_timeout"),
        "{fault}"
    );
}

on_oldest_and_newest_server! {
    async fn a_relay_asks_which_rights_its_user_lacks(database: Database) {
        let settings = database.settings();
        assert_eq!(database.migrate(&settings).await.problem, None);
        let mut admin = database.as_admin().await;
        let pool = database.relay_pool(&[]);
        let refused = Problem::new(ProblemClass::InsufficientPrivilege, "refused");
        let schema = &settings.database.schema;
        let told = with_lacking_rights(&pool, schema, refused.clone()).await;
        assert_eq!(told, refused, "it has all rights");
        for (right, expected) in [
            ("execute on function outbox.resume_sequence", "EXECUTE ON FUNCTION outbox.resume_sequence"),
            ("delete on outbox.relay", "DELETE ON TABLE outbox.relay"),
            ("usage on schema outbox", "USAGE ON SCHEMA outbox, DELETE ON TABLE outbox.relay"),
        ] {
            let revoke = format!("revoke {right} from {}", database.relay);
            execute(&mut admin, &revoke).await;
            let told = with_lacking_rights(&pool, schema, refused.clone()).await;
            assert!(told.message.contains(expected), "{told:?}");
        }
    }
}

on_oldest_and_newest_server! {
    async fn a_missing_right_is_told_with_the_object(database: Database) {
        let mut admin = database.as_admin().await;
        execute(&mut admin, "create table public.closed (id int)").await;
        let pool = database.relay_pool(&[]);
        let error = pool
            .rows(sqlx::query("select * from public.closed"))
            .await
            .expect_err("no right");
        let fault = classify(&error);
        assert_eq!(fault.class, ProblemClass::InsufficientPrivilege);
        assert!(fault.to_string().contains("GRANT SELECT ON TABLE closed"), "{fault}");
    }
}
