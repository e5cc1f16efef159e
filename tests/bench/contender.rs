//! The programs that are measured: the relay, the bare loop, Debezium, a polling worker.

use clap::ValueEnum;

/// SQL of the topic of row n.
const TOPIC: &str = "($2::text[])[(1 + n % cardinality($2::text[]))::int]";

/// A program that publishes rows of a table to Kafka.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Contender {
    Relay,
    /// A loop that only reads, sends and deletes.
    BareLoop,
    /// Debezium's PostgreSQL connector with its outbox event router, in Kafka Connect.
    Debezium,
    /// A worker that polls a table, as many teams write it.
    Poller,
}

impl Contender {
    /// Name in the results.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Relay => "relay",
            Self::BareLoop => "bare loop",
            Self::Debezium => "Debezium",
            Self::Poller => "polling worker",
        }
    }

    /// SQL that creates its table, one element per transaction. Empty for the relay, whose
    /// migration creates it, and for the bare loop, which uses that table too.
    pub(crate) fn table(self) -> &'static [&'static str] {
        match self {
            Self::Relay | Self::BareLoop => &[],
            // As in its documentation. The payload is text, which its router passes on unchanged.
            Self::Debezium => &[
                "create table outboxevent (id uuid primary key default gen_random_uuid(),
                   aggregatetype varchar(255) not null, aggregateid varchar(255) not null,
                   type varchar(255) not null, payload text);
                 create publication dbz for table outboxevent",
                "select pg_create_logical_replication_slot(current_database(), 'pgoutput')",
            ],
            Self::Poller => &[
                "create table event_outbox (id uuid primary key default gen_random_uuid(),
                   aggregate_type text not null, event_key text not null, event_type text not null,
                   topic text not null, payload text not null,
                   created_at timestamptz not null default clock_timestamp(),
                   published_at timestamptz);
                 create index event_outbox_unpublished on event_outbox (created_at)
                   where published_at is null",
            ],
        }
    }

    /// SQL that inserts `rows`, which is SQL that returns n. $1 is the payload, $2 the topics.
    pub(crate) fn insert(self, rows: &str) -> String {
        match self {
            Self::Relay | Self::BareLoop => format!(
                "insert into outbox.event (aggregate_type, aggregate_id, event_type, topic, payload)
                 select 'bench', 'key-' || n % 10000, 'Benched', {TOPIC}, convert_to($1, 'UTF8')
                 from {rows} as n"
            ),
            // Debezium's router publishes to the topic that the aggregate's type names.
            Self::Debezium => format!(
                "insert into outboxevent (aggregatetype, aggregateid, type, payload)
                 select {TOPIC}, 'key-' || n % 10000, 'Benched', $1 from {rows} as n"
            ),
            Self::Poller => format!(
                "insert into event_outbox (aggregate_type, event_key, event_type, topic, payload)
                 select 'bench', 'key-' || n % 10000, 'Benched', {TOPIC}, $1 from {rows} as n"
            ),
        }
    }

    /// Seconds of load before its latency is measured. A JVM needs more time to warm up.
    pub(crate) fn warm_up_seconds(self) -> u64 {
        if self == Self::Debezium { 50 } else { 5 }
    }

    /// Divisor for the rows of its backlog: a slow program gets fewer rows.
    pub(crate) fn share(self) -> u64 {
        if self == Self::Poller { 10 } else { 1 }
    }

    /// Whether it deletes published rows from the relay's table.
    pub(crate) fn deletes(self) -> bool {
        matches!(self, Self::Relay | Self::BareLoop)
    }
}
