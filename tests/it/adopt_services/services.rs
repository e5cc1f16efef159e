//! What the seven services publish: topics, aggregates and keys. Pure.

use serde_json::{Value, json};
use uuid::Uuid;

use super::library::{Call, Event, Generation};

/// Whose transaction a row of the outbox is part of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Session {
    /// The library commits each row.
    Own,
    /// The service passes its session: the rows are committed with its business data.
    Callers,
}

/// A service with the table that it has in its test. Which service has which generation of the
/// table is not known, but `add_event` without a topic in `event_data` needs the column.
#[derive(Debug)]
pub(super) struct Service {
    /// Folder below `examples/services`.
    pub(super) name: &'static str,
    /// `source_service` of its envelopes.
    source: &'static str,
    /// Name of its database in `roles.sql`.
    pub(super) database: &'static str,
    /// Beginning of the names of its roles in `roles.sql`.
    pub(super) roles: &'static str,
    pub(super) generation: Generation,
    pub(super) session: Session,
    kinds: &'static [EventKind],
    /// Topics that it sends straight to Kafka.
    pub(super) straight: &'static [&'static str],
}

/// A kind of event.
#[derive(Clone, Copy, Debug)]
struct EventKind {
    topic: &'static str,
    /// Column `event_type`.
    event_type: &'static str,
    /// `event_type` of the envelope.
    envelope_type: &'static str,
    aggregate_type: &'static str,
    aggregate: Aggregate,
    key: Key,
    event_id: EventId,
}

/// Which aggregate an event is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Aggregate {
    Batch = 1,
    Essay,
    Upload,
    Teacher,
    Class,
    Pipeline,
    /// Another one in each change.
    OfOneChange,
}

/// Where the key comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Key {
    /// No key is given, so it is the aggregate's id.
    Aggregate,
    /// `metadata.partition_key`, which is the aggregate's id.
    Partition,
    /// `message_key`, which is the correlation id.
    Correlation,
    /// `event_key` of `add_event`.
    OfAddEvent,
    /// Null, by `add_event`.
    Null,
}

/// Which id an envelope has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum EventId {
    Random,
    Nil,
}

const fn kind(
    topic: &'static str,
    aggregate_type: &'static str,
    aggregate: Aggregate,
) -> EventKind {
    EventKind {
        topic,
        event_type: topic,
        envelope_type: topic,
        aggregate_type,
        aggregate,
        key: Key::Aggregate,
        event_id: EventId::Random,
    }
}

const fn of_batch(topic: &'static str) -> EventKind {
    kind(topic, "batch", Aggregate::Batch)
}

const fn by_correlation(
    topic: &'static str,
    aggregate_type: &'static str,
    aggregate: Aggregate,
) -> EventKind {
    EventKind {
        key: Key::Correlation,
        ..kind(topic, aggregate_type, aggregate)
    }
}

const NOTIFICATION: &str = "huleedu.notification.teacher.requested.v1";

pub(super) static FILE: Service = Service {
    name: "file-service",
    source: "file-service",
    database: "huleedu_file_service",
    roles: "file_service",
    generation: Generation::TopicInData,
    session: Session::Own,
    kinds: &[
        kind(
            "huleedu.file.essay.content.provisioned.v1",
            "file_upload",
            Aggregate::Upload,
        ),
        kind(
            "huleedu.file.essay.validation.failed.v1",
            "file_upload",
            Aggregate::Upload,
        ),
        of_batch("huleedu.file.batch.file.added.v1"),
        of_batch("huleedu.file.batch.file.removed.v1"),
    ],
    straight: &[NOTIFICATION],
};

pub(super) static ESSAY_LIFECYCLE: Service = Service {
    name: "essay-lifecycle-service",
    source: "essay-lifecycle-service",
    database: "huleedu_essay_lifecycle",
    roles: "essay_lifecycle",
    generation: Generation::TopicColumn,
    session: Session::Callers,
    kinds: &[
        of_batch("huleedu.els.excess.content.provisioned.v1"),
        EventKind {
            key: Key::OfAddEvent,
            ..of_batch("huleedu.els.batch.essays.ready.v1")
        },
        of_batch("huleedu.batch.content.provisioning.completed.v1"),
        of_batch("huleedu.els.batch.validation.errors.v1"),
        of_batch("huleedu.els.batch.phase.outcome.v1"),
        of_batch("huleedu.batch.nlp.processing.requested.v2"),
        of_batch("huleedu.els.cj_assessment.requested.v1"),
        of_batch("huleedu.batch.student.matching.requested.v1"),
        EventKind {
            key: Key::Null,
            ..kind(
                "huleedu.els.essay.slot.assigned.v1",
                "essay",
                Aggregate::Essay,
            )
        },
        kind(
            "huleedu.essay.spellcheck.requested.v1",
            "essay",
            Aggregate::Essay,
        ),
    ],
    straight: &[
        "essay.status.events",
        "batch.phase.progress.events",
        "batch.phase.concluded.events",
        NOTIFICATION,
    ],
};

