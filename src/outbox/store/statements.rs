//! The texts of the relay's statements, with the schema put in. Pure.

use sqlx::SqlStr;

use crate::{failpoints, outbox::schema::statement, settings::SchemaName};

/// One field for each file below `sql/` that the relay runs.
pub(super) struct Statements {
    pub(super) fetch: SqlStr,
    pub(super) fetch_small: SqlStr,
    pub(super) fetch_filtered: SqlStr,
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
    pub(super) backlog: SqlStr,
    pub(super) backlog_unparked: SqlStr,
    pub(super) sequence_state: SqlStr,
    pub(super) resume_sequence: SqlStr,
}

impl Statements {
    pub(super) fn new(schema: &SchemaName) -> Self {
        Self {
            fetch: statement(failpoints::order(include_str!("../sql/fetch.sql")), schema),
            fetch_small: statement(
                failpoints::order(include_str!("../sql/fetch_small.sql")),
                schema,
            ),
            fetch_filtered: statement(
                failpoints::order(include_str!("../sql/fetch_filtered.sql")),
                schema,
            ),
            settle: statement(include_str!("../sql/settle.sql"), schema),
            tick: statement(include_str!("../sql/tick.sql"), schema),
            register: statement(include_str!("../sql/register.sql"), schema),
            renew: statement(include_str!("../sql/renew.sql"), schema),
            write_watermarks: statement(include_str!("../sql/write_watermarks.sql"), schema),
            release: statement(include_str!("../sql/release.sql"), schema),
            survey: statement(include_str!("../sql/survey.sql"), schema),
            claim: statement(include_str!("../sql/claim.sql"), schema),
            unregister: statement(include_str!("../sql/unregister.sql"), schema),
            gap_scan: statement(include_str!("../sql/gap_scan.sql"), schema),
            backlog: statement(include_str!("../sql/backlog.sql"), schema),
            backlog_unparked: statement(include_str!("../sql/backlog_unparked.sql"), schema),
            sequence_state: statement(include_str!("../sql/sequence_state.sql"), schema),
            resume_sequence: statement(include_str!("../sql/resume_sequence.sql"), schema),
        }
    }
}
