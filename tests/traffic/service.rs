//! A simulated service: its database, and the parts of its OutboxRelay that a writer needs.

use std::{path::PathBuf, str::FromStr};

use anyhow::Context;
use outbox_relay::settings::TopicSettings;
use sqlx::{AssertSqlSafe, PgPool, SqlSafeStr, SqlStr, postgres::PgPoolOptions};

/// A service on the command line: MANIFEST,TABLE,URL.
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

/// A service with its database and its topics.
pub(crate) struct Service {
    pub(crate) aggregate_type: String,
    pub(crate) routes: Vec<TopicSettings>,
    pub(crate) pool: PgPool,
    /// SQL that writes the business row with the next revision of the aggregate. It locks the row
    /// until the transaction ends.
    pub(crate) next_revision: SqlStr,
    pub(crate) outbox: Outbox,
}

/// How a service writes an event.
pub(crate) enum Outbox {
    /// With this call of function `enqueue`.
    Enqueue(SqlStr),
    /// Into its own table `event_outbox`, which is adopted, as the Python library of the essay
    /// platform does it. The text is the `source_service` of its envelopes.
    Adopted(String),
}

impl Service {
    pub(crate) fn open(argument: &ServiceArgument) -> anyhow::Result<Self> {
        let settings = super::topic_settings(&argument.manifest)?;
        let (table, schema) = (&argument.table, settings.database.schema.as_str());
        let is_adopted = !settings.migration.adopt.is_empty();
        let pool = PgPoolOptions::new()
            .max_connections(8)
            .connect_lazy(&argument.url)
            .context("the URL of a database is invalid")?;
        Ok(Self {
            aggregate_type: table.trim_end_matches('s').to_owned(),
            routes: settings
                .topics
                .into_iter()
                .filter(|topic| is_adopted || !topic.event_types.is_empty())
                .collect(),
            pool,
            next_revision: AssertSqlSafe(format!(
                "insert into {table} (id, revision) values ($1, 1) on conflict (id) do update set \
                 revision = {table}.revision + 1 returning revision"
            ))
            .into_sql_str(),
            outbox: if is_adopted {
                Outbox::Adopted(settings.owner.name)
            } else {
                Outbox::Enqueue(enqueue(schema))
            },
        })
    }

    /// Names of the topics that it writes to.
    pub(crate) fn topics(&self) -> Vec<String> {
        self.routes.iter().map(|topic| topic.name.clone()).collect()
    }
}

fn enqueue(schema: &str) -> SqlStr {
    AssertSqlSafe(format!(
        "select {schema}.enqueue(aggregate_type => $1, aggregate_id => $2, event_type => $3, \
         payload => $4, event_id => $5)"
    ))
    .into_sql_str()
}
