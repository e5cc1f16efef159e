//! Checks of the schema, its owner, and rights. Pure.

use crate::{
    doctor::{
        checks::Moment,
        codes::Code,
        facts::{DatabaseFacts, Fact, SettingsFacts},
        report::Finding,
    },
    outbox::{SchemaDrift, doctor::MigrationRights},
    report::{Problem, ProblemClass},
};

/// Checks that need the relay's login.
pub(super) const NEEDS_LOGIN: [Code; 3] =
    [Code::SchemaLevel, Code::SchemaDefinition, Code::RelayRights];

/// Checks of the migration's own login.
pub(super) fn migration(
    migration: Option<&Fact<MigrationRights>>,
    settings: &SettingsFacts,
    moment: Moment,
) -> Vec<Finding> {
    match migration {
        Some(Ok(facts)) => vec![
            Finding::ok(Code::MigrationLogin, format!("user '{}'", facts.role)),
            rights(facts),
            roles(&facts.missing_roles),
        ],
        Some(Err(problem)) => without_login(problem, settings, moment),
        None => vec![],
    }
}

/// In a pod of a relay the Secret of the migration's user is not available, and need not be.
fn without_login(problem: &Problem, settings: &SettingsFacts, moment: Moment) -> Vec<Finding> {
    let is_absent = settings.has_own_migration_user
        && problem.class == ProblemClass::SecretMissing
        && moment == Moment::Running;
    let login = if is_absent {
        Finding::unknown(Code::MigrationLogin, problem)
    } else {
        Finding::problem(Code::MigrationLogin, problem)
    };
    vec![
        login,
        Finding::skipped(Code::MigrationRights, Code::MigrationLogin),
        Finding::skipped(Code::RolesExist, Code::MigrationLogin),
    ]
}

fn rights(facts: &MigrationRights) -> Finding {
    let (code, user) = (Code::MigrationRights, &facts.role);
    match &facts.schema_owner {
        Some(owner) if facts.is_owner => {
            Finding::ok(code, format!("the schema's owner is '{owner}'"))
        }
        Some(owner) => Finding::fault(
            code,
            format!(
                "the schema belongs to role '{owner}', so '{user}' cannot migrate it: GRANT \
                 {owner} TO {user}, or use the user that owns it"
            ),
        ),
        None if facts.may_create => Finding::ok(code, "it may create the schema"),
        None => Finding::fault(
            code,
            format!(
                "there is no schema, and '{user}' may not create one: GRANT CREATE ON DATABASE to \
                 it, or create the schema for it"
            ),
        ),
    }
}

fn roles(missing: &[String]) -> Finding {
    let code = Code::RolesExist;
    if missing.is_empty() {
        return Finding::ok(code, "all roles of spec.migration.grants exist");
    }
    let message = format!(
        "missing: {}; create them, or correct the names",
        missing.join(", ")
    );
    Finding::fault(code, message)
}

/// Checks that the relay's user made.
pub(super) fn all(database: &DatabaseFacts, moment: Moment) -> Vec<Finding> {
    let level = level(&database.level, moment);
    let has_schema = database.level.is_ok();
    let needs_schema = |code, finding: Finding| {
        if has_schema {
            finding
        } else {
            Finding::skipped(code, Code::SchemaLevel)
        }
    };
    vec![
        level,
        // A changed sequence is one of the reasons for which the level is not usable.
        needs_schema(Code::SchemaDefinition, definition(&database.drift)),
        needs_schema(Code::RelayRights, relay_rights(&database.lacking_rights)),
    ]
}

fn level(level: &Fact<i64>, moment: Moment) -> Finding {
    let code = Code::SchemaLevel;
    match level {
        Ok(level) => Finding::ok(code, format!("level {level}")),
        Err(problem)
            if moment == Moment::BeforeRollout && problem.class == ProblemClass::SchemaNotReady =>
        {
            Finding::ok(code, "the migration will make or upgrade it")
        }
        Err(problem) => Finding::problem(code, problem),
    }
}

fn definition(drift: &Fact<SchemaDrift>) -> Finding {
    let code = Code::SchemaDefinition;
    match drift {
        Ok(SchemaDrift::No) => Finding::ok(code, "as the migrations left it"),
        Ok(SchemaDrift::Tolerable(problem)) => Finding::warning(code, problem.message.clone()),
        Ok(SchemaDrift::Unsafe(problem)) => Finding::problem(code, problem),
        Err(problem) => Finding::unknown(code, problem),
    }
}

fn relay_rights(lacking: &Fact<Vec<String>>) -> Finding {
    let code = Code::RelayRights;
    match lacking {
        Ok(lacking) if lacking.is_empty() => Finding::ok(code, "complete"),
        Ok(lacking) => Finding::fault(
            code,
            format!(
                "the relay's user lacks {}: run the migration again, or GRANT it",
                lacking.join(", ")
            ),
        ),
        Err(problem) => Finding::unknown(code, problem),
    }
}
