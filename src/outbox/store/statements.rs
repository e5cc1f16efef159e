//! Texts of the relay's statements, with the name of the schema inserted. Pure.

use sqlx::SqlStr;

use crate::{
    failpoints,
    outbox::{
        row_sql::TextReading,
        schema::{row_statement, statement},
    },
    settings::SchemaName,
};

/// The statements that read texts of rows.
pub(super) struct RowStatements {
    pub(super) fetch: SqlStr,
    pub(super) fetch_small: SqlStr,
    pub(super) fetch_filtered: SqlStr,
    pub(super) fetch_by_ids: SqlStr,
    pub(super) backlog_unparked: SqlStr,
}

impl RowStatements {
    /// Inserts the name of the schema, and how texts are read.
    fn new(schema: &SchemaName, reading: TextReading) -> Self {
        let sql = |template| row_statement(template, reading, schema);
        // A failpoint can change the order in which rows are read.
        let fetch = |template| sql(failpoints::order(template));
        Self {
            fetch: fetch(include_str!("../sql/fetch.sql")),
            fetch_small: fetch(include_str!("../sql/fetch_small.sql")),
            fetch_filtered: fetch(include_str!("../sql/fetch_filtered.sql")),
            fetch_by_ids: sql(include_str!("../sql/fetch_by_ids.sql")),
            backlog_unparked: sql(include_str!("../sql/backlog_unparked.sql")),
        }
    }
}

/// One field for each file below `sql/` that the relay runs. Those for parked rows and dead letters
/// are in [`crate::outbox::store::parking`].
pub(super) struct Statements {
    pub(super) plain: RowStatements,
    /// For a database with text that cannot become UTF-8.
    pub(super) checked: RowStatements,
    pub(super) settle: SqlStr,
    pub(super) tick: SqlStr,
    pub(super) register: SqlStr,
    pub(super) renew: SqlStr,
    pub(super) write_watermarks: SqlStr,
    pub(super) release: SqlStr,
    pub(super) survey: SqlStr,
    pub(super) claim: SqlStr,
    pub(super) unregister: SqlStr,
    pub(super) gap_scan: SqlStr,
    pub(super) purge_adopted: SqlStr,
    pub(super) backlog: SqlStr,
    pub(super) sequence_state: SqlStr,
    pub(super) resume_sequence: SqlStr,
}

impl Statements {
    /// Inserts the name of the schema.
    pub(super) fn new(schema: &SchemaName) -> Self {
        let sql = |template| statement(template, schema);
        Self {
            plain: RowStatements::new(schema, TextReading::Plain),
            checked: RowStatements::new(schema, TextReading::Checked),
            settle: sql(include_str!("../sql/settle.sql")),
            tick: sql(include_str!("../sql/tick.sql")),
            register: sql(include_str!("../sql/register.sql")),
            renew: sql(include_str!("../sql/renew.sql")),
            write_watermarks: sql(include_str!("../sql/write_watermarks.sql")),
            release: sql(include_str!("../sql/release.sql")),
            survey: sql(include_str!("../sql/survey.sql")),
            claim: sql(include_str!("../sql/claim.sql")),
            unregister: sql(include_str!("../sql/unregister.sql")),
            gap_scan: sql(include_str!("../sql/gap_scan.sql")),
            purge_adopted: sql("select @schema@.purge_adopted()"),
            backlog: sql(include_str!("../sql/backlog.sql")),
            sequence_state: sql(include_str!("../sql/sequence_state.sql")),
            resume_sequence: sql(include_str!("../sql/resume_sequence.sql")),
        }
    }
}
