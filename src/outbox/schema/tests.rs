use super::*;

fn schema() -> SchemaName {
    SchemaName::try_from("outbox".to_owned()).expect("a name")
}

fn owner(name: &str) -> Owner {
    Owner {
        cluster: "c".to_owned(),
        namespace: "n".to_owned(),
        name: name.to_owned(),
    }
}

fn state(level: i64, compatible_from: i64) -> SchemaState {
    SchemaState {
        level,
        compatible_from,
        owner: Some(owner("files")),
    }
}

#[test]
fn the_level_is_the_number_of_the_last_migration() {
    let last = std::fs::read_dir("migrations")
        .expect("the folder")
        .filter_map(|entry| {
            let name = entry
                .expect("an entry")
                .file_name()
                .into_string()
                .expect("UTF-8");
            name.split('_').next()?.parse().ok()
        });
    assert_eq!(last.max(), Some(LEVEL));
}

#[test]
fn an_older_schema_waits_for_its_migration() {
    assert_eq!(
        state(LEVEL - 1, 0)
            .check_level(&schema())
            .expect_err("older")
            .problem()
            .class,
        ProblemClass::SchemaNotReady
    );
}

#[test]
fn a_newer_schema_is_fine_as_long_as_it_takes_this_version() {
    assert!(state(LEVEL + 5, LEVEL).check_level(&schema()).is_ok());
    let error = state(LEVEL + 5, LEVEL + 1)
        .check_level(&schema())
        .expect_err("too new");
    assert_eq!(error.problem().class, ProblemClass::NewerSchema);
}

#[test]
fn another_owner_is_named() {
    assert!(
        state(1, 1)
            .ownership(&schema(), &owner("files"))
            .is_ok_and(|ownership| ownership == Ownership::Own)
    );
    let error = state(1, 1)
        .ownership(&schema(), &owner("essays"))
        .expect_err("another one's");
    assert_eq!(error.problem().class, ProblemClass::SchemaClaimedByOther);
    assert!(error.to_string().contains("'c/n/files'"), "{error}");
}

#[test]
fn an_owner_of_this_name_in_another_cluster_is_most_likely_this_one() {
    let ours = Owner {
        cluster: "local".to_owned(),
        ..owner("files")
    };
    let problem = state(1, 1)
        .ownership(&schema(), &ours)
        .expect_err("another cluster's")
        .problem();
    assert_eq!(problem.class, ProblemClass::SchemaClaimedByOther);
    assert!(
        problem.message.contains("--cluster-name"),
        "{}",
        problem.message
    );
}

#[test]
fn the_longest_names_still_leave_room_for_the_next_step() {
    let schema = SchemaName::try_from("s".repeat(30)).expect("a name");
    let other = Owner {
        cluster: "c".repeat(36),
        namespace: "n".repeat(30),
        name: "o".repeat(30),
    };
    let error = SchemaError::ClaimedByOther {
        schema: schema.as_str().to_owned(),
        other,
    };
    assert!(
        error.problem().message.ends_with("with another schema"),
        "{}",
        error.problem().message
    );
    let other = Owner {
        cluster: "c".repeat(36),
        namespace: "n".repeat(20),
        name: "o".repeat(20),
    };
    let error = SchemaError::ClaimedInOtherCluster {
        schema: "s".repeat(10),
        other,
    };
    assert!(
        error.problem().message.ends_with("takeOverFrom"),
        "{}",
        error.problem().message
    );
}

#[test]
fn names_are_quoted_as_the_server_does() {
    assert_eq!(quoted("a\"b"), "\"a\"\"b\"");
    let schema = schema();
    let sql = statement_for_role(
        "grant usage on schema @schema@ to @role@",
        &schema,
        "x\"; drop table y; --",
    );
    assert_eq!(
        sql.as_str(),
        "grant usage on schema \"outbox\" to \"x\"\"; drop table y; --\""
    );
}
