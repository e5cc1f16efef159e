//! What the catalog knows of a table that is to be adopted, and whether it can be. Reading is IO,
//! judging is pure.

use sqlx::{PgConnection, Row, postgres::PgRow, query};

use crate::{
    outbox::{
        adopt::{AdoptError, TRIGGER_MARK, conversion::Conversions, quoted_table, refused},
        error::DatabaseError,
        schema::quoted,
    },
    settings::{AdoptSettings, SchemaName},
};

/// What the catalog knows of a table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Table {
    /// Quoted name with its schema.
    pub(super) quoted: String,
    kind: String,
    owner: String,
    /// Role that the migration runs as.
    role: String,
    may_own: bool,
    may_read: bool,
    has_row_security: bool,
    is_partition: bool,
    /// Whether other tables inherit from it (`INHERITS`).
    has_children: bool,
    /// Names of the columns with their types. Virtual generated columns are left out: they are
    /// null in triggers.
    pub(super) columns: Vec<(String, String)>,
    /// Columns that have a value if a row comes without one.
    columns_with_default: Vec<String>,
    /// Columns of the primary key, in its order.
    pub(super) key_columns: Vec<String>,
    /// Triggers that would run after the one that marks a row.
    later_triggers: Vec<String>,
    /// Schema of the outbox that has adopted the table.
    adopted_by: Option<String>,
    /// Number of our triggers, enabled ones only.
    our_triggers: i64,
    /// Unique indexes with a condition. One over waiting rows guards nothing after the adoption.
    pub(super) partial_unique_indexes: Vec<String>,
}

impl Table {
    /// Reads a table; `None` if there is none of this name.
    ///
    /// # Errors
    /// Returns an error when the database fails.
    ///
    /// # Cancel safety
    /// It only reads, but drop the connection too when the future is dropped midway.
    pub(super) async fn read(
        connection: &mut PgConnection,
        schema: &str,
        table: &str,
    ) -> Result<Option<Self>, DatabaseError> {
        let row = query(include_str!("../sql/adopt/facts.sql"))
            .bind(schema)
            .bind(table)
            .bind(TRIGGER_MARK)
            .fetch_optional(connection)
            .await?;
        let name = quoted_table(schema, table);
        Ok(row.map(|row| Self::from_row(name, &row)).transpose()?)
    }

    fn from_row(quoted: String, row: &PgRow) -> Result<Self, sqlx::Error> {
        let columns: Vec<String> = row.try_get("columns")?;
        let types: Vec<String> = row.try_get("types")?;
        Ok(Self {
            quoted,
            kind: row.try_get("kind")?,
            owner: row.try_get("owner")?,
            role: row.try_get("role")?,
            may_own: row.try_get("may_own")?,
            may_read: row.try_get("may_read")?,
            has_row_security: row.try_get("has_row_security")?,
            is_partition: row.try_get("is_partition")?,
            has_children: row.try_get("has_children")?,
            columns: columns.into_iter().zip(types).collect(),
            columns_with_default: row.try_get("columns_with_default")?,
            key_columns: row.try_get("key_columns")?,
            later_triggers: row.try_get("later_triggers")?,
            adopted_by: row.try_get("adopted_by")?,
            our_triggers: row.try_get("our_triggers")?,
            partial_unique_indexes: row.try_get("partial_unique_indexes")?,
        })
    }

    /// Type of a column, as `format_type` writes it.
    pub(super) fn type_of(&self, column: &str) -> Option<&str> {
        let found = self.columns.iter().find(|(name, _)| name == column);
        found.map(|(_, kind)| kind.as_str())
    }

    /// A row `r` of the table for `from`, with the columns that a trigger sees.
    pub(super) fn as_row(&self) -> String {
        let columns: Vec<String> = self.names().iter().map(|name| quoted(name)).collect();
        format!("(select {} from {}) as r", columns.join(", "), self.quoted)
    }

    /// Whether the triggers of an adoption with these settings are there and enabled.
    pub(super) fn has_triggers_of(&self, settings: &AdoptSettings) -> bool {
        let wanted = if settings.published_column.is_some() {
            2
        } else {
            1
        };
        self.our_triggers == wanted
    }

