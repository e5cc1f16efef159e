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
    /// The relay's document as JSON, as an API server would get it.
    pub(super) manifest: serde_json::Value,
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
    Documents::from_text(text)?.into_parsed()
}

/// Documents of a file that were read so far.
#[derive(Default)]
struct Documents {
    /// The relay, with the number of its document.
    relay: Option<(usize, OutboxRelay, serde_json::Value)>,
    secrets: Vec<SecretDocument>,
    config_maps: Vec<ConfigMapDocument>,
}

impl Documents {
    fn from_text(text: &str) -> Result<Self, ManifestError> {
        let mut documents = Self::default();
        for (document, value) in values(text)? {
            documents.add(document, value)?;
        }
        Ok(documents)
    }

    fn into_parsed(self) -> Result<Parsed, ManifestError> {
        let (document, relay, manifest) = self.relay.ok_or(ManifestError::NoRelay)?;
        Ok(Parsed {
            document,
            embedded: embedded_data(&relay, self.secrets, self.config_maps),
            relay,
            manifest,
        })
    }

    fn add(&mut self, document: usize, value: Value) -> Result<(), ManifestError> {
        let hidden = ParserMessage::Hidden;
        match kind(&value) {
            "OutboxRelay" => self.add_relay(document, value)?,
            kind @ "Secret" => self.secrets.push(read(kind, document, value, hidden)?),
            kind @ "ConfigMap" => self.config_maps.push(read(kind, document, value, hidden)?),
            _ => {}
        }
        Ok(())
    }

    fn add_relay(&mut self, document: usize, value: Value) -> Result<(), ManifestError> {
        self.refuse_second_relay(document)?;
        let manifest = as_json(document, &value)?;
        self.relay = Some((document, read_relay(document, value)?, manifest));
        Ok(())
    }

    fn refuse_second_relay(&self, second: usize) -> Result<(), ManifestError> {
        if let Some((first, ..)) = self.relay {
            return Err(ManifestError::SeveralRelays { first, second });
        }
        Ok(())
    }
}

/// Data of the Secrets and ConfigMaps that are in the relay's namespace, or in none.
fn embedded_data(
    relay: &OutboxRelay,
    secrets: Vec<SecretDocument>,
    config_maps: Vec<ConfigMapDocument>,
) -> EmbeddedData {
    let mut embedded = EmbeddedData::default();
    for secret in secrets {
        if secret.metadata.is_near(relay) {
            embedded.add_secret(secret.metadata.name.clone(), secret.into_data());
        }
    }
    for config_map in config_maps {
        if config_map.metadata.is_near(relay) {
            embedded.add_config_map(config_map.metadata.name.clone(), config_map.into_data());
        }
    }
    embedded
}

impl Metadata {
    fn is_near(&self, relay: &OutboxRelay) -> bool {
        self.namespace.is_none() || self.namespace == relay.metadata.namespace
    }
}

/// Documents with their numbers from 1, without empty ones.
fn values(text: &str) -> Result<Vec<(usize, Value)>, ManifestError> {
    let mut all = Vec::new();
    for (index, yaml) in serde_yaml::Deserializer::from_str(text).enumerate() {
        let document = index + 1;
        let value = Value::deserialize(yaml)
            .and_then(with_merge_keys_applied)
            .map_err(|error| ManifestError::Yaml {
                document,
                // Not the parser's message: it can quote the text, which can be a Secret.
                reason: error_location(&error),
            })?;
        if value != Value::Null {
            all.push((document, value));
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

/// Kinds of documents that are read; others are ignored.
const KINDS: [&str; 3] = ["OutboxRelay", "Secret", "ConfigMap"];

/// Value of `kind`, as one of [`KINDS`]; empty if it is none of them.
fn kind(value: &Value) -> &'static str {
    let found = value.get("kind").and_then(Value::as_str);
    KINDS
        .into_iter()
        .find(|kind| found == Some(*kind))
        .unwrap_or_default()
}

/// Reads the document of an `OutboxRelay`, and checks what an API server would check: version,
/// unknown fields and name.
fn read_relay(document: usize, value: Value) -> Result<OutboxRelay, ManifestError> {
    check_version(document, &value)?;
    check_fields(document, &value)?;
    with_valid_name(
        document,
        read("OutboxRelay", document, value, ParserMessage::Shown)?,
    )
}

fn check_version(document: usize, value: &Value) -> Result<(), ManifestError> {
    let found = api_version(value);
    if found == "outboxrelay.dev/v1alpha1" {
        Ok(())
    } else {
        Err(ManifestError::Version { document, found })
    }
}

fn api_version(value: &Value) -> String {
    let version = value.get("apiVersion").and_then(Value::as_str);
    version.unwrap_or_default().to_owned()
}

/// The document as JSON. Some YAML has no such form, and no API server would get it.
fn as_json(document: usize, value: &Value) -> Result<serde_json::Value, ManifestError> {
    serde_json::to_value(value).map_err(|_| {
        relay_error(
            document,
            "the document",
            "has a name of a field that is not text: put it in quotes",
        )
    })
}

/// Checks that the CRD's schema has all fields of the document.
fn check_fields(document: usize, value: &Value) -> Result<(), ManifestError> {
    match unknown_fields::first(value) {
        Some((field, reason)) => Err(relay_error(document, field, reason)),
        None => Ok(()),
    }
}

fn with_valid_name(document: usize, relay: OutboxRelay) -> Result<OutboxRelay, ManifestError> {
    if relay.metadata.name.as_deref().is_some_and(is_valid_name) {
        return Ok(relay);
    }
    Err(relay_error(document, "metadata.name", NAME_RULE))
}

/// Error in a field of an `OutboxRelay`.
fn relay_error(
    document: usize,
    field: impl Into<String>,
    reason: impl Into<String>,
) -> ManifestError {
    ManifestError::Field {
        document,
        kind: "OutboxRelay",
        field: field.into(),
        reason: reason.into(),
    }
}

/// Rule of [`is_valid_name`], for errors.
const NAME_RULE: &str =
    "must be at most 46 characters, start with a letter, and hold only a-z, 0-9 and -";

fn is_valid_name(name: &str) -> bool {
    name.len() <= 46
        && name.starts_with(|c: char| c.is_ascii_lowercase())
        && name.chars().all(can_be_in_name)
        && !name.ends_with('-')
}

fn can_be_in_name(c: char) -> bool {
    c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-'
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
        ManifestError::Field {
            document,
            kind,
            field,
            reason: parser_message.reason(&error.into_inner()),
        }
    })
}

impl ParserMessage {
    fn reason(self, error: &serde_yaml::Error) -> String {
        match self {
            Self::Shown => error.to_string(),
            Self::Hidden => {
                "cannot be read: put names and texts in quotes, and encode data as base64"
                    .to_owned()
            }
        }
    }
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
