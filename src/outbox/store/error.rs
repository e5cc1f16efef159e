//! Errors of the relay's and the administrator's statements. Pure.

use crate::{
    outbox::{error::DatabaseError, row::DecodeError, store::operation::Operation},
    report::{Problem, ProblemClass},
};

/// A statement failed, or its answer could not be decoded.
#[derive(Debug, thiserror::Error)]
#[error("failed to {operation}")]
pub struct StoreError {
    pub operation: Operation,
    #[source]
    pub source: StoreErrorSource,
}

/// Cause of a [`StoreError`].
#[derive(Debug, thiserror::Error)]
pub enum StoreErrorSource {
    #[error(transparent)]
    Database(DatabaseError),
    #[error(transparent)]
    Decode(#[from] DecodeError),
}

impl From<sqlx::Error> for StoreErrorSource {
    fn from(error: sqlx::Error) -> Self {
        Self::Database(error.into())
    }
}

impl StoreError {
    /// Converts the error for a report: a class and a sentence.
    #[must_use]
    pub fn problem(&self) -> Problem {
        Problem::new(self.source.class(), format!("{self}: {}", self.source))
    }
}

impl StoreErrorSource {
    fn class(&self) -> ProblemClass {
        match self {
            Self::Database(error) => error.class,
            Self::Decode(_) => ProblemClass::DatabaseError,
        }
    }
}

/// Returns a function that adds the operation to an error, for `map_err`.
pub(in crate::outbox) fn failed<E: Into<StoreErrorSource>>(
    operation: Operation,
) -> impl FnOnce(E) -> StoreError {
    move |error| StoreError {
        operation,
        source: error.into(),
    }
}
