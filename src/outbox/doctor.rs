//! Reads what `outbox-relay doctor` judges of a server: it changes nothing. IO.

use std::time::Instant;

use sqlx::{Row, SqlSafeStr, query};

use crate::{
    outbox::{
        connect::{Connect, ConnectError},
        error::{DatabaseError, classify},
        schema::check_schema,
        schema_drift::{SchemaDrift, judge_drift},
        schema_facts::{expected_facts, fetch_facts},
        server_product::check_product,
        unit_of_work::Connections,
    },
    report::Problem,
    settings::{Owner, SchemaName},
};

/// Functions that the outbox asks and can do without, as calls.
const FUNCTIONS: [(&str, &str); 5] = [
    (
        "pg_control_system()",
        "select system_identifier::text from pg_control_system()",
    ),
    (
        "pg_current_wal_lsn()",
        "select case when not pg_is_in_recovery() then pg_current_wal_lsn()::text end",
    ),
    (
        "pg_relation_filepath()",
        "select pg_relation_filepath('pg_catalog.pg_class'::regclass)",
    ),
    (
        "pg_stat_activity",
        "select count(*)::text from pg_stat_activity",
    ),
    (
        "pg_stat_get_dead_tuples()",
        "select pg_stat_get_dead_tuples('pg_catalog.pg_class'::regclass)::text",
    ),
];
/// Age in seconds of the oldest transaction that this role sees, its own left out.
const OLDEST_TRANSACTION: &str = "select extract(epoch from clock_timestamp() - \
    min(xact_start))::float8 from pg_stat_activity where pid <> pg_backend_pid()";

/// What a server is like for a session of the relay.
#[derive(Clone, Debug, PartialEq)]
pub struct ServerFacts {
    pub version_major: i32,
    /// Name of the database's encoding, as `UTF8`.
    pub encoding: String,
    pub in_recovery: bool,
    /// Transactions are read-only unless they say otherwise.
    pub read_only: bool,
    pub role: String,
    /// CONNECTION LIMIT; -1 is none.
    pub role_connection_limit: i64,
    /// CONNECTION LIMIT; -1 is none.
    pub database_connection_limit: i64,
    pub connections_max: i64,
    pub connections_used: i64,
    pub autovacuum: bool,
    /// Whether autovacuum is on for table `event`; `None` if there is no table.
    pub table_autovacuum: Option<bool>,
    /// Timeouts of the session in ms; 0 is none.
    pub timeouts: Vec<(String, i64)>,
    /// Functions that the server refuses.
    pub refused_functions: Vec<RefusedFunction>,
    /// Age of the oldest transaction in seconds; `None` if none is visible.
    pub oldest_transaction_seconds: Option<f64>,
}

/// A function that the server refuses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RefusedFunction {
    pub function: &'static str,
    pub sqlstate: String,
}

/// What the migration's user may do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MigrationRights {
    pub role: String,
    /// Owner of the schema; `None` if there is no schema.
    pub schema_owner: Option<String>,
    /// Whether the user has the rights of that owner.
    pub is_owner: bool,
    /// Whether the user may create schemas in the database.
    pub may_create: bool,
    /// Roles of the grants that do not exist.
    pub missing_roles: Vec<String>,
}

/// A connection that only reads.
pub struct DoctorClient {
    connections: Connections,
    schema: SchemaName,
    location: String,
    connect_ms: u64,
}

