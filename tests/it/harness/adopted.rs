//! Databases of services that have an outbox table already, and what an adoption makes of its rows.

use std::collections::BTreeMap;

use outbox_relay::{
    report::MigrationReport,
    settings::{AdoptExpressions, AdoptPreset, AdoptSettings, ExhaustedRows, RelaySettings},
};
use sqlx::{AssertSqlSafe, PgConnection, query_as};
use uuid::Uuid;

use super::postgres::{Database, execute};

/// The two forms of table `event_outbox` that services have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Generation {
    /// Column `topic` is missing: the envelope holds the topic.
    WithoutTopic,
    WithTopic,
}

impl Generation {
    pub(crate) const BOTH: [Self; 2] = [Self::WithoutTopic, Self::WithTopic];

    /// Statements that create the table with this name, and its indexes.
    pub(crate) fn table(self, name: &str) -> String {
        let topic = match self {
            Self::WithoutTopic => "",
            Self::WithTopic => "topic varchar(255) not null,",
        };
        format!(
            "create table {name} (
               id uuid primary key,
               aggregate_id varchar(255) not null,
               aggregate_type varchar(100) not null,
               event_type varchar(255) not null,
               event_data json not null,
               event_key varchar(255),
               {topic}
               created_at timestamptz not null default now(),
               published_at timestamptz,
               retry_count int not null default 0,
               last_error text
             );
             create index on {name} (published_at, created_at) where published_at is null;
             create index on {name} (aggregate_type, aggregate_id);
             create index on {name} (event_type);"
        )
    }
}

/// Entry of `spec.migration.adopt` for a table of the preset EventOutbox.
pub(crate) fn event_outbox(schema: &str, table: &str) -> AdoptSettings {
    AdoptSettings {
        preset: Some(AdoptPreset::EventOutbox),
        published_column: Some("published_at".to_owned()),
        ..by_expressions(schema, table, AdoptExpressions::default())
    }
}

/// Entry of `spec.migration.adopt` with expressions alone and without a column for the time of
/// publication.
pub(crate) fn by_expressions(
    schema: &str,
    table: &str,
    expressions: AdoptExpressions,
) -> AdoptSettings {
    AdoptSettings {
        schema: schema.to_owned(),
        table: table.to_owned(),
        preset: None,
        expressions,
        published_column: None,
        exhausted: ExhaustedRows::default(),
        ordered: false,
        retain_ms: None,
    }
}

/// Expressions by their names in a manifest, such as `eventKey`.
pub(crate) fn expressions(named: &[(&str, &str)]) -> AdoptExpressions {
    let named: serde_json::Map<_, _> = named
        .iter()
        .map(|(name, sql)| ((*name).to_owned(), (*sql).into()))
        .collect();
    serde_json::from_value(named.into()).expect("names of expressions")
}

/// Settings of a database with these entries of `spec.migration.adopt`.
pub(crate) fn adopting<const N: usize>(
    database: &Database,
    entries: [AdoptSettings; N],
) -> RelaySettings {
    let mut settings = database.settings();
    settings.migration.adopt = entries.into();
    settings
}

/// Creates tables as the owner of the database, and lets the service write them: the service logs
/// in as [`Database::producer`].
pub(crate) async fn create_tables(database: &Database, sql: &str) {
    let mut owner = database.connect_as(&database.owner).await;
    execute(&mut owner, sql).await;
    let schemas = "do $$ declare s text; begin
        for s in
          select nspname from pg_namespace
          where nspowner = current_user::regrole or nspname = 'public'
        loop
          execute format('grant usage on schema %1$I to PRODUCER', s);
          execute format('grant all on all tables in schema %1$I to PRODUCER', s);
        end loop; end $$";
    execute(&mut owner, &schemas.replace("PRODUCER", &database.producer)).await;
}

/// Creates `public.event_outbox` of a generation and adopts it.
pub(crate) async fn with_event_outbox(database: &Database, generation: Generation) {
    create_tables(database, &generation.table("event_outbox")).await;
    adopt(database, [event_outbox("public", "event_outbox")]).await;
}

/// Runs a migration with these entries of `spec.migration.adopt`, which must succeed.
pub(crate) async fn adopt<const N: usize>(
    database: &Database,
    entries: [AdoptSettings; N],
) -> MigrationReport {
    let report = database.migrate(&adopting(database, entries)).await;
    assert_eq!(report.problem, None);
    report
}