pub(super) static BATCH_ORCHESTRATOR: Service = Service {
    name: "batch-orchestrator-service",
    source: "batch-service",
    database: "huleedu_batch_orchestrator",
    roles: "batch_orchestrator",
    generation: Generation::TopicColumn,
    session: Session::Own,
    kinds: &[
        of_batch("huleedu.batch.essays.registered.v1"),
        of_batch("huleedu.els.spellcheck.initiate.command.v1"),
        of_batch("huleedu.batch.student.matching.initiate.command.v1"),
        EventKind {
            event_type: "batch.pipeline.completed",
            envelope_type: "batch.pipeline.completed",
            ..of_batch("huleedu.batch.pipeline.completed.v1")
        },
        by_correlation(
            "huleedu.batch.cj_assessment.initiate.command.v1",
            "batch",
            Aggregate::Batch,
        ),
        by_correlation(
            "huleedu.batch.nlp.initiate.command.v2",
            "batch",
            Aggregate::Batch,
        ),
        by_correlation(
            "huleedu.batch.ai_feedback.initiate.command.v1",
            "batch",
            Aggregate::Batch,
        ),
        by_correlation(
            "huleedu.pipeline.denied.v1",
            "pipeline",
            Aggregate::Pipeline,
        ),
        by_correlation(NOTIFICATION, "unknown", Aggregate::Teacher),
    ],
    straight: &["huleedu.pipeline.denied.v1"],
};

pub(super) static CJ_ASSESSMENT: Service = Service {
    name: "cj-assessment-service",
    source: "cj_assessment_service",
    database: "huleedu_cj_assessment",
    roles: "cj_assessment",
    generation: Generation::TopicColumn,
    session: Session::Own,
    // Its unique index allows one waiting event of a type for each aggregate.
    kinds: &[
        kind(
            "huleedu.cj_assessment.completed.v1",
            "cj_batch",
            Aggregate::OfOneChange,
        ),
        kind(
            "huleedu.cj_assessment.failed.v1",
            "cj_batch",
            Aggregate::OfOneChange,
        ),
        EventKind {
            event_type: "assessment.result.published",
            ..kind(
                "huleedu.assessment.result.published.v1",
                "assessment_result",
                Aggregate::OfOneChange,
            )
        },
        kind(
            "huleedu.resource.consumption.v1",
            "resource_consumption",
            Aggregate::OfOneChange,
        ),
    ],
    straight: &[],
};

pub(super) static RESULT_AGGREGATOR: Service = Service {
    name: "result-aggregator-service",
    source: "result_aggregator_service",
    database: "huleedu_result_aggregator",
    roles: "result_aggregator",
    generation: Generation::TopicInData,
    session: Session::Own,
    kinds: &[
        of_batch("huleedu.ras.batch.results.ready.v1"),
        of_batch("huleedu.ras.batch.assessment.completed.v1"),
        kind(NOTIFICATION, "teacher_notification", Aggregate::Teacher),
    ],
    straight: &[],
};

pub(super) static SPELLCHECKER: Service = Service {
    name: "spellchecker-service",
    source: "spellchecker_service",
    database: "huleedu_spellchecker",
    roles: "spellchecker",
    generation: Generation::TopicColumn,
    session: Session::Own,
    kinds: &[
        // The thin event and the rich one of one change.
        EventKind {
            key: Key::Partition,
            ..kind(
                "huleedu.batch.spellcheck.phase.completed.v1",
                "spellcheck_job",
                Aggregate::Essay,
            )
        },
        EventKind {
            key: Key::Partition,
            ..kind(
                "huleedu.essay.spellcheck.results.v1",
                "spellcheck_job",
                Aggregate::Essay,
            )
        },
    ],
    straight: &[],
};

