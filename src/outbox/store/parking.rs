//! Rows that Kafka refused: parking their keys, burying them, reading them by name; and the numbers
//! of the whole table. IO.

use std::fmt;

use sqlx::{FromRow, Row, SqlStr, query};
use uuid::Uuid;

use crate::{
    outbox::{
        row::{DecodeError, OutboxRow, decode_row},
        schema::statement,
        store::{Store, StoreError, failed, tuples},
    },
    report::ProblemClass,
    settings::SchemaName,
};

/// What rests until a person lets it flow again.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Parked {
    /// Of the lanes that were asked for, by topic and key.
    pub keys: Vec<ParkedKey>,
    pub topics: Vec<String>,
}

/// A key whose rows wait, all of them.
#[derive(Clone, PartialEq, Eq)]
pub struct ParkedKey {
    /// Where its rows go, routed or named by the row.
    pub topic: String,
    pub key: String,
    pub lane: u8,
    /// How often its first row has failed.
    pub attempts: u32,
    /// id and event_id of the row that it is parked for; absent when a person parked it.
    pub head: Option<(i64, Uuid)>,
}

/// A row that Kafka refused.
#[derive(Clone, PartialEq, Eq)]
pub struct ParkedRow {
    /// Where it was to go, routed or named by the row.
    pub topic: String,
    pub key: String,
    pub lane: u8,
    pub id: i64,
    pub event_id: Uuid,
    pub class: ProblemClass,
}

/// Numbers of the whole table, whoever owns its lanes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct TableWide {
    pub dead_letters: u64,
    pub parked_keys: u64,
    pub parked_topics: u64,
    /// Age of the oldest transaction that keeps vacuum from removing dead rows. A role without
    /// `pg_read_all_stats` sees its own sessions and prepared transactions only; absent: it sees
    /// none.
    pub xmin_age_seconds: Option<f64>,
    /// Dead rows of `event`, as the server estimates them.
    pub dead_tuples: u64,
}

/// Statement texts with the schema put in.
pub(super) struct ParkingStatements {
    parked: SqlStr,
    park_key: SqlStr,
    dead_letter: SqlStr,
    table_wide: SqlStr,
    fetch_by_ids: SqlStr,
}

impl ParkingStatements {
    pub(super) fn new(schema: &SchemaName) -> Self {
        Self {
            parked: statement(include_str!("../sql/parked.sql"), schema),
            park_key: statement(include_str!("../sql/park_key.sql"), schema),
            dead_letter: statement(include_str!("../sql/dead_letter.sql"), schema),
            table_wide: statement(include_str!("../sql/table_wide.sql"), schema),
            fetch_by_ids: statement(include_str!("../sql/fetch_by_ids.sql"), schema),
        }
    }
}