/// Values of a row of `event_outbox`.
#[derive(Clone, Debug)]
pub(crate) struct OutboxRow<'a> {
    pub(crate) id: Uuid,
    pub(crate) aggregate_id: &'a str,
    pub(crate) aggregate_type: &'a str,
    pub(crate) event_type: &'a str,
    pub(crate) event_data: &'a str,
    pub(crate) event_key: Option<&'a str>,
    /// The column; `None` in a table without it.
    pub(crate) topic: Option<&'a str>,
}

impl OutboxRow<'_> {
    /// A row with this number as id, of topic `files`, which is in its envelope too.
    pub(crate) fn numbered(generation: Generation, number: u128) -> Self {
        OutboxRow {
            id: Uuid::from_u128(number),
            aggregate_id: "f1",
            aggregate_type: "file",
            event_type: "Uploaded",
            event_data: r#"{"data": {"n": 1e2}, "topic": "files"}"#,
            event_key: None,
            topic: (generation == Generation::WithTopic).then_some("files"),
        }
    }

    /// Names of the columns for `insert into`, without the brackets.
    pub(crate) fn columns(&self) -> &'static str {
        match self.topic {
            Some(_) => "id, aggregate_id, aggregate_type, event_type, event_data, event_key, topic",
            None => "id, aggregate_id, aggregate_type, event_type, event_data, event_key",
        }
    }

    /// The row for `values`, without the brackets.
    pub(crate) fn values(&self) -> String {
        let mut values = vec![
            literal(&self.id.to_string()),
            literal(self.aggregate_id),
            literal(self.aggregate_type),
            literal(self.event_type),
            literal(self.event_data),
            self.event_key.map_or("null".to_owned(), literal),
        ];
        values.extend(self.topic.map(literal));
        values.join(", ")
    }

    /// A statement that inserts the row into a table.
    pub(crate) fn insert_into(&self, table: &str) -> String {
        format!(
            "insert into {table} ({}) values ({})",
            self.columns(),
            self.values()
        )
    }
}

/// A text as a SQL literal.
pub(crate) fn literal(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

/// A row of `outbox.event`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Event {
    pub(crate) event_id: Uuid,
    pub(crate) aggregate_type: String,
    pub(crate) aggregate_id: String,
    pub(crate) event_type: String,
    pub(crate) topic: Option<String>,
    pub(crate) event_key: Option<String>,
    pub(crate) payload: Option<String>,
    pub(crate) headers: BTreeMap<String, serde_json::Value>,
    /// Primary key of the row that it came from, as JSON.
    pub(crate) source_key: Option<String>,
}

impl Event {
    /// Why the row could not be converted; `None` for a proper event.
    pub(crate) fn fault(&self) -> Option<&str> {
        self.headers.get("outbox_adoption_fault")?.as_str()
    }
}

/// The columns of [`Event`], of `event` and of `dead_letter`.
const COLUMNS: &str = "event_id, aggregate_type, aggregate_id, event_type, topic, event_key, \
    convert_from(payload, 'UTF8'), headers::text, source_key::text";

/// All rows of `outbox.event`, in the order of their ids.
pub(crate) async fn events(connection: &mut PgConnection) -> Vec<Event> {
    read(connection, "outbox.event", "id").await
}

/// All rows of `outbox.dead_letter`, the oldest first.
pub(crate) async fn dead_letters(connection: &mut PgConnection) -> Vec<Event> {
    read(connection, "outbox.dead_letter", "failed_at").await
}

/// The rows of a table with the columns of `event`.
pub(crate) async fn read(connection: &mut PgConnection, table: &str, order: &str) -> Vec<Event> {
    type Row = (
        Uuid,
        String,
        String,
        String,
        Option<String>,
        Option<String>,
        Option<String>,
        String,
        Option<String>,
    );
    let sql = format!("select {COLUMNS} from {table} order by {order}");
    let rows: Vec<Row> = query_as(AssertSqlSafe(sql))
        .fetch_all(connection)
        .await
        .unwrap_or_else(|error| panic!("{table}: {error}"));
    rows.into_iter()
        .map(|row| Event {
            event_id: row.0,
            aggregate_type: row.1,
            aggregate_id: row.2,
            event_type: row.3,
            topic: row.4,
            event_key: row.5,
            payload: row.6,
            headers: serde_json::from_str(&row.7).expect("an object"),
            source_key: row.8,
        })
        .collect()
}