pub(super) static CLASS_MANAGEMENT: Service = Service {
    name: "class-management-service",
    source: "class_management_service",
    database: "huleedu_class_management",
    roles: "class_management",
    generation: Generation::TopicInData,
    session: Session::Own,
    kinds: &[
        by_correlation("huleedu.class.created.v1", "class", Aggregate::Class),
        by_correlation("huleedu.class.updated.v1", "class", Aggregate::Class),
        by_correlation(
            "huleedu.class.student.created.v1",
            "class",
            Aggregate::Class,
        ),
        by_correlation(
            "huleedu.class.student.updated.v1",
            "class",
            Aggregate::Class,
        ),
        by_correlation(NOTIFICATION, "class", Aggregate::Class),
        EventKind {
            event_id: EventId::Nil,
            ..of_batch("huleedu.class.student.associations.confirmed.v1")
        },
    ],
    straight: &[],
};

impl Service {
    /// Topics of its table.
    pub(super) fn topics(&self) -> impl Iterator<Item = &'static str> {
        self.kinds.iter().map(|kind| kind.topic)
    }

    /// One event of each kind, for the aggregates of one writer.
    pub(super) fn events(&self, writer: Uuid, number: u32) -> Vec<Event> {
        let change = Change {
            source: self.source,
            writer,
            number,
            correlation: Uuid::new_v4(),
            entity: Uuid::new_v4(),
        };
        self.kinds.iter().map(|kind| change.event(kind)).collect()
    }
}

/// A change that leads to one event of each kind.
struct Change {
    source: &'static str,
    writer: Uuid,
    number: u32,
    correlation: Uuid,
    entity: Uuid,
}

impl Change {
    fn event(&self, kind: &EventKind) -> Event {
        Event {
            topic: kind.topic,
            aggregate_type: kind.aggregate_type,
            aggregate_id: self.aggregate_id(kind.aggregate),
            event_type: kind.event_type,
            envelope: self.envelope(kind),
            call: self.call(kind),
        }
    }

    fn aggregate_id(&self, aggregate: Aggregate) -> String {
        match aggregate {
            Aggregate::OfOneChange => self.entity,
            other => Uuid::from_u128(self.writer.as_u128() ^ other as u128),
        }
        .to_string()
    }

    fn call(&self, kind: &EventKind) -> Call {
        match kind.key {
            Key::OfAddEvent => Call::Add {
                event_key: Some(self.aggregate_id(kind.aggregate)),
            },
            Key::Null => Call::Add { event_key: None },
            Key::Correlation => Call::Publish {
                message_key: Some(self.correlation.to_string()),
                headers: self.headers(),
            },
            Key::Aggregate | Key::Partition => Call::Publish {
                message_key: None,
                headers: self.headers(),
            },
        }
    }

    /// Some callers give headers.
    fn headers(&self) -> Value {
        if self.number.is_multiple_of(3) {
            json!({"priority": "hög", "trace_id": self.correlation.to_string()})
        } else {
            json!({})
        }
    }

    fn envelope(&self, kind: &EventKind) -> Value {
        let event_id = match kind.event_id {
            EventId::Random => Uuid::new_v4(),
            EventId::Nil => Uuid::nil(),
        };
        json!({
            "event_id": event_id.to_string(),
            "event_type": kind.envelope_type,
            "event_timestamp": format!("2026-03-01T09:30:00.{:06}Z", self.number),
            "source_service": self.source,
            "schema_version": 1,
            "correlation_id": self.correlation.to_string(),
            "data_schema_uri": null,
            "data": {
                "entity_id": self.aggregate_id(kind.aggregate),
                "number": self.number,
                "score": 0.75,
                "text": "Größe: \"C:\\temp\"\n\u{1F600} </script>\u{7}",
                "topic": "a field of the event's own",
                "list": [1, [], {}, null, true],
            },
            "metadata": self.metadata(kind),
        })
    }

    fn metadata(&self, kind: &EventKind) -> Value {
        let mut metadata = json!({"user_id": "teacher-1", "org_id": null});
        if kind.key == Key::Partition {
            metadata["partition_key"] = json!(self.aggregate_id(kind.aggregate));
        } else if self.number.is_multiple_of(4) {
            return Value::Null;
        }
        if self.number.is_multiple_of(2) {
            let parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
            metadata["traceparent"] = json!(parent);
        }
        metadata
    }
}
