use std::{borrow::Cow, error::Error, fmt, io};

use sqlx::error::ErrorKind;

use super::*;

/// What a server answers; its own words hold a row on purpose.
#[derive(Debug)]
struct Answer(&'static str, &'static str);

const WORDS: &str = "Failing row contains (hunter2)";

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.1)
    }
}

impl Error for Answer {}

impl ServerError for Answer {
    fn message(&self) -> &str {
        self.1
    }
    fn code(&self) -> Option<Cow<'_, str>> {
        Some(self.0.into())
    }
    fn as_error(&self) -> &(dyn Error + Send + Sync + 'static) {
        self
    }
    fn as_error_mut(&mut self) -> &mut (dyn Error + Send + Sync + 'static) {
        self
    }
    fn into_error(self: Box<Self>) -> Box<dyn Error + Send + Sync + 'static> {
        self
    }
    fn kind(&self) -> ErrorKind {
        ErrorKind::Other
    }
}

fn answer(code: &'static str) -> DatabaseError {
    answer_in_words(code, WORDS)
}

fn answer_in_words(code: &'static str, words: &'static str) -> DatabaseError {
    classify(&sqlx::Error::from(Answer(code, words)))
}

#[test]
fn each_answer_of_the_server_has_its_class() {
    let expected = [
        ("28P01", ProblemClass::AuthenticationFailed),
        ("28000", ProblemClass::AuthenticationFailed),
        ("42501", ProblemClass::InsufficientPrivilege),
        ("55P03", ProblemClass::LockTimeout),
        ("3D000", ProblemClass::DatabaseMissing),
        ("3F000", ProblemClass::SchemaNotReady),
        ("42P01", ProblemClass::SchemaNotReady),
        ("42703", ProblemClass::SchemaNotReady),
        ("42804", ProblemClass::SchemaNotReady),
        ("42846", ProblemClass::SchemaNotReady),
        ("0A000", ProblemClass::SchemaNotReady),
        ("42704", ProblemClass::RoleMissing),
        ("53300", ProblemClass::Unreachable),
        ("57P03", ProblemClass::Unreachable),
        ("57014", ProblemClass::DatabaseError),
        ("25006", ProblemClass::DatabaseReadOnly),
        ("53100", ProblemClass::DatabaseFull),
        ("08P01", ProblemClass::Unreachable),
        ("XX000", ProblemClass::DatabaseError),
        ("25P04", ProblemClass::DatabaseError),
        ("57P04", ProblemClass::DatabaseMissing),
        ("57P05", ProblemClass::Unreachable),
    ];
    for (code, class) in expected {
        assert_eq!(answer(code).class, class, "{code}");
    }
}

/// The texts are PgBouncer's, 1.18; the last two are PostgreSQL's.
#[test]
fn what_a_pooler_says_is_told_apart_by_its_words() {
    let expected = [
        (
            "08P01",
            "unsupported startup parameter: options",
            ProblemClass::InvalidSettings,
        ),
        (
            "08P01",
            "transaction blocks not allowed in statement pooling mode",
            ProblemClass::InvalidSettings,
        ),
        (
            "08P01",
            "SASL authentication failed",
            ProblemClass::AuthenticationFailed,
        ),
        ("08P01", "server conn crashed?", ProblemClass::Unreachable),
        (
            "26000",
            "prepared statement \"sqlx_s_1\" does not exist",
            ProblemClass::InvalidSettings,
        ),
        (
            "42P05",
            "prepared statement \"sqlx_s_1\" already exists",
            ProblemClass::InvalidSettings,
        ),
    ];
    for (code, words, class) in expected {
        let fault = answer_in_words(code, words);
        assert_eq!(fault.class, class, "{words}");
        assert!(!fault.to_string().contains(words), "{fault}");
    }
}

#[test]
fn an_error_of_connecting_is_told_as_such_with_the_database() {
    let source = sqlx::Error::from(Answer("42704", WORDS));
    let fault = classify(&while_connecting("database 'files'", source));
    assert_eq!(fault.class, ProblemClass::InvalidSettings);
    let text = fault.to_string();
    assert!(
        text.starts_with("cannot connect to database 'files': ") && !text.contains("role does"),
        "{text}"
    );
}

#[test]
fn a_connection_that_broke_is_told_with_the_database_and_an_answer_is_not() {
    let marked = |source| classify(&while_working("database 'files'", source)).to_string();
    let text = marked(sqlx::Error::Io(io::ErrorKind::ConnectionReset.into()));
    assert!(
        text.starts_with("lost the connection to database 'files': ") && text.contains("check"),
        "{text}"
    );
    let text = marked(sqlx::Error::from(Answer("53100", WORDS)));
    assert!(!text.contains("lost the connection"), "{text}");
}

#[test]
fn an_unknown_answer_keeps_its_code_and_loses_its_words() {
    let fault = answer("23001");
    assert!(fault.to_string().contains("23001"), "{fault}");
    assert!(!format!("{fault:?}").contains("hunter2"), "{fault:?}");
}

#[test]
fn what_fails_on_the_way_is_unreachable() {
    for kind in [
        io::ErrorKind::ConnectionRefused,
        io::ErrorKind::TimedOut,
        io::ErrorKind::UnexpectedEof,
        io::ErrorKind::Other,
    ] {
        assert_eq!(
            classify(&sqlx::Error::Io(kind.into())).class,
            ProblemClass::Unreachable,
            "{kind}"
        );
    }
    assert_eq!(
        classify(&sqlx::Error::PoolTimedOut).class,
        ProblemClass::Unreachable
    );
}

#[test]
fn a_failed_handshake_inside_an_io_error_is_a_tls_problem() {
    let handshake = rustls::Error::InvalidCertificate(rustls::CertificateError::UnknownIssuer);
    let fault = classify(&sqlx::Error::Io(io::Error::new(
        io::ErrorKind::InvalidData,
        handshake,
    )));
    assert_eq!(fault.class, ProblemClass::TlsFailed);
    assert!(fault.to_string().contains("tls.ca"), "{fault}");
}

#[test]
fn a_server_without_tls_is_named_as_such() {
    let fault = classify(&sqlx::Error::Tls("server does not support TLS".into()));
    assert_eq!(fault.class, ProblemClass::TlsFailed);
    assert!(fault.to_string().contains("does not offer TLS"), "{fault}");
}
