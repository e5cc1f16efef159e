//! Manifest -> settings. The only place where code validates a spec, for two reasons: some rules
//! cannot be expressed in the CRD's schema, and no API server checks a manifest of
//! `run --manifest`. Pure.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::RangeInclusive,
    time::Duration,
};

use crate::{
    api::{
        AdoptExpressions, AdoptPreset, AdoptedTable, Breaker, CertificateSource, Database,
        DatabaseConnection, Kafka, OutboxRelaySpec, ParseDurationError, Tls, TlsMode, Topic,
        address::{Host, HostPort, InvalidAddress},
        parse_duration,
    },
    settings::{
        AdoptSettings, BreakerSettings, DatabaseSettings, Endpoint, InvalidOwner,
        InvalidSchemaName, KafkaSettings, MigrationDatabase, MigrationSettings, Owner,
        RelaySettings, SaslMechanism, SaslSettings, SchemaName, TlsSettings, TopicSettings,
        first_property_error,
    },
};

/// Why a spec cannot work. The text contains the field, what is wrong with it, and what to write
/// instead.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidSpec {
    /// The schema name is not valid.
    #[error("spec.database.schema: {0}")]
    Schema(InvalidSchemaName),
    /// A duration cannot be parsed.
    #[error("{field}: {error}")]
    Duration {
        field: &'static str,
        error: ParseDurationError,
    },
    /// `pollInterval` is out of range.
    #[error("spec.pollInterval: must be between 5ms and 10s")]
    PollIntervalRange,
    /// `slowAfter` or `openAfter` is out of range, or they are not in order.
    #[error(
        "spec.breaker: slowAfter must be at least 100ms and less than openAfter, openAfter at \
         most 10m"
    )]
    BreakerOrder,
    /// `maxBackoff` is out of range.
    #[error("spec.breaker.maxBackoff: must be between 1s and 10m")]
    BackoffRange,
    /// Neither the fields of a URL nor those of a host are set completely, or both are.
    #[error("{field}: set either urlSecretRef, or host with name and credentialsSecretRef")]
    Endpoint { field: &'static str },
    /// A number is out of range.
    #[error("{field}: must be between {min} and {max}, is {value}")]
    Range {
        field: &'static str,
        min: i32,
        max: i32,
        value: i32,
    },
    /// `takeOverFrom` is not the name of an owner.
    #[error("spec.migration.takeOverFrom: {0}")]
    TakeOverFrom(InvalidOwner),
    /// An entry of `adopt` cannot work.
    #[error("spec.migration.adopt, table '{table}': {reason}")]
    Adopt { table: String, reason: &'static str },
    /// A host cannot be one.
    #[error("{field}.host: '{host}' {error}")]
    Host {
        field: &'static str,
        host: String,
        error: InvalidAddress,
    },
    /// An entry of the bootstrap servers is no address.
    #[error("spec.kafka.bootstrapServers: '{address}' {error}")]
    BootstrapServer {
        address: String,
        error: InvalidAddress,
    },
    /// The list of bootstrap servers is empty.
    #[error("spec.kafka.bootstrapServers: add at least one host:port")]
    NoBootstrapServer,
    /// A librdkafka property is not allowed, or has a value that is not.
    #[error("spec.kafka.properties: {0}")]
    KafkaProperty(&'static str),
    /// TLS is disabled, but certificates are set.
    #[error(
        "{field}: ca and clientCertSecretRef have no effect with mode disable; remove them or set \
         mode verify-full"
    )]
    TlsDisabled { field: &'static str },
    /// TLS verifies nothing, but a CA is set.
    #[error("{field}: ca has no effect with mode require; remove it or set mode verify-full")]
    TlsUnverified { field: &'static str },
    /// The source of a CA certificate is missing, or there are two.
    #[error("{field}.ca: set exactly one of secretRef and configMapRef")]
    CertificateSource { field: &'static str },
    /// SASL PLAIN would send the password unencrypted, or to a server that is not verified.
    #[error(
        "spec.kafka.sasl: PLAIN sends the password itself; set spec.kafka.tls.mode to verify-full"
    )]
    PlainWithoutTls,
    /// A field of `spec.scaling` is out of range.
    #[error(
        "spec.scaling: minReplicas and maxReplicas must be between 1 and 64, minReplicas must not \
         be more than maxReplicas, targetBacklogPerReplica must be at least 1, and \
         targetOldestAge at least 1s"
    )]
    Scaling,
    /// There is no topic, or there are more than 64.
    #[error("spec.topics: list 1 to 64 topics")]
    TopicCount,
    /// A topic is listed twice.
    #[error("spec.topics: topic '{0}' is listed twice; remove one")]
    TopicTwice(String),
    /// An event type or aggregate type is routed to two topics.
    #[error("spec.topics: {kind} '{name}' is routed to both '{first}' and '{second}'; keep one")]
    RoutedTwice {
        kind: &'static str,
        name: String,
        first: String,
        second: String,
    },
}

