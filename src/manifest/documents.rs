//! YAML text -> its only `OutboxRelay`, and the data of its `Secret`s and `ConfigMap`s. Pure.

use std::collections::BTreeMap;

use k8s_openapi::ByteString;
use serde::{Deserialize, de::DeserializeOwned};
use serde_yaml::Value;

use crate::{
    api::OutboxRelay,
    manifest::{ManifestError, unknown_fields},
    secrets::{DataByKey, EmbeddedData},
};

/// Content of a manifest file.
pub(super) struct Parsed {
    /// Number of the document that holds the relay, from 1.
    pub(super) document: usize,
    /// The only relay in the file.
    pub(super) relay: OutboxRelay,
    /// Data of Secrets and ConfigMaps in the namespace of the relay.
    pub(super) embedded: EmbeddedData,
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

/// Parses a manifest file. Documents of other kinds are ignored, and so are Secrets and ConfigMaps
/// in another namespace than the relay's.
///
/// # Errors
/// If a document cannot be read, or the file does not contain exactly one `OutboxRelay`.
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
            kind @ "Secret" => secrets.push(read(kind, document, value, ParserMessage::Hidden)?),
            kind @ "ConfigMap" => {
                config_maps.push(read(kind, document, value, ParserMessage::Hidden)?);
            }
            _ => {}
        }
    }
    let (document, relay) = relay.ok_or(ManifestError::NoRelay)?;
    let embedded = embedded_data(&relay, secrets, config_maps);
    Ok(Parsed {
        document,
        relay,
        embedded,
    })
}

/// Data of the Secrets and ConfigMaps that are in the relay's namespace, or in none.
fn embedded_data(
    relay: &OutboxRelay,
    secrets: Vec<SecretDocument>,
    config_maps: Vec<ConfigMapDocument>,
) -> EmbeddedData {
    let is_near = |object: &Metadata| {
        object.namespace.is_none() || object.namespace == relay.metadata.namespace
    };
    let mut embedded = EmbeddedData::default();
    for secret in secrets {
        if is_near(&secret.metadata) {
            embedded.add_secret(secret.metadata.name.clone(), secret.into_data());
        }
    }
    for config_map in config_maps {
        if is_near(&config_map.metadata) {
            embedded.add_config_map(config_map.metadata.name.clone(), config_map.into_data());
        }
    }
    embedded
}

/// Documents with their numbers from 1, without empty ones.
fn values(text: &str) -> Result<Vec<(usize, Value)>, ManifestError> {
    let mut all = Vec::new();
    for (index, document) in serde_yaml::Deserializer::from_str(text).enumerate() {
        let number = index + 1;
        match Value::deserialize(document).and_then(with_merge_keys_applied) {
            Ok(Value::Null) => {}
            Ok(value) => all.push((number, value)),
            // Only the location: the parser's message can quote the text, which can be a Secret.
            Err(error) => {
                return Err(ManifestError::Yaml {
                    document: number,
                    reason: error_location(&error),
                });
            }
        }
    }
    Ok(all)
}

/// Applies merge keys (`<<: *anchor`), as kubectl does.
fn with_merge_keys_applied(mut value: Value) -> Result<Value, serde_yaml::Error> {
    value.apply_merge()?;
    Ok(value)
}

fn error_location(error: &serde_yaml::Error) -> String {
    match error.location() {
        Some(location) => format!(
            "check line {}, column {}",
            location.line(),
            location.column()
        ),
        None => "check its quotes, brackets and merge keys".to_owned(),
    }
}

/// Value of `kind`, as one of the kinds that a manifest can contain.
fn kind(value: &Value) -> &'static str {
    let kind = value.get("kind").and_then(Value::as_str);
    let mut known = ["OutboxRelay", "Secret", "ConfigMap"].into_iter();
    known.find(|known| kind == Some(*known)).unwrap_or_default()
}

/// Reads the document of an `OutboxRelay`, and checks what an API server would check: version,
/// unknown fields and name.
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

/// Whether the parser's own message becomes part of the error.
#[derive(Clone, Copy)]
enum ParserMessage {
    /// The message is shown.
    Shown,
    /// The message is replaced, since it can quote a value of a Secret.
    Hidden,
}

fn read<T: DeserializeOwned>(
    kind: &'static str,
    document: usize,
    value: Value,
    parser_message: ParserMessage,
) -> Result<T, ManifestError> {
    serde_path_to_error::deserialize(value).map_err(|error| {
        let field = match error.path().to_string() {
            path if path == "." => "the document".to_owned(),
            path => path,
        };
        let reason = match parser_message {
            ParserMessage::Shown => error.into_inner().to_string(),
            ParserMessage::Hidden => {
                "cannot be read: put names and texts in quotes, and encode data as base64"
                    .to_owned()
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

impl SecretDocument {
    /// Data by key. As in the API, `stringData` overrides `data`.
    fn into_data(self) -> DataByKey {
        let mut data = bytes(self.data);
        for (key, text) in self.string_data {
            data.insert(key, text.into_bytes());
        }
        data
    }
}

impl ConfigMapDocument {
    /// Data by key. The API rejects a key that is in both `data` and `binaryData`; here `data`
    /// wins.
    fn into_data(self) -> DataByKey {
        let mut data = bytes(self.binary_data);
        for (key, text) in self.data {
            data.insert(key, text.into_bytes());
        }
        data
    }
}

fn bytes(data: BTreeMap<String, ByteString>) -> DataByKey {
    data.into_iter()
        .map(|(key, bytes)| (key, bytes.0))
        .collect()
}
