use std::path::PathBuf;

use super::*;
use crate::settings::SchemaName;

fn folder(name: &str, files: &[(&str, &str)]) -> Secrets {
    let path = PathBuf::from("target/tmp/connect").join(name);
    std::fs::create_dir_all(path.join("database")).expect("a folder");
    for (file, content) in files {
        std::fs::write(path.join("database").join(file), content).expect("written");
    }
    Secrets::folder(path)
}

fn settings(endpoint: Endpoint) -> DatabaseSettings {
    let tls = TlsSettings {
        mode: TlsMode::VerifyFull,
        ca: false,
        client_certificate: false,
    };
    let schema = SchemaName::try_from("outbox".to_owned()).expect("a name");
    DatabaseSettings {
        endpoint,
        tls,
        schema,
        max_connections: 4,
        pooler: false,
    }
}

fn host() -> Endpoint {
    Endpoint::Host {
        host: "db.example".to_owned(),
        port: 5433,
        name: "files".to_owned(),
    }
}

#[test]
fn host_and_credentials_become_a_connection_with_timeouts() {
    let secrets = folder(
        "host",
        &[("username", "relay\n"), ("password", "hunter2\n")],
    );
    let connect = Connect::relay(&settings(host()), &secrets).expect("complete");
    assert_eq!(
        (connect.options.get_host(), connect.options.get_port()),
        ("db.example", 5433)
    );
    assert_eq!(
        (connect.user(), connect.options.get_database()),
        ("relay", Some("files"))
    );
    assert!(matches!(
        connect.options.get_ssl_mode(),
        PgSslMode::VerifyFull
    ));
    let startup = connect.startup();
    let startup = startup.get_options().expect("timeouts");
    for name in [
        "lock_timeout",
        "statement_timeout",
        "idle_in_transaction_session_timeout",
    ] {
        assert!(startup.contains(name), "{startup}");
    }
}

#[test]
fn an_ipv6_address_is_connected_to_without_brackets_and_shown_with_them() {
    let secrets = folder("ipv6", &[("username", "relay"), ("password", "hunter2")]);
    for given in ["::1", "[::1]"] {
        let endpoint = Endpoint::Host {
            host: given.to_owned(),
            port: 5433,
            name: "files".to_owned(),
        };
        let connect = Connect::relay(&settings(endpoint), &secrets).expect("complete");
        assert_eq!(connect.options.get_host(), "::1");
        assert_eq!(
            connect.to_string(),
            "database 'files' at '[::1]:5433' as user 'relay'"
        );
    }
}

#[test]
fn neither_debug_nor_display_shows_the_password() {
    let secrets = folder("debug", &[("username", "relay"), ("password", "hunter2")]);
    let connect = Connect::relay(&settings(host()), &secrets).expect("complete");
    let shown = format!("{connect:?} {connect}");
    assert!(
        shown.contains("db.example:5433") && !shown.contains("hunter2"),
        "{shown}"
    );
}

#[test]
fn the_tls_mode_of_the_settings_beats_the_one_of_the_url() {
    let secrets = folder(
        "url",
        &[(
            "url",
            "postgres://app:pa%20ss@db:6000/files?sslmode=disable&options=-c%20\
             statement_timeout%3D0",
        )],
    );
    let connect = Connect::relay(&settings(Endpoint::Url), &secrets).expect("complete");
    assert!(matches!(
        connect.options.get_ssl_mode(),
        PgSslMode::VerifyFull
    ));
    assert_eq!(
        (
            connect.user(),
            connect.options.get_host(),
            connect.options.get_port()
        ),
        ("app", "db", 6000)
    );
    let startup = connect.startup();
    let startup = startup.get_options().expect("timeouts");
    assert!(
        startup.starts_with("-c statement_timeout=0")
            && startup.contains("-c statement_timeout=30s"),
        "the last one wins: {startup}"
    );
}

#[test]
fn a_pooler_gets_no_settings_at_the_start_and_all_of_them_with_each_transaction() {
    let secrets = folder("pooler", &[("username", "relay"), ("password", "hunter2")]);
    let settings = DatabaseSettings {
        pooler: true,
        ..settings(host())
    };
    let connect = Connect::relay(&settings, &secrets)
        .expect("complete")
        .with(&[("enable_sort", "off")]);
    assert_eq!(connect.startup().get_options(), None);
    assert_eq!(
        connect.begin().as_str(),
        "begin isolation level read committed; set local lock_timeout = '2s'; set local \
         statement_timeout = '30s'; \
         set local idle_in_transaction_session_timeout = '10s'; set local enable_sort = 'off'"
    );
}

#[test]
fn a_url_whose_settings_a_pooler_would_refuse_is_refused() {
    let secrets = folder(
        "pooler-url",
        &[("url", "postgres://app:hunter2@h/d?options=-c%20geqo%3Doff")],
    );
    let settings = DatabaseSettings {
        pooler: true,
        ..settings(Endpoint::Url)
    };
    let error = Connect::relay(&settings, &secrets).expect_err("options");
    assert_eq!(error.problem().class, ProblemClass::SecretInvalid);
    assert!(
        error.to_string().contains("'options'")
            && error.to_string().contains("spec.database.urlSecretRef"),
        "{error}"
    );
}

#[test]
fn a_url_that_is_none_is_refused_without_showing_it() {
    for url in [
        "hunter2",
        "mysql://app:hunter2@db/files",
        "postgres://app:hunter2@db:port/files",
        "postgres://app:hunter2%@db/files",
        "postgres://app:hunter2/@db/files",
        "postgres://app:hunter2@db,db2/files",
    ] {
        let secrets = folder("no-url", &[("url", url)]);
        let error = Connect::relay(&settings(Endpoint::Url), &secrets).expect_err(url);
        assert!(matches!(error, ConnectError::Url { .. }), "{error}");
        assert!(
            error.to_string().contains("spec.database.urlSecretRef"),
            "{error}"
        );
        assert!(
            !format!("{error} {error:?}").contains("hunter2"),
            "{error:?}"
        );
    }
}

#[test]
fn a_ca_file_without_a_certificate_is_refused() {
    let mut settings = settings(host());
    settings.tls.ca = true;
    let secrets = folder(
        "ca",
        &[
            ("username", "relay"),
            ("password", "hunter2"),
            ("ca.crt", "no certificate"),
        ],
    );
    let error = Connect::relay(&settings, &secrets).expect_err("no certificate");
    assert_eq!(error.problem().class, ProblemClass::SecretInvalid);
    assert!(
        error.to_string().contains("spec.database.tls.ca"),
        "{error}"
    );
}

#[test]
fn a_missing_password_is_a_problem_unless_a_client_certificate_stands_for_it() {
    let secrets = folder("certificate", &[("username", "relay")]);
    let error = Connect::relay(&settings(host()), &secrets).expect_err("no password");
    assert_eq!(error.problem().class, ProblemClass::SecretMissing);
    let options = PgConnectOptions::new_without_pgpass();
    let tls = TlsSettings {
        mode: TlsMode::VerifyFull,
        ca: false,
        client_certificate: true,
    };
    assert!(with_credentials(options, &tls, &DATABASE, &secrets).is_ok());
}