/// Values that `pollInterval` may have.
const POLL_INTERVAL_RANGE: RangeInclusive<Duration> =
    Duration::from_millis(5)..=Duration::from_secs(10);
/// Values that `retain` of an adopted table may have.
const RETAIN_RANGE: RangeInclusive<Duration> =
    Duration::from_hours(1)..=Duration::from_hours(87_600);
/// Smallest value of `breaker.slowAfter`.
const SLOW_AFTER_MIN: Duration = Duration::from_millis(100);
/// Largest value of `breaker.openAfter`.
const OPEN_AFTER_MAX: Duration = Duration::from_mins(10);
/// Values that `breaker.maxBackoff` may have.
const MAX_BACKOFF_RANGE: RangeInclusive<Duration> =
    Duration::from_secs(1)..=Duration::from_mins(10);
/// Number of topics that a manifest may declare.
const TOPIC_COUNT_RANGE: RangeInclusive<usize> = 1..=64;

impl RelaySettings {
    /// Validates a spec and builds the settings of its relays.
    ///
    /// # Errors
    /// If the spec cannot work: the first rule that it breaks.
    pub fn from_manifest(owner: Owner, spec: &OutboxRelaySpec) -> Result<Self, InvalidSpec> {
        let poll_interval = duration("spec.pollInterval", &spec.poll_interval)?;
        if !POLL_INTERVAL_RANGE.contains(&poll_interval) {
            return Err(InvalidSpec::PollIntervalRange);
        }
        Ok(Self {
            owner,
            database: database(&spec.database)?,
            migration: migration(spec)?,
            kafka: kafka(&spec.kafka)?,
            record_headers: spec.record_headers,
            topics: topics(&spec.topics)?,
            batch_size: in_range("spec.batchSize", spec.batch_size, 1, 10_000)?,
            poll_interval_ms: millis(poll_interval),
            breaker: breaker(&spec.breaker)?,
        })
    }
}

fn database(database: &Database) -> Result<DatabaseSettings, InvalidSpec> {
    Ok(DatabaseSettings {
        endpoint: endpoint(&database.connection(), "spec.database")?,
        tls: tls(&database.tls, "spec.database.tls")?,
        schema: SchemaName::try_from(database.schema.clone()).map_err(InvalidSpec::Schema)?,
        max_connections: in_range(
            "spec.database.maxConnections",
            database.max_connections,
            3,
            16,
        )?,
        pooler: database.pooler,
    })
}

