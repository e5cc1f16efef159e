//! Checks the expressions of an adopted table before anything changes: each must be one expression
//! over the columns of the table. The server prepares them, and runs none. IO.

use sqlx::{AssertSqlSafe, Column, Executor, PgConnection, SqlSafeStr, Statement, TypeInfo};

use crate::{
    outbox::adopt::{
        AdoptError,
        conversion::{Conversion, EventColumn},
        failed, refused,
        statements::PayloadTypes,
        table::Table,
    },
    settings::AdoptSettings,
};

/// Ends the text of our functions, so it must not be in an expression.
const QUOTE: &str = "$adopt$";

/// Checks all expressions of a conversion. Returns the type of its payload.
///
/// # Errors
/// Returns [`AdoptError::Refused`] for an expression that the server does not accept, or that is
/// not one expression.
///
/// # Cancel safety
/// If dropped midway, drop the transaction too.
async fn check(
    connection: &mut PgConnection,
    settings: &AdoptSettings,
    table: &Table,
    conversion: &Conversion,
) -> Result<String, AdoptError> {
    let mut payload = "bytea".to_owned();
    for (column, expression) in &conversion.expressions {
        let checked = Checked {
            column: *column,
            expression,
            from: format!("{} {}", table.as_row(), conversion.lateral),
        };
        let kind = checked.check(connection, settings).await?;
        if *column == EventColumn::Payload {
            payload = kind;
        }
    }
    Ok(payload)
}

/// Checks the expressions of both conversions. Returns the types of their payloads.
///
/// # Errors
/// Returns [`AdoptError::Refused`] for an expression that the server does not accept, or that is
/// not one expression.
///
/// # Cancel safety
/// If dropped midway, drop the transaction too.
pub(super) async fn check_all(
    connection: &mut PgConnection,
    settings: &AdoptSettings,
    table: &Table,
    main: &Conversion,
    fallback: Option<&Conversion>,
) -> Result<PayloadTypes, AdoptError> {
    let main = check(connection, settings, table, main).await?;
    let fallback = match fallback {
        Some(conversion) => check(connection, settings, table, conversion).await?,
        None => String::new(),
    };
    Ok(PayloadTypes { main, fallback })
}

/// An expression to check.
struct Checked<'a> {
    column: EventColumn,
    expression: &'a str,
    /// What stands after `from`.
    from: String,
}

impl Checked<'_> {
    async fn check(
        &self,
        connection: &mut PgConnection,
        settings: &AdoptSettings,
    ) -> Result<String, AdoptError> {
        if self.expression.contains(QUOTE) {
            return Err(self.refuse(settings, &format!("it contains {QUOTE}")));
        }
        // A text that is no single expression can be valid in one of the two, never in both. What
        // combines several rows is not valid as a condition.
        let bracketed = format!("select (\n{}\n) from {}", self.expression, self.from);
        let conditional = format!(
            "select 1 from {} where case when true then\n{}\nend is null",
            self.from, self.expression
        );
        self.prepare(connection, settings, conditional).await?;
        let kind = self.prepare(connection, settings, bracketed).await?;
        let cast = format!(
            "select (\n{}\n)::{} from {}",
            self.expression,
            self.cast(),
            self.from
        );
        self.prepare(connection, settings, cast).await?;
        Ok(kind)
    }

    /// Type that the value must be convertible to. A payload of another type than bytea is
    /// published as text.
    fn cast(&self) -> &'static str {
        match self.column {
            EventColumn::Payload => "text",
            column => column.sql_type(),
        }
    }

    /// Lets the server prepare a statement. Returns the type of its only column.
    async fn prepare(
        &self,
        connection: &mut PgConnection,
        settings: &AdoptSettings,
        sql: String,
    ) -> Result<String, AdoptError> {
        // Not `describe`: it also lets the server plan the statement, which needs a right to read.
        let prepared = connection.prepare(AssertSqlSafe(sql).into_sql_str()).await;
        let prepared = prepared.map_err(|error| match reason_of_server(&error) {
            Some(reason) => self.refuse(settings, &reason),
            None => failed("check the expressions", settings)(error),
        })?;
        let parameters = prepared
            .parameters()
            .map_or(0, |parameters| parameters.either(<[_]>::len, |count| count));
        match prepared.columns() {
            [column] if parameters == 0 => Ok(column.type_info().name().to_ascii_lowercase()),
            _ => Err(self.refuse(settings, "it is not one expression without parameters")),
        }
    }

    fn refuse(&self, settings: &AdoptSettings, why: &str) -> AdoptError {
        refused(
            settings,
            format!("correct the expression for {}: {why}", self.column.name()),
        )
    }
}

/// What the server has against an expression; `None` for an error that has another cause, such as a
/// lock. The text quotes the expression at most: the statement was prepared, so it has read no row.
fn reason_of_server(error: &sqlx::Error) -> Option<String> {
    let error = error.as_database_error()?;
    let code = error.code()?;
    let is_of_text = ["0A", "22", "42"]
        .iter()
        .any(|class| code.starts_with(class));
    is_of_text.then(|| error.message().to_owned())
}
