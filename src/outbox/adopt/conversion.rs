//! Adopted table -> SQL expressions for the columns of `event`, from its preset and its own
//! expressions. Pure.

use std::collections::BTreeMap;

use crate::settings::{AdoptExpressions, AdoptPreset, AdoptSettings};

/// The nil UUID as a SQL literal. An event class of an essay service has it as the id of all its
/// events.
const NIL: &str = "'00000000-0000-0000-0000-000000000000'";

/// Column of `event` that an expression fills.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum EventColumn {
    Payload,
    Headers,
    Topic,
    EventKey,
    EventId,
    AggregateType,
    AggregateId,
    EventType,
    CreatedAt,
}

impl EventColumn {
    /// All columns, in the order in which they are evaluated.
    pub(super) const ALL: [Self; 9] = [
        Self::Payload,
        Self::Headers,
        Self::Topic,
        Self::EventKey,
        Self::EventId,
        Self::AggregateType,
        Self::AggregateId,
        Self::EventType,
        Self::CreatedAt,
    ];

    /// Name of the column.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Payload => "payload",
            Self::Headers => "headers",
            Self::Topic => "topic",
            Self::EventKey => "event_key",
            Self::EventId => "event_id",
            Self::AggregateType => "aggregate_type",
            Self::AggregateId => "aggregate_id",
            Self::EventType => "event_type",
            Self::CreatedAt => "created_at",
        }
    }

    /// Type of the column.
    pub(super) fn sql_type(self) -> &'static str {
        match self {
            Self::Payload => "bytea",
            Self::Headers => "jsonb",
            Self::EventId => "uuid",
            Self::CreatedAt => "timestamptz",
            Self::Topic
            | Self::EventKey
            | Self::AggregateType
            | Self::AggregateId
            | Self::EventType => "text",
        }
    }

    /// The expression that a manifest gives for the column.
    fn own(self, expressions: &AdoptExpressions) -> Option<&String> {
        match self {
            Self::Payload => expressions.payload.as_ref(),
            Self::Headers => expressions.headers.as_ref(),
            Self::Topic => expressions.topic.as_ref(),
            Self::EventKey => expressions.event_key.as_ref(),
            Self::EventId => expressions.event_id.as_ref(),
            Self::AggregateType => expressions.aggregate_type.as_ref(),
            Self::AggregateId => expressions.aggregate_id.as_ref(),
            Self::EventType => expressions.event_type.as_ref(),
            Self::CreatedAt => expressions.created_at.as_ref(),
        }
    }
}

/// Whether an event may have no payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NullPayload {
    /// A row without a payload becomes a tombstone.
    Tombstone,
    /// A row without a payload is put aside.
    Refused,
}

/// One way to convert a row of a table into a row of `event`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Conversion {
    /// Expressions over the row `r`. A column without one gets its default.
    pub(super) expressions: BTreeMap<EventColumn, String>,
    /// What the expressions of a preset share, as joins after `r`.
    pub(super) lateral: String,
}

impl Conversion {
    fn new(expressions: &[(EventColumn, &str)], lateral: &str) -> Self {
        let owned = expressions
            .iter()
            .map(|(column, text)| (*column, (*text).to_owned()));
        Self {
            expressions: owned.collect(),
            lateral: lateral.replace("@nil@", NIL),
        }
    }

    /// The joins that the expression for a column needs: none if it uses only the row.
    pub(super) fn lateral_of(&self, column: EventColumn) -> &str {
        match uses_envelope(&self.expressions[&column]) {
            true => &self.lateral,
            false => "",
        }
    }

    fn with_own(mut self, expressions: &AdoptExpressions) -> Self {
        for column in EventColumn::ALL {
            if let Some(own) = column.own(expressions) {
                self.expressions.insert(column, own.clone());
            }
        }
        self
    }
}

/// How rows of an adopted table become rows of `event`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Conversions {
    pub(super) main: Conversion,
    /// What is tried for a row that `main` fails for: it is published whole.
    pub(super) fallback: Option<Conversion>,
    pub(super) null_payload: NullPayload,
    /// Condition for waiting rows that the old worker has given up.
    pub(super) exhausted: Option<&'static str>,
    /// Columns that the preset needs.
    pub(super) needs: &'static [&'static str],
}

