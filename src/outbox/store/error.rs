//! What a statement of the relay failed with. Pure.

use crate::{
    outbox::{error::DatabaseFault, row::DecodeError},
    report::{Problem, ProblemClass},
};

/// A statement of the relay failed.
#[derive(Debug, thiserror::Error)]
#[error("failed to {operation}")]
pub struct StoreError {
    pub operation: &'static str,
    #[source]
    pub source: StoreErrorSource,
}

/// What was behind it.
#[derive(Debug, thiserror::Error)]
pub enum StoreErrorSource {
    #[error(transparent)]
    Database(DatabaseFault),
    #[error(transparent)]
    Decode(#[from] DecodeError),
}

impl From<sqlx::Error> for StoreErrorSource {
    fn from(error: sqlx::Error) -> Self {
        Self::Database(error.into())
    }
}

impl StoreError {
    /// As it goes into a report.
    #[must_use]
    pub fn problem(&self) -> Problem {
        match &self.source {
            StoreErrorSource::Database(fault) => {
                Problem::new(fault.class, format!("{self}: {fault}"))
            }
            StoreErrorSource::Decode(error) => {
                Problem::new(ProblemClass::DatabaseError, format!("{self}: {error}"))
            }
        }
    }
}

/// Makes a sqlx error one of `operation`.
pub(in crate::outbox) fn failed<E: Into<StoreErrorSource>>(
    operation: &'static str,
) -> impl FnOnce(E) -> StoreError {
    move |error| StoreError {
        operation,
        source: error.into(),
    }
}