fn duration(field: &'static str, text: &str) -> Result<Duration, InvalidSpec> {
    parse_duration(text).map_err(|error| InvalidSpec::Duration { field, error })
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

fn breaker(breaker: &Breaker) -> Result<BreakerSettings, InvalidSpec> {
    let slow_after = duration("spec.breaker.slowAfter", &breaker.slow_after)?;
    let open_after = duration("spec.breaker.openAfter", &breaker.open_after)?;
    let max_backoff = duration("spec.breaker.maxBackoff", &breaker.max_backoff)?;
    if slow_after < SLOW_AFTER_MIN || slow_after >= open_after || open_after > OPEN_AFTER_MAX {
        return Err(InvalidSpec::BreakerOrder);
    }
    if !MAX_BACKOFF_RANGE.contains(&max_backoff) {
        return Err(InvalidSpec::BackoffRange);
    }
    Ok(BreakerSettings {
        slow_after_ms: millis(slow_after),
        open_after_ms: millis(open_after),
        max_backoff_ms: millis(max_backoff),
    })
}

fn in_range(field: &'static str, value: i32, min: i32, max: i32) -> Result<u32, InvalidSpec> {
    match u32::try_from(value) {
        Ok(number) if (min..=max).contains(&value) => Ok(number),
        _ => Err(InvalidSpec::Range {
            field,
            min,
            max,
            value,
        }),
    }
}

/// Endpoint of a connection: a URL, or a host with a name and credentials, and nothing else.
fn endpoint(connection: &DatabaseConnection, field: &'static str) -> Result<Endpoint, InvalidSpec> {
    match (
        &connection.url_secret_ref,
        &connection.host,
        &connection.name,
        &connection.credentials_secret_ref,
    ) {
        (Some(_), None, None, None) => Ok(Endpoint::Url),
        (None, Some(host), Some(name), Some(_)) => Ok(Endpoint::Host {
            host: host_name(host, field)?,
            port: port(connection.port, field)?,
            name: name.clone(),
        }),
        _ => Err(InvalidSpec::Endpoint { field }),
    }
}

fn host_name(text: &str, field: &'static str) -> Result<String, InvalidSpec> {
    match text.parse::<Host>() {
        Ok(host) => Ok(host.as_str().to_owned()),
        Err(error) => Err(InvalidSpec::Host {
            field,
            host: text.to_owned(),
            error,
        }),
    }
}

fn port(value: i32, field: &'static str) -> Result<u16, InvalidSpec> {
    match u16::try_from(value) {
        Ok(port) if port > 0 => Ok(port),
        _ => Err(InvalidSpec::Range {
            field,
            min: 1,
            max: 65535,
            value,
        }),
    }
}

fn tls(tls: &Tls, field: &'static str) -> Result<TlsSettings, InvalidSpec> {
    let has_certificates = tls.ca.is_some() || tls.client_cert_secret_ref.is_some();
    if tls.mode == TlsMode::Disable && has_certificates {
        return Err(InvalidSpec::TlsDisabled { field });
    }
    if tls.mode == TlsMode::Require && tls.ca.is_some() {
        return Err(InvalidSpec::TlsUnverified { field });
    }
    if tls.ca.as_ref().is_some_and(|ca| !has_one_source(ca)) {
        return Err(InvalidSpec::CertificateSource { field });
    }
    Ok(TlsSettings {
        mode: tls.mode,
        ca: tls.ca.is_some(),
        client_certificate: tls.client_cert_secret_ref.is_some(),
    })
}

fn has_one_source(ca: &CertificateSource) -> bool {
    ca.secret_ref.is_some() != ca.config_map_ref.is_some()
}

fn migration(spec: &OutboxRelaySpec) -> Result<MigrationSettings, InvalidSpec> {
    let migration = &spec.migration;
    let database = migration.database.as_ref().map(migration_database);
    let take_over_from = migration.take_over_from.as_deref().map(str::parse);
    Ok(MigrationSettings {
        policy: migration.policy,
        database: database.transpose()?,
        producers: migration.grants.producers.clone(),
        relays: migration.grants.relays.clone(),
        take_over_from: take_over_from
            .transpose()
            .map_err(InvalidSpec::TakeOverFrom)?,
        adopt: adopt(&migration.adopt)?,
    })
}

fn adopt(tables: &[AdoptedTable]) -> Result<Vec<AdoptSettings>, InvalidSpec> {
    let mut names = BTreeSet::new();
    if let Some(twice) = tables.iter().find(|entry| !names.insert(&entry.table)) {
        return Err(invalid_adopt(twice, "it is listed twice; remove one entry"));
    }
    tables.iter().map(adopted_table).collect()
}

fn adopted_table(entry: &AdoptedTable) -> Result<AdoptSettings, InvalidSpec> {
    let names = entry
        .table
        .split_once('.')
        .filter(|(schema, table)| !schema.is_empty() && !table.is_empty() && !table.contains('.'));
    let Some((schema, table)) = names else {
        return Err(invalid_adopt(entry, "write it as schema.table"));
    };
    if entry.preset.is_none() && !has_required_expressions(&entry.expressions) {
        let reason = "without a preset, set expressions for payload, eventType, aggregateType and \
            aggregateId";
        return Err(invalid_adopt(entry, reason));
    }
    let published_column = entry.published_column.clone().or_else(|| {
        (entry.preset == Some(AdoptPreset::EventOutbox)).then(|| "published_at".to_owned())
    });
    Ok(AdoptSettings {
        schema: schema.to_owned(),
        table: table.to_owned(),
        preset: entry.preset,
        expressions: entry.expressions.clone(),
        retain_ms: retain_ms(entry, published_column.as_deref())?,
        published_column,
        exhausted: entry.exhausted,
        ordered: entry.ordered,
    })
}

fn has_required_expressions(expressions: &AdoptExpressions) -> bool {
    expressions.payload.is_some()
        && expressions.event_type.is_some()
        && expressions.aggregate_type.is_some()
        && expressions.aggregate_id.is_some()
}

/// Age in ms from which published rows are deleted.
fn retain_ms(
    entry: &AdoptedTable,
    published_column: Option<&str>,
) -> Result<Option<u64>, InvalidSpec> {
    let Some(retain) = &entry.retain else {
        return Ok(None);
    };
    let retain = duration("spec.migration.adopt.retain", retain)?;
    if !RETAIN_RANGE.contains(&retain) {
        return Err(invalid_adopt(entry, "retain must be between 1h and 87600h"));
    }
    if published_column.is_none() {
        let reason = "retain needs publishedColumn, the column with the time of publication";
        return Err(invalid_adopt(entry, reason));
    }
    Ok(Some(millis(retain)))
}

fn invalid_adopt(entry: &AdoptedTable, reason: &'static str) -> InvalidSpec {
    let table = entry.table.clone();
    InvalidSpec::Adopt { table, reason }
}

fn migration_database(database: &DatabaseConnection) -> Result<MigrationDatabase, InvalidSpec> {
    Ok(MigrationDatabase {
        endpoint: endpoint(database, "spec.migration.database")?,
        tls: tls(&database.tls, "spec.migration.database.tls")?,
    })
}

fn kafka(kafka: &Kafka) -> Result<KafkaSettings, InvalidSpec> {
    if kafka.bootstrap_servers.is_empty() {
        return Err(InvalidSpec::NoBootstrapServer);
    }
    check_properties(kafka)?;
    let sasl = kafka.sasl.as_ref().map(|sasl| SaslSettings {
        mechanism: sasl.mechanism,
        username: sasl.username.clone(),
    });
    let is_unverified = matches!(kafka.tls.mode, TlsMode::Disable | TlsMode::Require);
    if is_unverified && sasl.as_ref().is_some_and(sends_password) {
        return Err(InvalidSpec::PlainWithoutTls);
    }
    Ok(KafkaSettings {
        bootstrap_servers: bootstrap_servers(&kafka.bootstrap_servers)?,
        tls: tls(&kafka.tls, "spec.kafka.tls")?,
        sasl,
        properties: kafka.properties.clone(),
    })
}

fn bootstrap_servers(servers: &[String]) -> Result<Vec<String>, InvalidSpec> {
    let address = |text: &String| match text.parse::<HostPort>() {
        Ok(address) => Ok(address.to_string()),
        Err(error) => Err(InvalidSpec::BootstrapServer {
            address: text.clone(),
            error,
        }),
    };
    servers.iter().map(address).collect()
}

fn check_properties(kafka: &Kafka) -> Result<(), InvalidSpec> {
    match first_property_error(&kafka.properties) {
        Some(reason) => Err(InvalidSpec::KafkaProperty(reason)),
        None => Ok(()),
    }
}

/// Whether the mechanism sends the password itself, so that it needs TLS to a verified server.
fn sends_password(sasl: &SaslSettings) -> bool {
    sasl.mechanism == SaslMechanism::Plain
}

fn topics(topics: &[Topic]) -> Result<Vec<TopicSettings>, InvalidSpec> {
    check_topics(topics)?;
    Ok(topics.iter().map(topic_settings).collect())
}

fn check_topics(topics: &[Topic]) -> Result<(), InvalidSpec> {
    if !TOPIC_COUNT_RANGE.contains(&topics.len()) {
        return Err(InvalidSpec::TopicCount);
    }
    declared_once(topics)?;
    check_routes(topics)
}

/// Checks that each type is routed to one topic.
fn check_routes(topics: &[Topic]) -> Result<(), InvalidSpec> {
    routed_once("event type", topics, |topic| &topic.event_types)?;
    routed_once("aggregate type", topics, |topic| &topic.aggregate_types)
}

fn topic_settings(topic: &Topic) -> TopicSettings {
    TopicSettings {
        name: topic.name.clone(),
        event_types: topic.event_types.clone(),
        aggregate_types: topic.aggregate_types.clone(),
        on_poison: topic.on_poison,
    }
}

fn declared_once(topics: &[Topic]) -> Result<(), InvalidSpec> {
    match listed_twice(topics) {
        Some(name) => Err(InvalidSpec::TopicTwice(name.clone())),
        None => Ok(()),
    }
}

/// Name of the first topic that is also listed before.
fn listed_twice(topics: &[Topic]) -> Option<&String> {
    let mut listed = BTreeSet::new();
    topics
        .iter()
        .map(|topic| &topic.name)
        .find(|name| !listed.insert(*name))
}

/// Checks that no type is routed to two topics. `kind` is the word for the type in the error.
fn routed_once(
    kind: &'static str,
    topics: &[Topic],
    types: impl Fn(&Topic) -> &Vec<String>,
) -> Result<(), InvalidSpec> {
    let mut topic_of = BTreeMap::new();
    for topic in topics {
        for name in types(topic) {
            if let Some(first) = topic_of.insert(name, &topic.name) {
                return Err(InvalidSpec::RoutedTwice {
                    kind,
                    name: name.clone(),
                    first: first.clone(),
                    second: topic.name.clone(),
                });
            }
        }
    }
    Ok(())
}
