//! A service that is played: what of its OutboxRelay matters to a writer, and its database.

use std::{path::PathBuf, str::FromStr};

use anyhow::Context;
use outbox_relay::settings::TopicSettings;
use sqlx::{AssertSqlSafe, PgPool, SqlSafeStr, SqlStr, postgres::PgPoolOptions};

/// As given on the command line.
#[derive(Clone)]
pub(crate) struct ServiceArgument {
    manifest: PathBuf,
    table: String,
    url: String,
}

impl FromStr for ServiceArgument {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let parts: Vec<&str> = text.splitn(3, ',').collect();
        let [manifest, table, url] = parts[..] else {
            return Err("is not MANIFEST,TABLE,URL");
        };
        Ok(Self {
            manifest: manifest.into(),
            table: table.to_owned(),
            url: url.to_owned(),
        })
    }
}

pub(crate) struct Service {
    pub(crate) aggregate_type: String,
    pub(crate) routes: Vec<TopicSettings>,
    pub(crate) pool: PgPool,
    /// Writes the business row: the aggregate's next revision, under a lock on its row until the
    /// transaction ends.
    pub(crate) revise: SqlStr,
    pub(crate) enqueue: SqlStr,
}

impl Service {
    pub(crate) fn open(argument: &ServiceArgument) -> anyhow::Result<Self> {
        let settings = super::topic_settings(&argument.manifest)?;
        let (table, schema) = (&argument.table, settings.database.schema.as_str());
        let pool = PgPoolOptions::new()
            .max_connections(8)
            .connect_lazy(&argument.url)
            .context("bad URL of a database")?;
        Ok(Self {
            aggregate_type: table.trim_end_matches('s').to_owned(),
            routes: settings
                .topics
                .into_iter()
                .filter(|topic| !topic.event_types.is_empty())
                .collect(),
            pool,
            revise: AssertSqlSafe(format!(
                "insert into {table} (id, revision) values ($1, 1) on conflict (id) do update set \
                 revision = {table}.revision + 1 returning revision"
            ))
            .into_sql_str(),
            enqueue: AssertSqlSafe(format!(
                "select {schema}.enqueue(aggregate_type => $1, aggregate_id => $2, event_type => \
                 $3, payload => $4, event_id => $5)"
            ))
            .into_sql_str(),
        })
    }

    pub(crate) fn topics(&self) -> Vec<String> {
        self.routes.iter().map(|topic| topic.name.clone()).collect()
    }
}
