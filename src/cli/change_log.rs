//! Log lines about rows that a command changed, with the ids by which to follow their events. IO.

use uuid::Uuid;

use crate::{
    event_labels::label,
    line_budget::LINES_MAX,
    outbox::admin::{AdminClient, LabelSource, LabeledRow},
};

/// Rows that a command is about to change.
pub(super) struct LoggedRows {
    pub(super) source: LabelSource,
    /// Event ids and ids.
    pub(super) rows: Vec<(Uuid, i64)>,
}

/// Writes the first lines, and counts the others.
pub(super) struct ChangeLog<'a> {
    client: &'a AdminClient,
    written: usize,
    left_out: u64,
}

impl<'a> ChangeLog<'a> {
    /// A log of one command.
    pub(super) fn new(client: &'a AdminClient) -> Self {
        Self {
            client,
            written: 0,
            left_out: 0,
        }
    }

    /// Reads what the lines about rows need, before the rows are changed. A failure costs only the
    /// lines.
    ///
    /// # Cancel safety
    /// Cancel safe: it only reads.
    pub(super) async fn read(&self, rows: LoggedRows) -> (LabelSource, Vec<LabeledRow>) {
        let room = (LINES_MAX as usize).saturating_sub(self.written);
        let wanted = &rows.rows[..rows.rows.len().min(room)];
        (rows.source, self.labels(rows.source, wanted).await)
    }

    /// Logs the rows that were changed, of `done` ones. `what` is what was done with them.
    ///
    /// # Cancel safety
    /// If dropped midway, the lines are missing.
    pub(super) async fn write(
        &mut self,
        what: &str,
        (source, rows): (LabelSource, Vec<LabeledRow>),
        done: u64,
    ) {
        let ids: Vec<_> = rows
            .iter()
            .map(|row| (row.event_id, row.outbox_seq))
            .collect();
        let unchanged = self.labels(source, &ids).await;
        let changed = rows.iter().filter(|row| !unchanged.contains(row));
        let lines = changed.inspect(|row| log_row(what, row)).count();
        self.written += lines;
        self.left_out += done.saturating_sub(lines as u64);
    }

    /// Logs how many lines were left out.
    pub(super) fn end(&self, what: &str) {
        if self.left_out > 0 && self.written > 0 {
            let rows = self.left_out;
            tracing::info!(rows, "{}: more than have a line here", what);
        }
    }

    async fn labels(&self, source: LabelSource, rows: &[(Uuid, i64)]) -> Vec<LabeledRow> {
        if rows.is_empty() {
            return Vec::new();
        }
        let read = self.client.labels(source, rows).await;
        read.inspect_err(|error| tracing::debug!(error = %error.problem().message, "no labels"))
            .unwrap_or_default()
    }
}

fn log_row(what: &str, row: &LabeledRow) {
    let LabeledRow { class, labels, .. } = row;
    tracing::info!(
        topic = label(&row.topic),
        event_id = %row.event_id,
        event_type = labels.event_type(),
        correlation_id = labels.correlation_id(),
        trace_id = labels.trace_id(),
        outbox_seq = row.outbox_seq,
        class,
        "{}",
        what
    );
}
