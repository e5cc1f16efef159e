//! Settings -> the schema as this version needs it, owned, granted, checked; and a report for the
//! operator. IO, in one transaction: a migration that fails or is killed leaves nothing behind.

mod apply;
mod grants;
mod lock;
mod outcome;
mod resume;
mod script;
pub(super) mod shape;
mod verify;

use std::time::Duration;

use super::{
    connect::{Connect, ConnectError},
    error::DatabaseFault,
    schema::SchemaError,
};
use crate::{
    report::{MigrationReport, Problem, ProblemClass},
    secrets::Secrets,
    settings::{MigrationPolicy, Owner, RelaySettings, SchemaName},
};

pub use outcome::{in_words, termination_message, until_done};
pub use resume::{resume_script, resume_sequence};
pub use script::script;

/// How long to wait for another migration of the same schema.
pub const LOCK_WAIT: Duration = Duration::from_secs(30);

/// Why a migration failed. Nothing was changed then.
#[derive(Debug, thiserror::Error)]
pub enum MigrateError {
    #[error(transparent)]
    Connect(#[from] ConnectError),
    #[error(transparent)]
    Schema(#[from] SchemaError),
    #[error("cannot {what}")]
    Prepare {
        what: &'static str,
        #[source]
        source: DatabaseFault,
    },
    #[error("the server's version is {major}: PostgreSQL 15 or newer is needed")]
    ServerTooOld { major: i32 },
    #[error(
        "another migration of schema '{schema}' has been running for {waited:?}: it is tried again"
    )]
    LockHeld { schema: String, waited: Duration },
    #[error("cannot create schema '{schema}'")]
    CreateSchema {
        schema: String,
        #[source]
        source: DatabaseFault,
    },
    #[error(
        "schema '{schema}' holds tables that are not the outbox's: set spec.database.schema to a \
         name of its own"
    )]
    NotOurs { schema: String },
    #[error(
        "everybody may create objects in schema '{schema}', and so stand in for ours: revoke \
         create on schema {schema} from public"
    )]
    OpenToAll { schema: String },
    #[error("cannot apply the migrations to schema '{schema}'")]
    ApplyMigrations {
        schema: String,
        #[source]
        source: DatabaseFault,
    },
    #[error(
        "migration {version} of schema '{schema}' was applied in another form: use the version \
         that applied it, or an empty schema"
    )]
    OtherForm { schema: String, version: i64 },
    #[error("table {schema}.event was changed by hand: {difference}; undo that")]
    ShapeChanged { schema: String, difference: String },
    #[error("cannot take schema '{schema}' into ownership")]
    Claim {
        schema: String,
        #[source]
        source: DatabaseFault,
    },
    #[error(
        "schema '{schema}' cannot be taken from OutboxRelay '{owner}' while relays of it are at \
         work ({relays}): suspend or delete it first"
    )]
    OwnerAtWork {
        schema: String,
        owner: Owner,
        relays: i64,
    },
    #[error("there is no role {roles}: create it, or correct spec.migration.grants")]
    RolesMissing { roles: String },
    #[error("cannot give role '{role}' its rights")]
    Grant {
        role: String,
        #[source]
        source: DatabaseFault,
    },
    #[error(
        "roles lack rights on schema '{schema}': {missing}; set spec.migration.policy to Apply, \
         or grant them"
    )]
    RightsMissing { schema: String, missing: String },
    #[error("cannot move the sequence of ids of schema '{schema}' on")]
    ResumeSequence {
        schema: String,
        #[source]
        source: DatabaseFault,
    },
    #[error("cannot commit the migration of schema '{schema}'")]
    Commit {
        schema: String,
        #[source]
        source: DatabaseFault,
    },
}

impl MigrateError {
    /// As it goes into a report.
    #[must_use]
    pub fn problem(&self) -> Problem {
        use ProblemClass::{
            InsufficientPrivilege, InvalidSettings, LockTimeout, RoleMissing, SchemaNotReady,
        };
        let class = match self {
            Self::Connect(error) => return error.problem(),
            Self::Schema(error) => return error.problem(),
            Self::CreateSchema { source, .. } if source.class == InsufficientPrivilege => {
                return no_right_to_create(self);
            }
            Self::Prepare { source, .. }
            | Self::CreateSchema { source, .. }
            | Self::ApplyMigrations { source, .. }
            | Self::Claim { source, .. }
            | Self::Grant { source, .. }
            | Self::ResumeSequence { source, .. }
            | Self::Commit { source, .. } => {
                return Problem::new(source.class, format!("{self}: {source}"));
            }
            Self::ServerTooOld { .. } => ProblemClass::DatabaseError,
            Self::LockHeld { .. } => LockTimeout,
            Self::OwnerAtWork { .. } => ProblemClass::SchemaClaimedByOther,
            Self::NotOurs { .. } | Self::OpenToAll { .. } => InvalidSettings,
            Self::OtherForm { .. } | Self::ShapeChanged { .. } => SchemaNotReady,
            Self::RolesMissing { .. } => RoleMissing,
            Self::RightsMissing { .. } => InsufficientPrivilege,
        };
        Problem::new(class, self.to_string())
    }
}

fn no_right_to_create(error: &MigrateError) -> Problem {
    let next = "the user may not create schemas here: grant it create on the database, or name an \
        owner's credentials in spec.migration.database";
    Problem::new(
        ProblemClass::InsufficientPrivilege,
        format!("{error}: {next}"),
    )
}

/// What a migration did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Done {
    level: i64,
    applied: Vec<i64>,
    notes: Vec<String>,
}

/// Does what `migration.policy` says. Running it again changes nothing; of several at once one
/// works and the others wait, at most `lock_wait`. Dropped mid-way, the server undoes the
/// transaction.
pub async fn migrate(
    settings: &RelaySettings,
    secrets: &Secrets,
    lock_wait: Duration,
) -> MigrationReport {
    let done = match settings.migration.policy {
        MigrationPolicy::Apply => Box::pin(apply::apply(settings, secrets, lock_wait)).await,
        MigrationPolicy::Verify => Box::pin(verify::verify(settings, secrets)).await,
        MigrationPolicy::Never => return nothing_to_do(),
    };
    match done {
        Ok(Done {
            level,
            applied,
            notes,
        }) => MigrationReport {
            schema_version: Some(level),
            applied,
            notes,
            problem: None,
        },
        Err(error) => {
            let problem = Some(error.problem());
            MigrationReport {
                schema_version: None,
                applied: Vec::new(),
                notes: Vec::new(),
                problem,
            }
        }
    }
}

fn nothing_to_do() -> MigrationReport {
    let notes = vec!["spec.migration.policy is Never: nothing was looked at or changed".to_owned()];
    MigrationReport {
        schema_version: None,
        applied: Vec::new(),
        notes,
        problem: None,
    }
}

/// Makes a fault of a step that every migration goes through.
fn preparing<E: Into<DatabaseFault>>(what: &'static str) -> impl FnOnce(E) -> MigrateError {
    move |error| MigrateError::Prepare {
        what,
        source: error.into(),
    }
}

fn name(schema: &SchemaName) -> String {
    schema.as_str().to_owned()
}

/// The user that the relays log in as.
fn relay_user(settings: &RelaySettings, secrets: &Secrets) -> Result<String, ConnectError> {
    Connect::relay_user(&settings.database, secrets)
}
