//! Settings -> a schema at the level of this version, with its owner and grants; and a report for
//! the operator. IO, in one transaction: a migration that fails or is killed leaves nothing behind.

mod adoption;
mod apply;
mod grants;
mod lock;
mod outcome;
mod repair;
mod resume;
mod script;
mod transaction;
mod verify;

use std::time::Duration;

use crate::{
    outbox::{
        adopt::AdoptError,
        connect::{Connect, ConnectError},
        error::DatabaseError,
        schema::SchemaError,
        server_product::UnsupportedProduct,
    },
    report::{MigrationReport, Problem, ProblemClass},
    secrets::Secrets,
    settings::{MigrationPolicy, Owner, RelaySettings, SchemaName},
};

pub use adoption::{drain, dry_run};
pub use outcome::{in_words, termination_message};
pub use resume::{resume_script, resume_sequence};
pub use script::script;

/// Longest wait for another migration of the same schema.
pub const LOCK_WAIT: Duration = Duration::from_secs(30);

/// Why a migration failed. Nothing was changed then, unless only the commit failed.
#[derive(Debug, thiserror::Error)]
pub enum MigrateError {
    #[error(transparent)]
    Connect(#[from] ConnectError),
    #[error(transparent)]
    Schema(#[from] SchemaError),
    #[error(transparent)]
    Adopt(#[from] AdoptError),
    #[error("cannot {what}")]
    Prepare {
        what: &'static str,
        #[source]
        source: DatabaseError,
    },
    #[error("the server runs PostgreSQL {major}, but version 15 or newer is required: upgrade it")]
    ServerTooOld { major: i32 },
    #[error(transparent)]
    Product(#[from] UnsupportedProduct),
    #[error(
        "another migration of schema '{schema}' has been running for {waited:?}; this is retried"
    )]
    LockHeld { schema: String, waited: Duration },
    #[error("cannot create schema '{schema}'")]
    CreateSchema {
        schema: String,
        #[source]
        source: DatabaseError,
    },
    #[error(
        "schema '{schema}' contains tables that do not belong to the outbox: set \
         spec.database.schema to a schema of its own"
    )]
    NotOurs { schema: String },
    #[error(
        "every role may create objects in schema '{schema}' and so replace those of the outbox: \
         revoke create on schema {schema} from public"
    )]
    OpenToAll { schema: String },
    #[error("cannot apply the migrations to schema '{schema}'")]
    ApplyMigrations {
        schema: String,
        #[source]
        source: DatabaseError,
    },
    #[error(
        "migration {version} of schema '{schema}' was applied with other contents: use the version \
         of outbox-relay that applied it, or an empty schema"
    )]
    OtherForm { schema: String, version: i64 },
    #[error("{sentence}")]
    SchemaChanged { sentence: String },
    #[error("cannot repair schema '{schema}': {what}")]
    Repair {
        schema: String,
        what: String,
        #[source]
        source: DatabaseError,
    },
    #[error("cannot become the owner of schema '{schema}'")]
    Claim {
        schema: String,
        #[source]
        source: DatabaseError,
    },
    #[error(
        "schema '{schema}' cannot be taken over from OutboxRelay '{owner}' while its relays are \
         active ({relays}): suspend or delete it first"
    )]
    OwnerAtWork {
        schema: String,
        owner: Owner,
        relays: i64,
    },
    #[error("missing roles: {roles}; create them, or correct spec.migration.grants")]
    RolesMissing { roles: String },
    #[error("cannot grant role '{role}' its privileges")]
    Grant {
        role: String,
        #[source]
        source: DatabaseError,
    },
    #[error(
        "roles lack privileges on schema '{schema}': {missing}; set spec.migration.policy to \
         Apply, or grant them"
    )]
    RightsMissing { schema: String, missing: String },
    #[error("cannot advance the id sequence of schema '{schema}'")]
    ResumeSequence {
        schema: String,
        #[source]
        source: DatabaseError,
    },
    #[error("cannot commit the migration of schema '{schema}'")]
    Commit {
        schema: String,
        #[source]
        source: DatabaseError,
    },
}

impl MigrateError {
    /// Converts the error for a report: a class and a sentence.
    #[must_use]
    pub fn problem(&self) -> Problem {
        match (self, self.database_error()) {
            (Self::Connect(error), _) => error.problem(),
            (Self::Schema(error), _) => error.problem(),
            (Self::Adopt(error), _) => error.problem(),
            (Self::CreateSchema { .. }, Some(source))
                if source.class == ProblemClass::InsufficientPrivilege =>
            {
                no_right_to_create(self)
            }
            (_, Some(source)) => Problem::new(source.class, format!("{self}: {source}")),
            (_, None) => Problem::new(self.class(), self.to_string()),
        }
    }

