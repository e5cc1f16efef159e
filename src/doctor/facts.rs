//! What the checks judge. A fact that could not be read is the problem that prevented it. Pure.

use crate::{
    api::TlsMode,
    kafka::{TopicDescription, TopicLimits},
    outbox::{
        SchemaDrift,
        admin::Overview,
        doctor::{MigrationRights, ServerFacts},
    },
    report::Problem,
};

/// A fact, or why it is unknown.
pub type Fact<T> = Result<T, Problem>;

/// Everything that was read.
#[derive(Clone)]
pub struct Examined {
    pub settings: Fact<SettingsFacts>,
    /// `None` without settings.
    pub database: Option<Fact<DatabaseFacts>>,
    /// `None` without settings.
    pub migration: Option<Fact<MigrationRights>>,
    /// `None` without settings.
    pub kafka: Option<Fact<Vec<TopicFacts>>>,
}

/// What the checks need of the settings.
#[derive(Clone, Debug)]
pub struct SettingsFacts {
    pub schema: String,
    pub topics: usize,
    pub database_tls: TlsMode,
    pub kafka_tls: TlsMode,
    pub max_connections: u32,
    /// Whether the migration has credentials of its own.
    pub has_own_migration_user: bool,
}

/// What the relay's user found in the database.
#[derive(Clone)]
pub struct DatabaseFacts {
    /// Host, database and user, for people.
    pub location: String,
    /// Time for TCP, TLS and login.
    pub connect_ms: u64,
    /// How far the clock here is ahead of the database's, in seconds; negative: behind.
    pub here_ahead_seconds: f64,
    /// Why this product cannot hold an outbox; `None` if it can.
    pub product: Option<String>,
    pub server: Fact<ServerFacts>,
    /// Level of the schema.
    pub level: Fact<i64>,
    pub drift: Fact<SchemaDrift>,
    /// Rights that the relay's user lacks, as GRANT has them.
    pub lacking_rights: Fact<Vec<String>>,
    pub overview: Fact<Overview>,
}

/// A declared topic, as the brokers describe it.
#[derive(Clone, Debug)]
pub struct TopicFacts {
    pub name: String,
    pub description: TopicDescription,
    /// `None` if its configuration cannot be read.
    pub limits: Option<TopicLimits>,
}
