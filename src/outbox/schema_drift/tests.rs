use super::*;

const EXPECTED: &[ExpectedFact] = &[
    fact("table event", "ordinary, logged, no row security", "alter"),
    fact("column event.xact", "xid8, not null", "alter"),
    fact("column event.payload", "bytea, null", "alter"),
    fact("order of columns", "xact before id", ""),
    fact(
        "sequence event_id_seq",
        "bigint, increment 1, cache 1, no cycle",
        "alter",
    ),
    fact("default of event.xact", "pg_current_xact_id()", "alter"),
    fact("index of event (lane, id)", "btree, primary key", "alter"),
    fact("function settle(tid[])", "plpgsql, body 1a", "create"),
    fact(
        "trigger ring on event",
        "enabled, AFTER INSERT ON event ring()",
        "create",
    ),
];

const fn fact(name: &'static str, fact: &'static str, repair: &'static str) -> ExpectedFact {
    ExpectedFact { name, fact, repair }
}

/// What was expected, with this change: a name, and the new fact, or none if it is missing.
fn found(name: &str, fact: Option<&str>) -> Vec<SchemaFact> {
    let kept = EXPECTED.iter().filter(|expected| expected.name != name);
    let kept = kept
        .map(|of| (of.name, of.fact))
        .chain(fact.map(|fact| (name, fact)));
    let owned = kept.map(|(name, fact)| SchemaFact {
        name: name.to_owned(),
        fact: fact.to_owned(),
    });
    owned.collect()
}

fn schema() -> SchemaName {
    SchemaName::try_from("outbox".to_owned()).expect("a name")
}

#[track_caller]
fn check(name: &str, fact: Option<&str>, wanted: Result<&str, &str>) {
    match (judge_drift(EXPECTED, &found(name, fact), &schema()), wanted) {
        (SchemaDrift::No, Ok("")) => {}
        (SchemaDrift::Tolerable(problem), Ok(part)) => {
            assert_eq!(problem.class, ProblemClass::TableChanged);
            assert!(
                !part.is_empty() && problem.message.contains(part),
                "{}",
                problem.message
            );
        }
        (SchemaDrift::Unsafe(problem), Err(part)) => {
            assert_eq!(problem.class, ProblemClass::SchemaNotReady);
            assert!(problem.message.contains(part), "{}", problem.message);
        }
        (other, _) => panic!("{name}: {other:?}"),
    }
}

#[test]
fn what_the_migrations_made_must_be_as_they_made_it() {
    check("nothing", None, Ok(""));
    for (name, fact, part) in [
        (
            "sequence event_id_seq",
            Some("bigint, increment 5, cache 50, no cycle"),
            "nothing is published until you run 'outbox-relay migrate': sequence event_id_seq has \
             'increment 5, cache 50' instead of 'increment 1, cache 1'",
        ),
        (
            "sequence event_id_seq",
            None,
            "sequence event_id_seq is missing",
        ),
        (
            "default of event.xact",
            None,
            "default of event.xact is missing",
        ),
        (
            "index of event (lane, id)",
            None,
            "index of event (lane, id) is missing",
        ),
        (
            "index of event (lane, id)",
            Some("btree, not unique"),
            "has 'not unique' instead of 'primary key'",
        ),
        (
            "function settle(tid[])",
            Some("plpgsql, body 2b"),
            "'body 2b' instead of 'body 1a'",
        ),
        (
            "table event",
            Some("ordinary, unlogged, no row security"),
            "'unlogged' instead of 'logged'",
        ),
        (
            "table event",
            Some("ordinary, logged, row security"),
            "'row security' instead of",
        ),
        (
            "column event.payload",
            Some("text, null"),
            "until you undo the change: column event.payload has 'text' instead of 'bytea'",
        ),
        (
            "order of columns",
            Some("id before xact"),
            "'id before xact' instead of",
        ),
    ] {
        check(name, fact, Err(part));
    }
}

