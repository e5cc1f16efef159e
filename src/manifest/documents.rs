//! YAML text -> the one `OutboxRelay` and the data of `Secret`s and `ConfigMap`s beside it. Pure.

use std::collections::BTreeMap;

use k8s_openapi::ByteString;
use serde::{Deserialize, de::DeserializeOwned};
use serde_yaml::Value;

use crate::{
    api::OutboxRelay,
    manifest::{ManifestError, unknown_fields},
    secrets::EmbeddedData,
};

/// What is in a manifest.
pub(super) struct Parsed {
    /// Which document the relay is, from 1.
    pub(super) document: usize,
    pub(super) relay: OutboxRelay,
    pub(super) documents: EmbeddedData,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct SecretDocument {
    metadata: Metadata,
    #[serde(default)]
    data: BTreeMap<String, ByteString>,
    #[serde(default)]
    string_data: BTreeMap<String, String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ConfigMapDocument {
    metadata: Metadata,
    #[serde(default)]
    data: BTreeMap<String, String>,
    #[serde(default)]
    binary_data: BTreeMap<String, ByteString>,
}

#[derive(Deserialize)]
struct Metadata {
    name: String,
    namespace: Option<String>,
}

type Data = BTreeMap<String, Vec<u8>>;

/// Documents of other kinds may stand in the same file and are passed over; so are Secrets of
/// another namespace than the relay's.
pub(super) fn parse(text: &str) -> Result<Parsed, ManifestError> {
    let mut relay = None;
    let (mut secrets, mut config_maps) = (Vec::new(), Vec::new());
    for (document, value) in values(text)? {
        match kind(&value) {
            "OutboxRelay" => {
                if let Some((first, _)) = relay {
                    return Err(ManifestError::SeveralRelays {
                        first,
                        second: document,
                    });
                }
                relay = Some((document, read_relay(document, value)?));
            }
            "Secret" => secrets.push(secret(read(
                "Secret",
                document,
                value,
                ParserMessage::Hidden,
            )?)),
            "ConfigMap" => config_maps.push(config_map(read(
                "ConfigMap",
                document,
                value,
                ParserMessage::Hidden,
            )?)),
            _ => {}
        }
    }
    let (document, relay) = relay.ok_or(ManifestError::NoRelay)?;
    let ours =
        |other: &Metadata| other.namespace.is_none() || other.namespace == relay.metadata.namespace;
    let mut documents = EmbeddedData::default();
    secrets
        .into_iter()
        .filter(|(of, _)| ours(of))
        .for_each(|(of, data)| documents.add_secret(of.name, data));
    config_maps
        .into_iter()
        .filter(|(of, _)| ours(of))
        .for_each(|(of, data)| documents.add_config_map(of.name, data));
    Ok(Parsed {
        document,
        relay,
        documents,
    })
}

/// Documents by number, without empty ones.
fn values(text: &str) -> Result<Vec<(usize, Value)>, ManifestError> {
    let mut all = Vec::new();
    for (index, document) in serde_yaml::Deserializer::from_str(text).enumerate() {
        let number = index + 1;
        match Value::deserialize(document).and_then(merged) {
            Ok(Value::Null) => {}
            Ok(value) => all.push((number, value)),
            // Only the place: the reason can quote the text, and that can be a Secret.
            Err(error) => {
                return Err(ManifestError::Yaml {
                    document: number,
                    reason: location(&error),
                });
            }
        }
    }
    Ok(all)
}

/// Merge keys (`<<: *anchor`) are resolved by kubectl, so they are here.
fn merged(mut value: Value) -> Result<Value, serde_yaml::Error> {
    value.apply_merge()?;
    Ok(value)
}

fn location(error: &serde_yaml::Error) -> String {
    match error.location() {
        Some(location) => format!(
            "look at line {}, column {}",
            location.line(),
            location.column()
        ),
        None => "look at its quotes, brackets and merge keys".to_owned(),
    }
}

fn kind(value: &Value) -> &str {
    value
        .get("kind")
        .and_then(Value::as_str)
        .unwrap_or_default()
}

fn read_relay(document: usize, value: Value) -> Result<OutboxRelay, ManifestError> {
    let version = value
        .get("apiVersion")
        .and_then(Value::as_str)
        .unwrap_or_default();
    if version != "outboxrelay.dev/v1alpha1" {
        return Err(ManifestError::Version {
            document,
            found: version.to_owned(),
        });
    }
    if let Some((field, reason)) = unknown_fields::first(&value) {
        return Err(ManifestError::Field {
            document,
            kind: "OutboxRelay",
            field,
            reason,
        });
    }
    let relay: OutboxRelay = read("OutboxRelay", document, value, ParserMessage::Shown)?;
    if relay.metadata.name.as_deref().is_some_and(is_valid_name) {
        return Ok(relay);
    }
    let reason = "must be at most 46 characters, start with a letter, and hold only a-z, 0-9 and -"
        .to_owned();
    Err(ManifestError::Field {
        document,
        kind: "OutboxRelay",
        field: "metadata.name".to_owned(),
        reason,
    })
}

fn is_valid_name(name: &str) -> bool {
    let inner = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    name.len() <= 46
        && name.starts_with(|c: char| c.is_ascii_lowercase())
        && name.chars().all(inner)
        && !name.ends_with('-')
}

/// Whether the reader's own words may be shown: they can quote the value.
#[derive(Clone, Copy)]
enum ParserMessage {
    Shown,
    Hidden,
}

fn read<T: DeserializeOwned>(
    kind: &'static str,
    document: usize,
    value: Value,
    reason: ParserMessage,
) -> Result<T, ManifestError> {
    serde_path_to_error::deserialize(value).map_err(|error| {
        let field = match error.path().to_string() {
            path if path == "." => "the document".to_owned(),
            path => path,
        };
        let reason = match reason {
            ParserMessage::Shown => error.into_inner().to_string(),
            ParserMessage::Hidden => {
                "cannot be read: names and texts stand in quotes, data is base64".to_owned()
            }
        };
        ManifestError::Field {
            document,
            kind,
            field,
            reason,
        }
    })
}

/// As in the API, `stringData` wins.
fn secret(document: SecretDocument) -> (Metadata, Data) {
    let mut data: Data = document
        .data
        .into_iter()
        .map(|(key, bytes)| (key, bytes.0))
        .collect();
    data.extend(
        document
            .string_data
            .into_iter()
            .map(|(key, text)| (key, text.into_bytes())),
    );
    (document.metadata, data)
}

fn config_map(document: ConfigMapDocument) -> (Metadata, Data) {
    let mut data: Data = document
        .binary_data
        .into_iter()
        .map(|(key, bytes)| (key, bytes.0))
        .collect();
    data.extend(
        document
            .data
            .into_iter()
            .map(|(key, text)| (key, text.into_bytes())),
    );
    (document.metadata, data)
}
