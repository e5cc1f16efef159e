//! Contents of secret files at one moment, to use them and to compare them. Pure.

use std::{collections::BTreeMap, fmt, io, sync::Arc};

use secrecy::{ExposeSecret, SecretSlice};

use crate::{secrets::ReadResult, settings::SecretFile};

/// Contents of a set of secret files. Two snapshots are equal if all files have the same location
/// and the same content, or fail with the same kind of error.
#[derive(Clone, PartialEq, Eq)]
pub struct SecretSnapshot(Arc<BTreeMap<SecretFile, FileState>>);

#[derive(PartialEq, Eq)]
struct FileState {
    /// Location in words, for problems.
    location: String,
    /// Content; `None` if the file does not exist.
    content: Result<Option<Content>, io::ErrorKind>,
}

impl FileState {
    fn new(location: String, content: ReadResult) -> Self {
        let content = content.map_err(|error| error.kind());
        Self {
            location,
            content: content.map(|bytes| bytes.map(Content::new)),
        }
    }

    fn read(&self) -> ReadResult {
        match &self.content {
            Ok(content) => Ok(content.as_ref().map(Content::to_vec)),
            Err(kind) => Err((*kind).into()),
        }
    }
}

struct Content(SecretSlice<u8>);

impl Content {
    fn new(bytes: Vec<u8>) -> Self {
        Self(bytes.into())
    }

    fn to_vec(&self) -> Vec<u8> {
        self.0.expose_secret().to_vec()
    }
}

impl PartialEq for Content {
    fn eq(&self, other: &Self) -> bool {
        self.0.expose_secret() == other.0.expose_secret()
    }
}

impl Eq for Content {}

impl FromIterator<(SecretFile, String, ReadResult)> for SecretSnapshot {
    fn from_iter<T: IntoIterator<Item = (SecretFile, String, ReadResult)>>(files: T) -> Self {
        let mut states = BTreeMap::new();
        for (file, location, content) in files {
            states.insert(file, FileState::new(location, content));
        }
        Self(Arc::new(states))
    }
}

impl SecretSnapshot {
    /// Content of a file; `None` if the file does not exist, or is not part of the snapshot.
    ///
    /// # Errors
    /// If the file could not be read when the snapshot was taken.
    pub(super) fn read(&self, file: SecretFile) -> ReadResult {
        self.0.get(&file).map_or(Ok(None), FileState::read)
    }

    /// Location of a file in words, for problems.
    pub(super) fn location(&self, file: SecretFile) -> String {
        self.0.get(&file).map_or_else(
            || format!("secret file '{}'", file.path()),
            |state| state.location.clone(),
        )
    }

    /// First file that exists in `self` and not in `later`.
    pub(super) fn first_missing_in(&self, later: &Self) -> Option<SecretFile> {
        let mut files = self.0.keys().copied();
        files.find(|file| self.has(*file) && !later.has(*file))
    }

    fn has(&self, file: SecretFile) -> bool {
        let state = self.0.get(&file);
        state.is_some_and(|state| matches!(state.content, Ok(Some(_))))
    }
}

impl fmt::Debug for SecretSnapshot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretSnapshot(..)")
    }
}