    /// Error of the statement that failed.
    fn database_error(&self) -> Option<&DatabaseError> {
        match self {
            Self::Prepare { source, .. }
            | Self::Repair { source, .. }
            | Self::CreateSchema { source, .. }
            | Self::ApplyMigrations { source, .. }
            | Self::Claim { source, .. }
            | Self::Grant { source, .. }
            | Self::ResumeSequence { source, .. }
            | Self::Commit { source, .. } => Some(source),
            _ => None,
        }
    }

    fn class(&self) -> ProblemClass {
        match self {
            Self::Connect(error) => error.problem().class,
            Self::Schema(error) => error.problem().class,
            Self::Adopt(error) => error.problem().class,
            Self::Prepare { source, .. }
            | Self::Repair { source, .. }
            | Self::CreateSchema { source, .. }
            | Self::ApplyMigrations { source, .. }
            | Self::Claim { source, .. }
            | Self::Grant { source, .. }
            | Self::ResumeSequence { source, .. }
            | Self::Commit { source, .. } => source.class,
            Self::ServerTooOld { .. } | Self::Product(_) => ProblemClass::DatabaseError,
            Self::LockHeld { .. } => ProblemClass::LockTimeout,
            Self::OwnerAtWork { .. } => ProblemClass::SchemaClaimedByOther,
            Self::NotOurs { .. } | Self::OpenToAll { .. } => ProblemClass::InvalidSettings,
            Self::OtherForm { .. } | Self::SchemaChanged { .. } => ProblemClass::SchemaNotReady,
            Self::RolesMissing { .. } => ProblemClass::RoleMissing,
            Self::RightsMissing { .. } => ProblemClass::InsufficientPrivilege,
        }
    }
}

fn no_right_to_create(error: &MigrateError) -> Problem {
    let next = "the user may not create schemas here: grant it create on the database, or set \
        spec.migration.database to the credentials of an owner";
    Problem::new(
        ProblemClass::InsufficientPrivilege,
        format!("{error}: {next}"),
    )
}

/// Result of a successful migration.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Migrated {
    /// Level of the schema after it.
    level: i64,
    /// Numbers of the migrations that it applied.
    applied: Vec<i64>,
    /// Facts that people should know.
    notes: Vec<String>,
}

/// Migrates the schema as `migration.policy` says. Errors are in the report.
///
/// Running it again changes nothing. Of several migrations of a schema at a time, one runs and the
/// others wait, each at most `lock_wait`.
///
/// # Cancel safety
/// If dropped midway, the server rolls the transaction back, unless it was just being committed.
pub async fn migrate(
    settings: &RelaySettings,
    secrets: &Secrets,
    lock_wait: Duration,
) -> MigrationReport {
    let result = match settings.migration.policy {
        MigrationPolicy::Apply => Box::pin(apply::apply(settings, secrets, lock_wait)).await,
        MigrationPolicy::Verify => Box::pin(verify::verify(settings, secrets)).await,
        MigrationPolicy::Never => return nothing_to_do(),
    };
    match result {
        Ok(migrated) => migrated.into_report(),
        Err(error) => failed(error.problem()),
    }
}

impl Migrated {
    fn into_report(self) -> MigrationReport {
        MigrationReport {
            schema_version: Some(self.level),
            applied: self.applied,
            notes: self.notes,
            problem: None,
        }
    }
}

fn failed(problem: Problem) -> MigrationReport {
    MigrationReport {
        schema_version: None,
        applied: Vec::new(),
        notes: Vec::new(),
        problem: Some(problem),
    }
}

fn nothing_to_do() -> MigrationReport {
    let notes = vec!["spec.migration.policy is Never: nothing was checked or changed".to_owned()];
    MigrationReport {
        schema_version: None,
        applied: Vec::new(),
        notes,
        problem: None,
    }
}

/// Returns a function that turns an error of a statement into one of a migration, for `map_err`.
/// `what` completes "cannot ...".
fn preparing<E: Into<DatabaseError>>(what: &'static str) -> impl FnOnce(E) -> MigrateError {
    move |error| MigrateError::Prepare {
        what,
        source: error.into(),
    }
}

fn name(schema: &SchemaName) -> String {
    schema.as_str().to_owned()
}

/// User that relays log in as.
fn relay_user(settings: &RelaySettings, secrets: &Secrets) -> Result<String, ConnectError> {
    Connect::relay_user(&settings.database, secrets)
}