impl Conversions {
    /// Collects the expressions of an adopted table with these columns.
    pub(super) fn new(settings: &AdoptSettings, columns: &[String]) -> Self {
        let mut all = match settings.preset {
            Some(AdoptPreset::EventOutbox) => event_outbox(columns),
            Some(AdoptPreset::Debezium) => debezium(),
            None => own_only(),
        };
        let own = &settings.expressions;
        all.main = all.main.with_own(own);
        // A row is not published whole when the manifest wants something from its envelope.
        let needs_envelope = EventColumn::ALL
            .iter()
            .filter_map(|column| column.own(own))
            .any(|expression| uses_envelope(expression));
        all.fallback = all
            .fallback
            .filter(|_| !needs_envelope)
            .map(|fallback| fallback.with_own(own));
        all
    }
}

/// Whether an expression uses the joins of preset EventOutbox: the names of all their columns begin
/// with this word.
fn uses_envelope(expression: &str) -> bool {
    expression.to_ascii_lowercase().contains("envelope")
}

fn own_only() -> Conversions {
    Conversions {
        main: Conversion::new(&[], ""),
        fallback: None,
        null_payload: NullPayload::Tombstone,
        exhausted: None,
        needs: &[],
    }
}

/// Debezium's outbox event router: columns by their default names. Rows are routed by their types.
fn debezium() -> Conversions {
    let expressions = [
        (EventColumn::Payload, "r.payload"),
        (EventColumn::EventId, "r.id"),
        (EventColumn::AggregateType, "r.aggregatetype"),
        (EventColumn::AggregateId, "r.aggregateid"),
        (EventColumn::EventType, "r.type"),
    ];
    Conversions {
        main: Conversion::new(&expressions, ""),
        needs: &["id", "aggregatetype", "aggregateid", "type", "payload"],
        ..own_only()
    }
}

/// Table `event_outbox`: the value is the envelope without the fields `topic` and `headers`, which
/// its library adds to it. Older tables have no column `topic`.
fn event_outbox(columns: &[String]) -> Conversions {
    let has = |name: &str| columns.iter().any(|column| column == name);
    let topic = if has("topic") {
        "coalesce(r.topic, envelope ->> 'topic')"
    } else {
        "envelope ->> 'topic'"
    };
    let common = [
        (EventColumn::EventKey, "r.event_key"),
        (EventColumn::AggregateType, "r.aggregate_type"),
        (EventColumn::AggregateId, "r.aggregate_id"),
        (EventColumn::CreatedAt, "r.created_at"),
    ];
    let taken_apart = [
        (
            EventColumn::Payload,
            include_str!("../sql/adopt/envelope_payload.sql"),
        ),
        (
            EventColumn::Headers,
            include_str!("../sql/adopt/envelope_headers.sql"),
        ),
        (EventColumn::Topic, topic),
        (EventColumn::EventId, "envelope_event_id"),
        (
            EventColumn::EventType,
            "coalesce(envelope ->> 'event_type', r.event_type)",
        ),
    ];
    let whole = [
        (EventColumn::Payload, "r.event_data::text"),
        (
            EventColumn::Headers,
            "jsonb_build_object('content_type', 'application/json', 'event_id', r.id::text, \
             'event_type', r.event_type)",
        ),
        (EventColumn::Topic, "r.topic"),
        (EventColumn::EventId, "r.id"),
        (EventColumn::EventType, "r.event_type"),
    ];
    let lateral = include_str!("../sql/adopt/envelope.sql");
    Conversions {
        main: Conversion::new(&[&common[..], &taken_apart].concat(), lateral),
        fallback: has("topic").then(|| Conversion::new(&[&common[..], &whole].concat(), "")),
        null_payload: NullPayload::Refused,
        exhausted: has("retry_count").then_some("r.retry_count >= 5"),
        needs: &[
            "id",
            "aggregate_id",
            "aggregate_type",
            "event_type",
            "event_data",
            "event_key",
            "created_at",
        ],
    }
}
