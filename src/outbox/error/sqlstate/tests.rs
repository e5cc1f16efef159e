use std::collections::BTreeSet;

use super::*;

/// Codes of PostgreSQL 15 to 18.
fn codes() -> impl Iterator<Item = &'static str> {
    include_str!("codes.txt")
        .lines()
        .filter(|line| !line.starts_with('#'))
        .map(|line| line.split(' ').next().expect("a code"))
}

fn words(code: &str, phase: Phase) -> String {
    meaning(code, "", phase).1.into_owned()
}

/// Each sentence says what to do, after a colon, or that nothing needs to be done.
fn has_next_step(words: &str) -> bool {
    words.contains(": ") || words.contains("retried") || words.contains("automatically")
}

#[test]
fn every_code_of_postgresql_has_words_with_a_next_step() {
    assert!(codes().count() >= 262);
    for code in codes() {
        for phase in [Phase::Connecting, Phase::Working] {
            let words = words(code, phase);
            assert!(has_next_step(&words), "{code}: {words}");
            assert!(
                !words.contains("that PostgreSQL does not have"),
                "{code}: {words}"
            );
            assert!(words.len() <= 200, "{code}: {} bytes: {words}", words.len());
        }
    }
}

#[test]
fn every_class_of_postgresql_has_words() {
    let classes: BTreeSet<&str> = codes().map(|code| &code[..2]).collect();
    assert_eq!(classes.len(), 44, "43, and that of snapshots before 17");
    let missing: Vec<_> = classes
        .into_iter()
        .filter(|class| class_words(class).is_none())
        .collect();
    assert_eq!(missing, Vec::<&str>::new());
}

#[test]
fn codes_that_users_can_cause_have_words_of_their_own() {
    let own: BTreeSet<&str> = codes().filter(|code| by_code(code).is_some()).collect();
    assert!(own.len() >= 60, "{}: {own:?}", own.len());
    for class in [
        "08", "22", "25", "28", "3D", "3F", "40", "42", "53", "54", "55", "57", "58", "XX",
    ] {
        assert!(own.iter().any(|code| code.starts_with(class)), "{class}");
    }
}

#[test]
fn a_code_of_another_vendor_gets_the_words_of_its_class_and_keeps_its_number() {
    let (class, words) = meaning("53ABC", "", Phase::Working);
    assert_eq!(class, Failed);
    assert!(
        words.contains("exhausted") && words.ends_with("(SQLSTATE 53ABC)"),
        "{words}"
    );
    let (_, words) = meaning("ZZ999", "", Phase::Working);
    assert!(words.ends_with("(SQLSTATE ZZ999)"), "{words}");
}

#[test]
fn while_connecting_nothing_is_said_about_roles_to_create_columns_or_migrations() {
    for code in codes() {
        let words = words(code, Phase::Connecting);
        for word in [
            "column",
            "a role",
            "migration",
            "migrate",
            "schema",
            "grants",
        ] {
            assert!(!words.contains(word), "{code}: {words}");
        }
    }
}

#[test]
fn a_setting_that_does_not_exist_is_told_by_where_it_comes_from() {
    let message = "unrecognized configuration parameter \"nosuch_setting\"";
    let (class, words) = meaning("42704", message, Phase::Connecting);
    assert_eq!(class, InvalidSettings);
    assert!(words.contains("'options' of the URL"), "{words}");
}

#[test]
fn a_missing_right_is_told_with_object_and_grant() {
    for (message, expected) in [
        (
            "permission denied for table event",
            "GRANT SELECT ON TABLE event",
        ),
        (
            "permission denied for schema outbox",
            "GRANT USAGE ON SCHEMA outbox",
        ),
        (
            "permission denied for function settle",
            "GRANT EXECUTE ON FUNCTION settle",
        ),
        (
            "permission denied for database app",
            "GRANT CREATE ON DATABASE app",
        ),
        ("Erlaubnis verweigert", "GRANT the right"),
    ] {
        let (class, words) = meaning("42501", message, Phase::Working);
        assert_eq!(class, InsufficientPrivilege);
        assert!(words.contains(expected), "{words}");
    }
}

#[test]
fn connection_limits_are_told_apart() {
    for (message, expected) in [
        ("too many connections for role \"relay\"", "this user"),
        (
            "too many connections for database \"app\"",
            "ALTER DATABASE",
        ),
        ("sorry, too many clients already", "max_connections"),
    ] {
        for phase in [Phase::Connecting, Phase::Working] {
            let (class, words) = meaning("53300", message, phase);
            assert_eq!(class, Unreachable);
            assert!(words.contains(expected), "{words}");
            assert!(!words.contains("\"relay\""), "{words}");
        }
    }
}
