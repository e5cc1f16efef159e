//! Who is measured: the relay, what the machine could do at best, and what others use.

use clap::ValueEnum;

/// Something that carries rows of a table to Kafka.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Contender {
    Relay,
    /// Reads, sends and deletes, and nothing else.
    BareLoop,
    /// Debezium's PostgreSQL connector with its outbox event router, in Kafka Connect.
    Debezium,
    /// The worker that most teams write.
    Poller,
}

impl Contender {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Relay => "relay",
            Self::BareLoop => "bare loop",
            Self::Debezium => "Debezium",
            Self::Poller => "polling worker",
        }
    }

    /// Its table, as transactions. The relay's comes with its migration, and the bare loop has the
    /// same.
    pub(crate) fn table(self) -> &'static [&'static str] {
        match self {
            Self::Relay | Self::BareLoop => &[],
            // As its documentation has it; the payload as text, which its router passes on as it
            // is.
            Self::Debezium => &[
                "create table outboxevent (id uuid primary key default gen_random_uuid(), aggregatetype varchar(255) not null,
                   aggregateid varchar(255) not null, type varchar(255) not null, payload text);
                 create publication dbz for table outboxevent",
                "select pg_create_logical_replication_slot(current_database(), 'pgoutput')",
            ],
            Self::Poller => &["create table event_outbox (id uuid primary key default gen_random_uuid(), aggregate_type text not null,
                   event_key text not null, event_type text not null, topic text not null, payload text not null,
                   created_at timestamptz not null default clock_timestamp(), published_at timestamptz);
                 create index event_outbox_unpublished on event_outbox (created_at) where published_at is null"],
        }
    }

    /// Inserts `rows` (SQL that gives n): $1 the payload, $2 the topic.
    pub(crate) fn insert(self, rows: &str) -> String {
        match self {
            Self::Relay | Self::BareLoop => format!(
                "insert into outbox.event (aggregate_type, aggregate_id, event_type, topic, payload)
                 select 'bench', 'key-' || n % 10000, 'Benched', $2, convert_to($1, 'UTF8') from {rows} as n"
            ),
            // It goes to the topic that its settings name.
            Self::Debezium => format!(
                "insert into outboxevent (aggregatetype, aggregateid, type, payload)
                 select 'bench', 'key-' || n % 10000, 'Benched', $1 from {rows} as n where $2 <> ''"
            ),
            Self::Poller => format!(
                "insert into event_outbox (aggregate_type, event_key, event_type, topic, payload)
                 select 'bench', 'key-' || n % 10000, 'Benched', $2, $1 from {rows} as n"
            ),
        }
    }

    /// Seconds of load before its latency counts: a JVM needs its time, and gets it.
    pub(crate) fn warm_up_seconds(self) -> u64 {
        if self == Self::Debezium { 50 } else { 5 }
    }

    /// Of the rows of a backlog it gets this part: a slow one would take all day.
    pub(crate) fn share(self) -> u64 {
        if self == Self::Poller { 10 } else { 1 }
    }

    /// Whether it deletes what it has published, from the relay's table.
    pub(crate) fn deletes(self) -> bool {
        matches!(self, Self::Relay | Self::BareLoop)
    }
}