impl DoctorClient {
    /// Connects, and measures how long that takes.
    ///
    /// # Errors
    /// Returns an error when the server refuses the connection or cannot be reached.
    ///
    /// # Cancel safety
    /// Cancel safe: the server sees a connection that closes.
    pub async fn open(connect: &Connect, schema: &SchemaName) -> Result<Self, ConnectError> {
        let began = Instant::now();
        drop(connect.open().await?);
        Ok(Self {
            connections: Connections::new(connect, 1, &[]),
            schema: schema.clone(),
            location: connect.to_string(),
            connect_ms: u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX),
        })
    }

    /// Name and address of the database, for people.
    #[must_use]
    pub fn location(&self) -> &str {
        &self.location
    }

    /// Time for TCP, TLS and login, in ms.
    #[must_use]
    pub fn connect_ms(&self) -> u64 {
        self.connect_ms
    }

    /// Why this product cannot hold an outbox; `None` if it can.
    ///
    /// # Cancel safety
    /// Cancel safe: it only reads.
    pub async fn unsupported_product(&self) -> Option<String> {
        let checked = check_product(&self.connections).await;
        checked.err().map(|product| product.to_string())
    }

    /// Time of the database's clock, in microseconds since 1970.
    ///
    /// # Errors
    /// Returns an error when the database fails.
    ///
    /// # Cancel safety
    /// Cancel safe: it only reads.
    pub async fn clock_us(&self) -> Result<i64, Problem> {
        let clock = query("select (extract(epoch from clock_timestamp()) * 1000000)::bigint");
        let row = self.connections.row(clock).await.map_err(to_problem)?;
        row.try_get(0).map_err(to_problem)
    }

    /// Reads what the server is like.
    ///
    /// # Errors
    /// Returns an error when the database fails.
    ///
    /// # Cancel safety
    /// Cancel safe: it only reads.
    pub async fn server(&self) -> Result<ServerFacts, Problem> {
        let timeouts = self.timeouts().await.map_err(to_problem)?;
        let read = query(include_str!("sql/doctor_server.sql")).bind(self.schema.as_str());
        let row = self.connections.row(read).await.map_err(to_problem)?;
        let refused_functions = self.refused_functions().await;
        let oldest_transaction_seconds = self.optional(OLDEST_TRANSACTION).await;
        let in_recovery = self.optional("select pg_is_in_recovery()").await;
        let facts = || -> Result<ServerFacts, sqlx::Error> {
            Ok(ServerFacts {
                version_major: row.try_get("version_major")?,
                encoding: row.try_get("encoding")?,
                in_recovery: in_recovery.unwrap_or(false),
                read_only: row.try_get("read_only")?,
                role: row.try_get("role")?,
                role_connection_limit: row.try_get("role_connection_limit")?,
                database_connection_limit: row.try_get("database_connection_limit")?,
                connections_max: row.try_get("connections_max")?,
                connections_used: row.try_get("connections_used")?,
                autovacuum: row.try_get("autovacuum")?,
                table_autovacuum: row.try_get("table_autovacuum")?,
                timeouts,
                refused_functions,
                oldest_transaction_seconds,
            })
        };
        facts().map_err(to_problem)
    }

    async fn timeouts(&self) -> Result<Vec<(String, i64)>, sqlx::Error> {
        let read = query(include_str!("sql/doctor_timeouts.sql"));
        let rows = self.connections.rows(read).await?;
        rows.iter()
            .map(|row| Ok((row.try_get(0)?, row.try_get(1)?)))
            .collect()
    }

    /// Calls each function that the outbox asks, and returns those that are refused.
    ///
    /// # Cancel safety
    /// Cancel safe: it only reads.
    pub async fn refused_functions(&self) -> Vec<RefusedFunction> {
        let mut refused = Vec::new();
        for (function, call) in FUNCTIONS {
            let error = self
                .connections
                .rows(query(call.into_sql_str()))
                .await
                .err();
            let code = error.as_ref().and_then(sqlx::Error::as_database_error);
            if let Some(sqlstate) = code.and_then(|error| error.code()) {
                let sqlstate = sqlstate.into_owned();
                refused.push(RefusedFunction { function, sqlstate });
            }
        }
        refused
    }

    /// Value of a question that the server may refuse.
    async fn optional<T>(&self, sql: &'static str) -> Option<T>
    where
        T: for<'r> sqlx::Decode<'r, sqlx::Postgres> + sqlx::Type<sqlx::Postgres>,
    {
        let row = self.connections.row(query(sql)).await.ok()?;
        row.try_get::<Option<T>, _>(0).ok().flatten()
    }

    /// Level of the schema, if relays of this owner may use it.
    ///
    /// # Errors
    /// The problem that a relay would report.
    ///
    /// # Cancel safety
    /// Cancel safe: it only reads.
    pub async fn level(&self, owner: &Owner) -> Result<i64, Problem> {
        let level = check_schema(&self.connections, &self.schema, owner).await;
        level.map_err(|error| error.problem())
    }

    /// Compares the schema with what the migrations made.
    ///
    /// # Errors
    /// Returns an error when the database fails.
    ///
    /// # Cancel safety
    /// Cancel safe: it only reads.
    pub async fn drift(&self) -> Result<SchemaDrift, Problem> {
        let found = fetch_facts(&self.connections, &self.schema).await;
        let found = found.map_err(|error| error.problem())?;
        Ok(judge_drift(&expected_facts(), &found, &self.schema))
    }

    /// Rights of a relay that this user lacks, as GRANT has them.
    ///
    /// # Errors
    /// Returns an error when the database fails.
    ///
    /// # Cancel safety
    /// Cancel safe: it only reads.
    pub async fn lacking_rights(&self) -> Result<Vec<String>, Problem> {
        let read = query(include_str!("sql/lacking_rights.sql")).bind(self.schema.as_str());
        let rows = self.connections.rows(read).await.map_err(to_problem)?;
        let lacking: Result<_, _> = rows.iter().map(|row| row.try_get(0)).collect();
        lacking.map_err(to_problem)
    }

    /// What this user may do as the migration's user. `roles` are those of the grants.
    ///
    /// # Errors
    /// Returns an error when the database fails.
    ///
    /// # Cancel safety
    /// Cancel safe: it only reads.
    pub async fn migration_rights(&self, roles: &[String]) -> Result<MigrationRights, Problem> {
        let read = query(include_str!("sql/doctor_migration.sql"))
            .bind(self.schema.as_str())
            .bind(roles);
        let row = self.connections.row(read).await.map_err(to_problem)?;
        let rights = || -> Result<MigrationRights, sqlx::Error> {
            Ok(MigrationRights {
                role: row.try_get("role")?,
                schema_owner: row.try_get("schema_owner")?,
                is_owner: row.try_get("is_owner")?,
                may_create: row.try_get("may_create")?,
                missing_roles: row.try_get("missing_roles")?,
            })
        };
        rights().map_err(to_problem)
    }
}

fn to_problem(error: sqlx::Error) -> Problem {
    let error: DatabaseError = classify(&error);
    error.problem()
}