impl Store {
    /// Keys of these lanes and topics that are parked.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn parked(&self, lanes: &[i16]) -> Result<Parked, StoreError> {
        let rows = self
            .pools
            .lease
            .rows(query(self.parking.parked.clone()).bind(lanes))
            .await
            .map_err(failed("read what is parked"))?;
        let rows: Vec<ParkedLine> = tuples(&rows).map_err(failed("read what is parked"))?;
        let mut parked = Parked::default();
        for row in rows {
            match row {
                (topic, None, ..) => parked.topics.push(topic),
                (topic, Some(key), lane, attempts, head_id, head_event_id) => {
                    parked.keys.push(ParkedKey {
                        topic,
                        key,
                        lane: lane
                            .and_then(|lane| u8::try_from(lane).ok())
                            .ok_or(DecodeError::Value)
                            .map_err(failed("read what is parked"))?,
                        attempts: attempts
                            .and_then(|attempts| u32::try_from(attempts).ok())
                            .unwrap_or(0),
                        head: head_id.zip(head_event_id),
                    })
                }
            }
        }
        Ok(parked)
    }

    /// Parks the key of a row that Kafka refused, or counts one more attempt when it is parked. A
    /// row that is gone parks nothing.
    ///
    /// If dropped midway the key may or may not be parked; parking it again only counts.
    ///
    /// # Errors
    /// When the database fails; then it may be parked, or not.
    pub async fn park_key(&self, row: &ParkedRow) -> Result<(), StoreError> {
        let park = query(self.parking.park_key.clone())
            .bind(&row.topic)
            .bind(&row.key)
            .bind(i16::from(row.lane))
            .bind(row.id)
            .bind(row.event_id)
            .bind(row.class.to_string());
        self.pools
            .settler
            .rows(park)
            .await
            .map_err(failed("park a key"))?;
        Ok(())
    }

    /// Moves a row that Kafka refused to the dead letters; false: it is not in `event` any more.
    ///
    /// If dropped midway the row is in one of the two tables; burying it again is harmless.
    ///
    /// # Errors
    /// When the database fails; then it may have been moved, or not.
    pub async fn dead_letter(&self, row: &ParkedRow, attempts: u32) -> Result<bool, StoreError> {
        let dead_letter = query(self.parking.dead_letter.clone())
            .bind(i16::from(row.lane))
            .bind(row.id)
            .bind(row.event_id)
            .bind(&row.topic)
            .bind(row.class.to_string())
            .bind(i32::try_from(attempts).unwrap_or(i32::MAX));
        let row = self
            .pools
            .settler
            .row(dead_letter)
            .await
            .map_err(failed("bury a row"))?;
        row.try_get(0).map_err(failed("bury a row"))
    }

    /// Numbers of the whole table.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn table_wide(&self) -> Result<TableWide, StoreError> {
        let row = self
            .pools
            .settler
            .row(query(self.parking.table_wide.clone()))
            .await
            .map_err(failed("read the numbers of the table"))?;
        let (dead_letters, parked_keys, parked_topics, xmin_age_seconds, dead_tuples): (
            i64,
            i64,
            i64,
            Option<f64>,
            i64,
        ) = FromRow::from_row(&row).map_err(failed("read the numbers of the table"))?;
        let count = |number: i64| u64::try_from(number).unwrap_or(0);
        Ok(TableWide {
            dead_letters: count(dead_letters),
            parked_keys: count(parked_keys),
            parked_topics: count(parked_topics),
            xmin_age_seconds,
            dead_tuples: count(dead_tuples),
        })
    }

    /// The rows of these names that still exist, by lane and then id. Parallel lists, an entry per
    /// row.
    ///
    /// # Errors
    /// When the database fails, or answers in another shape.
    pub async fn fetch_by_ids(
        &self,
        lanes: &[i16],
        ids: &[i64],
        event_ids: &[Uuid],
    ) -> Result<Vec<OutboxRow>, StoreError> {
        let named = query(self.parking.fetch_by_ids.clone())
            .bind(lanes)
            .bind(ids)
            .bind(event_ids);
        let rows = self
            .pools
            .reader
            .rows(named)
            .await
            .map_err(failed("fetch rows by name"))?;
        rows.iter()
            .map(decode_row)
            .collect::<Result<_, _>>()
            .map_err(failed("fetch rows by name"))
    }
}

/// Topic; key, lane, attempts and head, which a parked topic has not.
type ParkedLine = (
    String,
    Option<String>,
    Option<i16>,
    Option<i32>,
    Option<i64>,
    Option<Uuid>,
);

/// A key does not get into logs.
impl fmt::Debug for ParkedKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ParkedKey")
            .field("topic", &self.topic)
            .field("lane", &self.lane)
            .field("attempts", &self.attempts)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for ParkedRow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ParkedRow")
            .field("topic", &self.topic)
            .field("lane", &self.lane)
            .field("id", &self.id)
            .field("event_id", &self.event_id)
            .field("class", &self.class)
            .finish_non_exhaustive()
    }
}
