//! Text of a settings file -> settings that can work. An error contains the field, the type of its
//! value and what belongs there, but never the value itself. Pure.

use std::collections::BTreeSet;

use crate::{
    api::address::HostPort,
    settings::{KafkaSettings, RelaySettings, TopicSettings, first_property_error},
};

/// Why settings cannot be read, or cannot work.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidSettings {
    /// The text is not YAML at `location`.
    #[error("it is not YAML: {location}")]
    Yaml { location: String },
    /// A field is missing, unknown, or has a value that cannot be used.
    #[error("{field}: {reason}")]
    Field { field: String, reason: String },
}

impl RelaySettings {
    /// Reads settings from YAML, as the operator writes them.
    ///
    /// # Errors
    /// If the text is not YAML, or a field is missing, unknown, or has a value that cannot work.
    pub fn read(text: &str) -> Result<Self, InvalidSettings> {
        let settings = Self::parse(text)?;
        match settings.unusable() {
            None => Ok(settings),
            Some(unusable) => Err(unusable_error(unusable)),
        }
    }

    /// Reads settings whose values have the right types, but perhaps cannot work.
    fn parse(text: &str) -> Result<Self, InvalidSettings> {
        let value: serde_yaml::Value =
            serde_yaml::from_str(text).map_err(|error| yaml_error(&error))?;
        serde_path_to_error::deserialize(value).map_err(field_error)
    }

    /// First field whose value has the right type, but cannot work, with the reason. These rules
    /// are weaker than those of a manifest.
    fn unusable(&self) -> Option<Unusable> {
        zero("database.maxConnections", self.database.max_connections)
            .or_else(|| self.kafka.unusable())
            .or_else(|| self.unusable_topics())
            .or_else(|| zero("batchSize", self.batch_size))
            .or_else(|| zero("pollIntervalMs", self.poll_interval_ms))
    }

    fn unusable_topics(&self) -> Option<Unusable> {
        let reason = broken_topic_rule(&self.topics)?;
        Some(("topics", reason))
    }
}

/// A field, and why its value cannot work.
type Unusable = (&'static str, &'static str);

/// The field, if its number is 0.
fn zero(field: &'static str, number: impl Into<u64>) -> Option<Unusable> {
    (number.into() == 0).then_some((field, "must be at least 1"))
}

fn unusable_error((field, reason): Unusable) -> InvalidSettings {
    InvalidSettings::Field {
        field: field.to_owned(),
        reason: reason.to_owned(),
    }
}

impl KafkaSettings {
    fn unusable(&self) -> Option<Unusable> {
        if let Some(reason) = broken_server_rule(&self.bootstrap_servers) {
            return Some(("kafka.bootstrapServers", reason));
        }
        let reason = first_property_error(&self.properties)?;
        Some(("kafka.properties", reason))
    }
}

fn broken_server_rule(servers: &[String]) -> Option<&'static str> {
    if servers.is_empty() {
        return Some("must contain at least one host:port");
    }
    let is_wrong = |server: &String| server.parse::<HostPort>().is_err();
    servers
        .iter()
        .any(is_wrong)
        .then_some("contains a text that is not host:port, with a port from 1 to 65535")
}

fn broken_topic_rule(topics: &[TopicSettings]) -> Option<&'static str> {
    if topics.is_empty() {
        return Some("must contain at least one topic");
    }
    if !topics.iter().all(|topic| is_topic_name(&topic.name)) {
        return Some(
            "contain a name that Kafka does not accept: use 1 to 249 characters of a-z, A-Z, 0-9, \
             ., _ and -",
        );
    }
    if has_duplicates(topics.iter().map(|topic| &topic.name)) {
        return Some("contain a topic twice");
    }
    if has_duplicates(topics.iter().flat_map(|topic| &topic.event_types)) {
        return Some("route an event type twice");
    }
    has_duplicates(topics.iter().flat_map(|topic| &topic.aggregate_types))
        .then_some("route an aggregate type twice")
}

fn has_duplicates<'a>(names: impl Iterator<Item = &'a String>) -> bool {
    let mut seen = BTreeSet::new();
    names.into_iter().any(|name| !seen.insert(name))
}

/// Whether Kafka accepts `name` as a topic. The check of column `topic` has the same rule.
fn is_topic_name(name: &str) -> bool {
    (1..=249).contains(&name.len())
        && name.chars().all(can_be_in_topic_name)
        && !matches!(name, "." | "..")
}

fn can_be_in_topic_name(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-')
}

fn yaml_error(error: &serde_yaml::Error) -> InvalidSettings {
    InvalidSettings::Yaml {
        location: error_location(error),
    }
}

/// Where YAML cannot be parsed. The parser's own message is left out, because it quotes the text.
fn error_location(error: &serde_yaml::Error) -> String {
    match error.location() {
        Some(location) => format!(
            "check line {}, column {}",
            location.line(),
            location.column()
        ),
        None => "check its quotes and brackets".to_owned(),
    }
}

fn field_error(error: serde_path_to_error::Error<serde_yaml::Error>) -> InvalidSettings {
    InvalidSettings::Field {
        field: field_name(error.path()),
        reason: reason(&error.into_inner().to_string()),
    }
}

fn field_name(path: &serde_path_to_error::Path) -> String {
    match path.to_string() {
        path if path == "." => "the file".to_owned(),
        path => path,
    }
}

/// Reason from a message of serde, without the value that the message quotes. The text after
/// `expected` is safe: it comes from our own types.
fn reason(message: &str) -> String {
    if let Some((start, expected)) = message.rsplit_once(", expected ") {
        let found = start.strip_prefix("invalid type: ");
        if let Some(found) = found.or_else(|| start.strip_prefix("invalid value: ")) {
            return format!("is {}, must be {expected}", kind(found));
        }
        if start.starts_with("unknown variant `") {
            return format!("has an unknown value, must be {expected}");
        }
    }
    if message.starts_with("missing field `") || message.starts_with("unknown field `") {
        return message.to_owned();
    }
    match message.rsplit_once("' is not a valid schema name: ") {
        Some((_, rule)) => format!("is not a valid schema name: {rule}"),
        None => "cannot be read".to_owned(),
    }
}

/// How serde's messages begin that describe a value, and the types of these values.
const KINDS: &[(&str, &str)] = &[
    ("string", "a text"),
    ("integer", "a whole number"),
    ("floating point", "a number with a fraction"),
    ("boolean", "true or false"),
    ("unit", "empty"),
    ("null", "empty"),
    ("sequence", "a list"),
    ("map", "a set of fields"),
];

/// Type of the value that serde found, without the value: `string "abc"` -> "a text".
fn kind(found: &str) -> &'static str {
    KINDS
        .iter()
        .find(|(start, _)| found.starts_with(start))
        .map_or("something else", |(_, kind)| kind)
}

#[cfg(test)]
mod tests;
