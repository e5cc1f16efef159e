//! Secret files as they were at one moment: what is in use, and what is compared with it. Pure.

use std::{collections::BTreeMap, fmt, io, sync::Arc};

use secrecy::{ExposeSecret, SecretSlice};

use crate::settings::SecretFile;

/// Contents of a set of files; two are equal when nobody could tell them apart.
#[derive(Clone, PartialEq, Eq)]
pub struct SecretSnapshot(Arc<BTreeMap<SecretFile, FileState>>);

#[derive(PartialEq, Eq)]
struct FileState {
    /// How a person would name it.
    location: String,
    content: Result<Option<Content>, io::ErrorKind>,
}

struct Content(SecretSlice<u8>);

impl PartialEq for Content {
    fn eq(&self, other: &Self) -> bool {
        self.0.expose_secret() == other.0.expose_secret()
    }
}

impl Eq for Content {}

impl FromIterator<(SecretFile, String, io::Result<Option<Vec<u8>>>)> for SecretSnapshot {
    fn from_iter<T: IntoIterator<Item = (SecretFile, String, io::Result<Option<Vec<u8>>>)>>(
        files: T,
    ) -> Self {
        let found = |(file, location, content): (_, _, io::Result<Option<Vec<u8>>>)| {
            let content = content
                .map(|bytes| bytes.map(|bytes| Content(bytes.into())))
                .map_err(|error| error.kind());
            (file, FileState { location, content })
        };
        Self(Arc::new(files.into_iter().map(found).collect()))
    }
}

impl SecretSnapshot {
    pub(super) fn read(&self, file: SecretFile) -> io::Result<Option<Vec<u8>>> {
        match self.0.get(&file).map(|found| &found.content) {
            None | Some(Ok(None)) => Ok(None),
            Some(Ok(Some(content))) => Ok(Some(content.0.expose_secret().to_vec())),
            Some(Err(kind)) => Err((*kind).into()),
        }
    }

    pub(super) fn location(&self, file: SecretFile) -> String {
        self.0.get(&file).map_or_else(
            || format!("secret file '{}'", file.path()),
            |found| found.location.clone(),
        )
    }

    /// The first file that `self` has and `later` lacks.
    pub(super) fn first_missing_in(&self, later: &Self) -> Option<SecretFile> {
        let has = |snapshot: &Self, file| {
            matches!(
                snapshot.0.get(&file),
                Some(FileState {
                    content: Ok(Some(_)),
                    ..
                })
            )
        };
        self.0
            .keys()
            .copied()
            .find(|file| has(self, *file) && !has(later, *file))
    }
}

impl fmt::Debug for SecretSnapshot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretSnapshot(..)")
    }
}
