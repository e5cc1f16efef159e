//! Text of a settings file -> settings that can work. Whoever changed the file learns which field
//! is wrong, which kind of value it holds and what belongs there; the value itself is never told.
//! Pure.

use std::collections::BTreeSet;

use crate::settings::{RelaySettings, property_error};

/// Why a text is no settings: the field and what is wrong with it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidSettings {
    #[error("it is no YAML: {location}")]
    Yaml { location: String },
    #[error("{field}: {reason}")]
    Field { field: String, reason: String },
}

impl RelaySettings {
    /// Reads settings as the operator writes them.
    ///
    /// # Errors
    /// When the text is no YAML, or a field is missing, unknown, or holds what cannot work.
    pub fn read(text: &str) -> Result<Self, InvalidSettings> {
        let value: serde_yaml::Value =
            serde_yaml::from_str(text).map_err(|error| InvalidSettings::Yaml {
                location: location(&error),
            })?;
        let settings: Self = serde_path_to_error::deserialize(value).map_err(|error| {
            let field = match error.path().to_string() {
                path if path == "." => "the file".to_owned(),
                path => path,
            };
            InvalidSettings::Field {
                field,
                reason: reason(&error.into_inner().to_string()),
            }
        })?;
        match settings.unusable() {
            None => Ok(settings),
            Some((field, reason)) => Err(InvalidSettings::Field {
                field: field.to_owned(),
                reason: reason.to_owned(),
            }),
        }
    }

    /// The first field with a value of the right kind that no relay can work with. What a manifest
    /// may say is narrower.
    fn unusable(&self) -> Option<(&'static str, &'static str)> {
        let (database, kafka) = (&self.database, &self.kafka);
        let all: BTreeSet<_> = self.topics.iter().map(|topic| &topic.name).collect();
        let once = |types: fn(&crate::settings::TopicSettings) -> &Vec<String>| {
            let mut seen = BTreeSet::new();
            self.topics
                .iter()
                .flat_map(types)
                .all(|name| seen.insert(name))
        };
        let refused = kafka
            .properties
            .iter()
            .find_map(|(name, value)| property_error(name, value));
        let checks = [
            (
                database.max_connections == 0,
                "database.maxConnections",
                "must be at least 1",
            ),
            (
                kafka.bootstrap_servers.is_empty(),
                "kafka.bootstrapServers",
                "must name at least one host:port",
            ),
            (
                kafka.bootstrap_servers.iter().any(String::is_empty),
                "kafka.bootstrapServers",
                "holds an empty text, must be host:port",
            ),
            (
                refused.is_some(),
                "kafka.properties",
                refused.unwrap_or_default(),
            ),
            (
                self.topics.is_empty(),
                "topics",
                "must name at least one topic",
            ),
            (
                !all.iter().all(|name| is_topic_name(name)),
                "topics",
                "holds a name that is none of Kafka's: use 1 to 249 of a-z, A-Z, 0-9, ., _ and -",
            ),
            (
                all.len() < self.topics.len(),
                "topics",
                "name one topic twice",
            ),
            (
                !once(|topic| &topic.event_types),
                "topics",
                "route an event type twice",
            ),
            (
                !once(|topic| &topic.aggregate_types),
                "topics",
                "route an aggregate type twice",
            ),
            (self.batch_size == 0, "batchSize", "must be at least 1"),
            (
                self.poll_interval_ms == 0,
                "pollIntervalMs",
                "must be at least 1",
            ),
        ];
        checks
            .into_iter()
            .find(|(wrong, ..)| *wrong)
            .map(|(_, field, reason)| (field, reason))
    }
}

/// The same rule as the check of column `topic`.
fn is_topic_name(name: &str) -> bool {
    let letter = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    (1..=249).contains(&name.len()) && name.chars().all(letter) && name != "." && name != ".."
}

/// The reader's own words quote the text.
fn location(error: &serde_yaml::Error) -> String {
    match error.location() {
        Some(location) => format!(
            "look at line {}, column {}",
            location.line(),
            location.column()
        ),
        None => "look at its quotes and brackets".to_owned(),
    }
}

/// serde's words without the value that they quote. What it expected comes last, and is ours.
fn reason(words: &str) -> String {
    let expected = words
        .rsplit_once(", expected ")
        .map(|(_, expected)| expected);
    let found = words
        .strip_prefix("invalid type: ")
        .or_else(|| words.strip_prefix("invalid value: "));
    match (found, expected) {
        (Some(found), Some(expected)) => format!("is {}, must be {expected}", kind(found)),
        (None, Some(expected)) if words.starts_with("unknown variant `") => {
            format!("is none of what it may be: {expected}")
        }
        _ if words.starts_with("missing field `") || words.starts_with("unknown field `") => {
            words.to_owned()
        }
        _ => match words.rsplit_once("' is no schema name: ") {
            Some((_, rule)) => format!("is no schema name: {rule}"),
            None => "holds what cannot be read".to_owned(),
        },
    }
}

/// `string "abc"` -> "a text".
fn kind(found: &str) -> &'static str {
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
    KINDS
        .iter()
        .find(|(start, _)| found.starts_with(start))
        .map_or("something else", |(_, kind)| kind)
}

#[cfg(test)]
mod tests;