    /// Names of the columns.
    pub(super) fn names(&self) -> Vec<String> {
        self.columns.iter().map(|(name, _)| name.clone()).collect()
    }

    /// Checks that the table can be adopted into `schema`.
    ///
    /// # Errors
    /// Returns [`AdoptError::Refused`] with the first obstacle and the next step.
    pub(super) fn check(
        &self,
        schema: &SchemaName,
        settings: &AdoptSettings,
    ) -> Result<(), AdoptError> {
        let obstacle = self
            .obstacle_of_kind()
            .or_else(|| self.obstacle_of_reading())
            .or_else(|| self.obstacle_of_columns(settings))
            .or_else(|| self.obstacle_of_triggers(schema));
        obstacle.map_or(Ok(()), |obstacle| Err(refused(settings, obstacle)))
    }

    /// Checks that the migration may put triggers on the table.
    ///
    /// # Errors
    /// Returns [`AdoptError::Refused`] with the obstacle and the next step.
    pub(super) fn check_rights(&self, settings: &AdoptSettings) -> Result<(), AdoptError> {
        let obstacle = self.obstacle_of_rights();
        obstacle.map_or(Ok(()), |obstacle| Err(refused(settings, obstacle)))
    }

    fn obstacle_of_kind(&self) -> Option<String> {
        let kind = match self.kind.as_str() {
            "r" | "p" if self.is_partition => "a partition: adopt the partitioned table",
            "r" if self.has_children => {
                "the parent of tables by INHERITS, whose rows it would miss: adopt each of them"
            }
            "r" | "p" => return self.obstacle_of_key(),
            "v" | "m" => "a view: adopt the table below it",
            "f" => "a foreign table: adopt it where it is stored",
            _ => "no table: correct spec.migration.adopt",
        };
        Some(format!("it is {kind}"))
    }

    fn obstacle_of_key(&self) -> Option<String> {
        let missing = self.key_columns.is_empty();
        missing.then(|| "it has no primary key: add one".to_owned())
    }

    /// Expressions can be checked only by a role that may read the table.
    fn obstacle_of_reading(&self) -> Option<String> {
        match self.may_read {
            true => None,
            false => self.obstacle_of_rights(),
        }
    }

    fn obstacle_of_rights(&self) -> Option<String> {
        if !self.may_own {
            let (owner, role) = (quoted(&self.owner), quoted(&self.role));
            return Some(format!(
                "its owner is {owner}, and the migration runs as {role}: grant {owner} to {role}"
            ));
        }
        self.has_row_security.then(|| {
            "it has row-level security, which could hide rows: disable it for this table".to_owned()
        })
    }

    fn obstacle_of_columns(&self, settings: &AdoptSettings) -> Option<String> {
        let needs = Conversions::new(settings, &self.names()).needs;
        let published = settings.published_column.as_deref();
        let missing: Vec<&str> = needs
            .iter()
            .copied()
            .chain(published)
            .filter(|name| self.type_of(name).is_none())
            .collect();
        if !missing.is_empty() {
            return Some(format!(
                "it has no column {}: correct preset, publishedColumn or expressions",
                missing.join(", ")
            ));
        }
        let published = published?;
        if self.columns_with_default.iter().any(|it| it == published) {
            return Some(format!(
                "column {published} has a default, so that no row waits: drop the default, or \
                 correct publishedColumn"
            ));
        }
        let found = self.type_of(published)?;
        let allowed = [
            "timestamp with time zone",
            "timestamp without time zone",
            "timestamp(6) with time zone",
            "timestamp(6) without time zone",
        ];
        (!allowed.contains(&found)).then(|| {
            format!("column {published} has type {found}: it must be timestamptz or timestamp")
        })
    }

    fn obstacle_of_triggers(&self, schema: &SchemaName) -> Option<String> {
        if let Some(other) = self.adopted_by.as_deref()
            && other != schema.as_str()
        {
            return Some(format!(
                "the outbox in schema {other} has adopted it: remove it from migration.adopt of \
                 that outbox first"
            ));
        }
        let later = self.later_triggers.first()?;
        Some(format!(
            "its trigger {later} would run after {TRIGGER_MARK}: give it a name that sorts before"
        ))
    }
}
