//! Rows that Kafka rejected: parking their keys, moving them to the dead letters; and numbers of
//! the whole table. IO.

use std::fmt;

use sqlx::{SqlStr, postgres::PgRow, query};
use uuid::Uuid;

use crate::{
    outbox::{
        ids::{Lane, RowId},
        row::DecodeError,
        schema::statement,
        store::{
            Operation, Store, StoreError, column, count, execute, failed, lane_numbers, row, rows,
            tuple, tuples,
        },
        unit_of_work::{Statement, UnitOfWork},
    },
    report::ProblemClass,
    settings::SchemaName,
};

/// Keys and topics that wait for a person.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Parked {
    /// Parked keys of the requested lanes, in the order of topic and key.
    pub keys: Vec<ParkedKey>,
    /// Parked topics, whatever the lane.
    pub topics: Vec<String>,
}

/// Stands for all that was parked in some lanes. Equal digests mean that nothing has changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ParkedDigest(RowId);

/// What a relay reads of the parked keys and topics.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParkedReading {
    pub digest: ParkedDigest,
    /// Number of parked keys and topics.
    pub listed: u32,
    /// The keys and topics; `None`: they have the digest that the relay knows.
    pub changed: Option<Box<Parked>>,
}

/// A parked key: all its rows wait.
#[derive(Clone, PartialEq, Eq)]
pub struct ParkedKey {
    /// Topic of its rows, by route or given by the row.
    pub topic: String,
    pub key: String,
    pub lane: Lane,
    /// Number of times that its first row has failed.
    pub attempts: u32,
    /// Id and event_id of the row for which the key is parked; `None` when a person parked it.
    pub head: Option<(RowId, Uuid)>,
    /// Why that row was rejected.
    pub class: ProblemClass,
}

/// A row that Kafka rejected.
#[derive(Clone, PartialEq, Eq)]
pub struct ParkedRow {
    /// Topic of the row, by route or given by the row.
    pub topic: String,
    pub key: String,
    pub lane: Lane,
    pub id: RowId,
    pub event_id: Uuid,
    /// Why Kafka rejected it.
    pub class: ProblemClass,
}

/// Numbers of the whole table, for all lanes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct TableWide {
    pub dead_letters: u64,
    pub parked_keys: u64,
    pub parked_topics: u64,
    /// Age in seconds of the oldest transaction that keeps vacuum from removing dead rows.
    ///
    /// A role without `pg_read_all_stats` sees only its own sessions and prepared transactions. 0:
    /// it sees no transaction. `None`: the server does not let it ask.
    pub xmin_age_seconds: Option<f64>,
    /// Dead rows of `event`, estimated by the server. `None`: it does not let this role ask.
    pub dead_tuples: Option<u64>,
}

/// Texts of the statements, with the name of the schema inserted.
pub(super) struct ParkingStatements {
    parked: SqlStr,
    park_key: SqlStr,
    dead_letter: SqlStr,
    table_wide: SqlStr,
}

impl ParkingStatements {
    /// Inserts the name of the schema.
    pub(super) fn new(schema: &SchemaName) -> Self {
        Self {
            parked: statement(include_str!("../sql/parked.sql"), schema),
            park_key: statement(include_str!("../sql/park_key.sql"), schema),
            dead_letter: statement(include_str!("../sql/dead_letter.sql"), schema),
            table_wide: statement(include_str!("../sql/table_wide.sql"), schema),
        }
    }
}

impl Store {
    /// Reads the parked keys of these lanes, and all parked topics, unless they have the digest
    /// `known`.
    ///
    /// # Errors
    /// Returns an error when the database fails, or its answer cannot be decoded.
    ///
    /// # Cancel safety
    /// Cancel safe: it only reads.
    pub async fn parked(
        &self,
        lanes: &[Lane],
        known: Option<ParkedDigest>,
    ) -> Result<ParkedReading, StoreError> {
        let read = self.parked_statement(lanes, known);
        let rows = rows(&self.pools.lease, Operation::ReadParked, read).await?;
        decode_parked(&rows, known)
    }

    /// Reads like [`Self::parked`], in a transaction that has begun.
    ///
    /// # Errors
    /// Returns an error when the database fails, or its answer cannot be decoded.
    ///
    /// # Cancel safety
    /// If dropped midway, drop the unit of work too.
    pub(super) async fn read_parked(
        &self,
        work: &mut UnitOfWork,
        lanes: &[Lane],
        known: Option<ParkedDigest>,
    ) -> Result<ParkedReading, StoreError> {
        let rows = work.rows(self.parked_statement(lanes, known)).await;
        decode_parked(&rows.map_err(failed(Operation::ReadParked))?, known)
    }