#[test]
fn the_trigger_that_rings_is_only_for_speed() {
    for fact in [None, Some("disabled, AFTER INSERT ON event ring()")] {
        check("trigger ring on event", fact, Ok("outbox-relay migrate"));
    }
}

#[test]
fn additions_stop_publishing_only_if_they_can_change_hide_or_keep_rows() {
    let tolerable = [
        ("column event.note", "text, null"),
        ("default of event.note", "1"),
        ("index of event (topic)", "btree, not unique"),
        ("constraint mine on event", "(id > 0)"),
        (
            "trigger audit on event",
            "enabled, AFTER INSERT OR DELETE ON event",
        ),
        (
            "trigger audit on event",
            "enabled, BEFORE UPDATE ON event FOR EACH ROW",
        ),
        (
            "trigger audit on event",
            "disabled, BEFORE INSERT ON event FOR EACH ROW",
        ),
        (
            "trigger audit on event",
            "enabled, BEFORE DELETE ON event FOR EACH STATEMENT",
        ),
        ("rule nothing on event", "beside update"),
    ];
    for (name, fact) in tolerable {
        check(name, Some(fact), Ok(name));
    }
    let unsafe_ones = [
        (
            "trigger t on event",
            "enabled, BEFORE INSERT ON event FOR EACH ROW",
            "drop trigger t on outbox.event",
        ),
        (
            "trigger t on event",
            "enabled, BEFORE DELETE ON event FOR EACH ROW",
            "drop trigger t on outbox.event",
        ),
        (
            "rule r on event",
            "instead of delete",
            "drop rule r on outbox.event",
        ),
        (
            "rule r on event",
            "beside insert",
            "drop rule r on outbox.event",
        ),
        (
            "heir x.y of event",
            "a table",
            "alter table x.y no inherit outbox.event",
        ),
        (
            "foreign key f to event",
            "from x.y",
            "alter table x.y drop constraint f",
        ),
        (
            "replica identity of event",
            "nothing",
            "outbox.event replica identity default",
        ),
    ];
    for (name, fact, undo) in unsafe_ones {
        check(name, Some(fact), Err(undo));
    }
    for elsewhere in [
        "table notes",
        "column notes.text",
        "function mine()",
        "trigger t on notes",
    ] {
        check(elsewhere, Some("anything"), Ok(""));
    }
}

#[test]
fn an_unsafe_change_is_reported_before_a_tolerable_one() {
    let mut found = found("trigger ring on event", None);
    found.retain(|fact| fact.name != "default of event.xact");
    let all = differences(EXPECTED, &found, &schema());
    let effects: Vec<_> = all.iter().map(|difference| difference.effect).collect();
    assert_eq!(effects, [Effect::Unsafe, Effect::Tolerable]);
}

#[test]
fn a_second_index_on_the_same_columns_is_an_addition() {
    let mut found = found("nothing", None);
    found.push(SchemaFact {
        name: "index of event (lane, id)".to_owned(),
        fact: "btree, not unique".to_owned(),
    });
    let all = differences(EXPECTED, &found, &schema());
    assert_eq!((all.len(), all[0].effect), (1, Effect::Tolerable));
}

#[test]
fn a_schema_of_another_level_is_not_compared() {
    for (level, is_drift) in [(LEVEL, true), (LEVEL + 1, false)] {
        let mut found = found("default of event.xact", None);
        found.push(SchemaFact {
            name: "level".to_owned(),
            fact: level.to_string(),
        });
        let drift = judge_drift(EXPECTED, &found, &schema());
        assert_eq!(drift != SchemaDrift::No, is_drift, "{level}");
    }
}

#[test]
fn a_newer_server_may_print_expressions_in_another_way() {
    for (version, is_drift) in [("180003", true), ("190000", false)] {
        let mut found = found(
            "default of event.xact",
            Some("pg_catalog.pg_current_xact_id()"),
        );
        found.push(SchemaFact {
            name: "server".to_owned(),
            fact: version.to_owned(),
        });
        let drift = judge_drift(EXPECTED, &found, &schema());
        assert_eq!(drift != SchemaDrift::No, is_drift, "{version}");
    }
}
