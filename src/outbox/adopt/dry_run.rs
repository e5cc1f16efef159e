//! Counts what an adoption would do with the waiting rows of a table. Nothing is changed: the
//! function that counts is a temporary one of a transaction that is rolled back. IO.

use std::collections::BTreeSet;

use serde::Serialize;
use sqlx::{AssertSqlSafe, PgConnection, query_as, query_scalar};

use crate::{
    outbox::adopt::{
        AdoptError, MOVED_ROWS_MAX,
        apply::{Entry, read_entries},
        failed, run,
    },
    settings::{AdoptSettings, RelaySettings},
};

/// What an adoption would do with a table.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct DryRun {
    /// Table, as `schema.table`.
    pub table: String,
    /// Whether the table is adopted as the manifest says already.
    pub is_adopted: bool,
    /// Number of waiting rows that would be moved, those with a fault included.
    pub waiting: i64,
    /// Number of waiting rows that the old worker has given up.
    pub exhausted: i64,
    /// Whether a migration moves that many rows. If not, `adopt --drain` must move them first.
    pub is_small: bool,
    /// Number of waiting rows for each topic; absent topic: routed by types.
    pub topics: Vec<TopicCount>,
    /// Waiting rows that cannot be converted, by reason. They would be put aside.
    pub faults: Vec<FaultCount>,
    /// Unique indexes with a condition: one over waiting rows guards nothing after the adoption.
    pub partial_unique_indexes: Vec<String>,
}

/// Number of waiting rows of a topic.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct TopicCount {
    /// Topic; absent if the rows are routed by their types.
    pub topic: Option<String>,
    /// Number of rows.
    pub rows: i64,
    /// Whether the manifest declares the topic. Rows of others would wait.
    pub is_declared: bool,
}

/// Number of waiting rows with a fault.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct FaultCount {
    /// What is wrong with the rows.
    pub fault: String,
    /// Number of rows.
    pub rows: i64,
}

/// Counts for each table of the manifest what an adoption would do.
///
/// # Errors
/// Returns the first obstacle to an adoption.
///
/// # Cancel safety
/// If dropped midway, drop the transaction too. The caller rolls it back.
pub(in crate::outbox) async fn dry_run(
    connection: &mut PgConnection,
    settings: &RelaySettings,
) -> Result<Vec<DryRun>, AdoptError> {
    let (entries, _) = read_entries(&mut *connection, settings).await?;
    let mut results = Vec::new();
    for entry in &entries {
        entry.table.check_rights(entry.settings)?;
        results.push(of_table(&mut *connection, settings, entry).await?);
    }
    Ok(results)
}

async fn of_table(
    connection: &mut PgConnection,
    settings: &RelaySettings,
    entry: &Entry<'_>,
) -> Result<DryRun, AdoptError> {
    let adoption = entry.adoption(settings);
    let exhausted = count(&mut *connection, adoption.count_exhausted(), entry.settings).await?;
    let results = match adoption.check_function() {
        Some(function) => {
            let name = adoption.check_name();
            check_rows(&mut *connection, function, &name, entry.settings).await?
        }
        None => Vec::new(),
    };
    let waiting = results.iter().map(|result| result.rows).sum();
    Ok(DryRun {
        table: entry.settings.to_string(),
        is_adopted: entry.is_applied(settings),
        waiting,
        exhausted,
        is_small: waiting <= MOVED_ROWS_MAX,
        topics: topics(&results, settings),
        faults: faults(results),
        partial_unique_indexes: entry.table.partial_unique_indexes.clone(),
    })
}

/// Number of waiting rows with one outcome.
struct Checked {
    fault: Option<String>,
    topic: Option<String>,
    rows: i64,
}

async fn check_rows(
    connection: &mut PgConnection,
    function: String,
    name: &str,
    adopt: &AdoptSettings,
) -> Result<Vec<Checked>, AdoptError> {
    run(&mut *connection, function, "check the rows", adopt).await?;
    let call = format!("select o_fault, o_topic, o_number from pg_temp.{name}()");
    let rows: Vec<(Option<String>, Option<String>, i64)> = query_as(AssertSqlSafe(call))
        .fetch_all(connection)
        .await
        .map_err(failed("check the rows", adopt))?;
    let checked = rows
        .into_iter()
        .map(|(fault, topic, rows)| Checked { fault, topic, rows });
    Ok(checked.collect())
}

async fn count(
    connection: &mut PgConnection,
    sql: Option<String>,
    adopt: &AdoptSettings,
) -> Result<i64, AdoptError> {
    let Some(sql) = sql else {
        return Ok(0);
    };
    query_scalar(AssertSqlSafe(sql))
        .fetch_one(connection)
        .await
        .map_err(failed("count the rows", adopt))
}

fn topics(results: &[Checked], settings: &RelaySettings) -> Vec<TopicCount> {
    let declared: BTreeSet<&str> = settings
        .topics
        .iter()
        .map(|topic| topic.name.as_str())
        .collect();
    let good = results.iter().filter(|result| result.fault.is_none());
    good.map(|result| TopicCount {
        topic: result.topic.clone(),
        rows: result.rows,
        is_declared: result
            .topic
            .as_deref()
            .is_none_or(|topic| declared.contains(topic)),
    })
    .collect()
}

fn faults(results: Vec<Checked>) -> Vec<FaultCount> {
    let mut faults: Vec<FaultCount> = Vec::new();
    for result in results {
        let Some(fault) = result.fault else { continue };
        match faults.iter_mut().find(|known| known.fault == fault) {
            Some(known) => known.rows += result.rows,
            None => faults.push(FaultCount {
                fault,
                rows: result.rows,
            }),
        }
    }
    faults
}
