//! Log lines about rows: what happened to a row, and the ids by which to follow its event.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::Instant,
};

use crate::{
    event_labels::label,
    line_budget::{Line, LineBudget},
    outbox::{RowFault, RowIdentity},
    relay::core::{Disposition, RejectedRow},
    report::ProblemClass,
};

/// Class of lines, of which a few are written and the others are counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum RowEvent {
    Parked(ProblemClass),
    DeadLettered(ProblemClass),
    BelowWatermark,
}

/// Writes the lines, within their limits.
#[derive(Debug, Default)]
pub(crate) struct RowLog(Mutex<LineBudget<RowEvent>>);

impl RowLog {
    /// Logs what happened to a row that is not published, for a person to act on.
    pub(crate) fn disposed(&self, topic: &str, rejected: &RejectedRow, now: Instant) {
        if self.count(row_event(rejected), now) == Line::LeaveOut {
            return;
        }
        let (row, labels, class) = (rejected.row, &rejected.labels, rejected.class);
        let (why, what_next) = (why(rejected), what_next(rejected.disposition));
        tracing::error!(
            topic = label(topic),
            event_id = %row.event_id,
            event_type = labels.event_type(),
            correlation_id = labels.correlation_id(),
            trace_id = labels.trace_id(),
            outbox_seq = row.id.get(),
            %class,
            "{why}, and {what_next}"
        );
    }

    /// Logs a row that was found below its lane's watermark.
    pub(crate) fn straggler(&self, row: RowIdentity, now: Instant) {
        if self.count(RowEvent::BelowWatermark, now) == Line::LeaveOut {
            return;
        }
        tracing::warn!(
            lane = i16::from(row.lane),
            event_id = %row.event_id,
            outbox_seq = row.id.get(),
            "a row was found below the watermark: an id may have been drawn twice, after a \
             restore or a TRUNCATE; see docs/restore.md"
        );
    }

    /// Logs how many lines were left out in minutes that are over.
    pub(crate) fn end_minutes(&self, now: Instant) {
        let ended = self.budget().end_minutes(now);
        for (event, lines) in ended {
            log_left_out(event, lines);
        }
    }

    /// Logs how many lines were left out: no line follows.
    pub(crate) fn end(&self) {
        let ended = self.budget().end_all();
        for (event, lines) in ended {
            log_left_out(event, lines);
        }
    }

    fn count(&self, event: RowEvent, now: Instant) -> Line {
        self.end_minutes(now);
        self.budget().count(event, now)
    }

    fn budget(&self) -> MutexGuard<'_, LineBudget<RowEvent>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn row_event(rejected: &RejectedRow) -> RowEvent {
    match rejected.disposition {
        Disposition::ParkKey => RowEvent::Parked(rejected.class),
        Disposition::DeadLetter => RowEvent::DeadLettered(rejected.class),
    }
}

fn why(rejected: &RejectedRow) -> String {
    match rejected.fault {
        None => "Kafka rejected this row".to_owned(),
        Some(RowFault::TooLarge) => "this row is too large to be read".to_owned(),
        Some(RowFault::NotUtf8(column)) => {
            format!("column {} of this row is not UTF-8", column.name())
        }
    }
}

fn what_next(disposition: Disposition) -> &'static str {
    match disposition {
        Disposition::ParkKey => "its key is parked; see `outbox-relay parked list`",
        Disposition::DeadLetter => {
            "it was moved to dead_letter; see `outbox-relay dead-letters list`"
        }
    }
}

fn log_left_out(event: RowEvent, lines: u64) {
    match event {
        RowEvent::Parked(class) => tracing::error!(
            %class,
            lines,
            "more keys were parked within a minute than have a line here; see `outbox-relay \
             parked list`"
        ),
        RowEvent::DeadLettered(class) => tracing::error!(
            %class,
            lines,
            "more rows were moved to dead_letter within a minute than have a line here; see \
             `outbox-relay dead-letters list`"
        ),
        RowEvent::BelowWatermark => tracing::warn!(
            lines,
            "more rows were found below the watermark within a minute than have a line here"
        ),
    }
}