    fn parked_statement(&self, lanes: &[Lane], known: Option<ParkedDigest>) -> Statement<'static> {
        query(self.parking.parked.clone())
            .bind(lane_numbers(lanes))
            .bind(known.map(|digest| digest.0))
    }

    /// Parks the key of a row that Kafka rejected. When the key is parked already, counts one more
    /// attempt. A row that no longer exists parks nothing.
    ///
    /// # Errors
    /// Returns an error when the database fails. The key may be parked then, or not.
    ///
    /// # Cancel safety
    /// If dropped midway, the key may be parked, or not. Parking it again only counts an attempt.
    pub async fn park_key(&self, row: &ParkedRow) -> Result<(), StoreError> {
        self.park_keys(std::slice::from_ref(row)).await
    }

    /// Parks the keys of rows that were rejected, each like [`Self::park_key`].
    ///
    /// # Errors
    /// Returns an error when the database fails. The key may be parked then, or not.
    ///
    /// # Cancel safety
    /// If dropped midway, the key may be parked, or not. Parking it again only counts an attempt.
    pub async fn park_keys(&self, rows: &[ParkedRow]) -> Result<(), StoreError> {
        let park = query(self.parking.park_key.clone())
            .bind(column(rows, |row| row.topic.clone()))
            .bind(column(rows, |row| row.key.clone()))
            .bind(column(rows, |row| i16::from(row.lane)))
            .bind(column(rows, |row| row.id))
            .bind(column(rows, |row| row.event_id))
            .bind(column(rows, |row| row.class.to_string()));
        execute(&self.pools.settler, Operation::ParkKey, park).await
    }

    /// Moves a row that Kafka rejected to the dead letters. Returns false when the row is not in
    /// `event` any more.
    ///
    /// # Errors
    /// Returns an error when the database fails. The row may have been moved then, or not.
    ///
    /// # Cancel safety
    /// If dropped midway, the row is in one of the two tables. Moving it again is harmless.
    pub async fn dead_letter(
        &self,
        rejected: &ParkedRow,
        attempts: u32,
    ) -> Result<bool, StoreError> {
        let operation = Operation::WriteDeadLetter;
        let dead_letter = query(self.parking.dead_letter.clone())
            .bind(i16::from(rejected.lane))
            .bind(rejected.id)
            .bind(rejected.event_id)
            .bind(&rejected.topic)
            .bind(rejected.class.to_string())
            .bind(i32::try_from(attempts).unwrap_or(i32::MAX));
        let row = row(&self.pools.settler, operation, dead_letter).await?;
        let (moved,) = tuple(operation, &row)?;
        Ok(moved)
    }

    /// Reads numbers of the whole table.
    ///
    /// # Errors
    /// Returns an error when the database fails.
    ///
    /// # Cancel safety
    /// Cancel safe: it only reads.
    pub async fn table_wide(&self) -> Result<TableWide, StoreError> {
        let operation = Operation::ReadTableWide;
        let read = query(self.parking.table_wide.clone());
        let row = row(&self.pools.settler, operation, read).await?;
        let (dead_letters, parked_keys, parked_topics, xmin_age_seconds, dead_tuples): (
            _,
            _,
            _,
            _,
            Option<i64>,
        ) = tuple(operation, &row)?;
        Ok(TableWide {
            dead_letters: count(dead_letters),
            parked_keys: count(parked_keys),
            parked_topics: count(parked_topics),
            xmin_age_seconds,
            dead_tuples: dead_tuples.map(count),
        })
    }
}

/// Columns of `sql/parked.sql`: topic, key, lane, attempts, id and event_id of the first row, and
/// class. A parked topic has only the first. The row of all has a number as attempts and a digest
/// as id.
type ParkedColumns = (
    Option<String>,
    Option<String>,
    Option<i16>,
    Option<i32>,
    Option<RowId>,
    Option<Uuid>,
    Option<String>,
);

/// Decodes the rows of `sql/parked.sql`, of which the first stands for all.
fn decode_parked(rows: &[PgRow], known: Option<ParkedDigest>) -> Result<ParkedReading, StoreError> {
    let operation = Operation::ReadParked;
    let mut rows = tuples(operation, rows)?.into_iter();
    let (digest, listed) = decode_digest(rows.next()).map_err(failed(operation))?;
    let mut parked = Parked::default();
    for row in rows {
        add_parked(&mut parked, row).map_err(failed(operation))?;
    }
    Ok(ParkedReading {
        digest,
        listed,
        changed: (known != Some(digest)).then(|| Box::new(parked)),
    })
}

fn decode_digest(row: Option<ParkedColumns>) -> Result<(ParkedDigest, u32), DecodeError> {
    let Some((None, None, None, listed, Some(digest), None, None)) = row else {
        return Err(DecodeError::Value);
    };
    Ok((ParkedDigest(digest), decode_attempts(listed)))
}

/// Adds a parked topic, or a parked key.
fn add_parked(parked: &mut Parked, row: ParkedColumns) -> Result<(), DecodeError> {
    match row {
        (None, ..) => return Err(DecodeError::Value),
        (Some(topic), None, ..) => parked.topics.push(topic),
        (Some(topic), Some(key), lane, attempts, head_id, head_event_id, class) => {
            parked.keys.push(ParkedKey {
                topic,
                key,
                lane: decode_lane(lane)?,
                attempts: decode_attempts(attempts),
                head: head_id.zip(head_event_id),
                class: decode_class(class.as_deref()),
            });
        }
    }
    Ok(())
}

fn decode_lane(lane: Option<i16>) -> Result<Lane, DecodeError> {
    lane.and_then(Lane::from_column).ok_or(DecodeError::Value)
}

/// A name that this version does not know is `Other`.
fn decode_class(name: Option<&str>) -> ProblemClass {
    let Ok(class) = name.unwrap_or_default().parse();
    class
}

fn decode_attempts(attempts: Option<i32>) -> u32 {
    u32::try_from(attempts.unwrap_or(0)).unwrap_or(0)
}

/// Leaves out the key: it may be personal data and must not get into logs.
impl fmt::Debug for ParkedKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ParkedKey")
            .field("topic", &self.topic)
            .field("lane", &self.lane)
            .field("attempts", &self.attempts)
            .finish_non_exhaustive()
    }
}

/// Leaves out the key: it may be personal data and must not get into logs.
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
