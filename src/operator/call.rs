//! Every request to the API server: under a timeout, and its failure sorted into the three classes
//! that decide when to try again.

use std::time::Duration;

use kube::core::Status;
use tokio::time::{error::Elapsed, timeout};

/// Time limit for one answer. The client itself does not retry: the object's own back-off does.
const CALL_TIMEOUT: Duration = Duration::from_secs(10);

/// Why a request brought no result.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CallError {
    #[error("no answer from the API server within {}s", CALL_TIMEOUT.as_secs())]
    Timeout,
    #[error("the API server answered: {}", .0.message)]
    Refused(#[source] Box<Status>),
    #[error("the request to the API server failed")]
    Broken(#[source] kube::Error),
}

/// When trying again can help.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ErrorClass {
    /// Somebody else wrote at the same time: at once.
    Conflict,
    /// Later, with growing pauses.
    Transient,
    /// Only after the manifest, a right or a quota has changed.
    Permanent,
}

impl ErrorClass {
    /// Returns the class as a label of metrics.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Conflict => "conflict",
            Self::Transient => "transient",
            Self::Permanent => "permanent",
        }
    }

    /// Returns when another attempt can help after a refusal with this status code.
    fn of_status(code: u16) -> Self {
        match code {
            409 => Self::Conflict,
            400 | 401 | 403 | 404 | 422 => Self::Permanent,
            _ => Self::Transient,
        }
    }
}

impl CallError {
    /// Returns when another attempt can help.
    pub(crate) fn class(&self) -> ErrorClass {
        match self {
            Self::Refused(status) => ErrorClass::of_status(status.code),
            Self::Timeout | Self::Broken(_) => ErrorClass::Transient,
        }
    }

    /// Returns whether somebody else wrote first.
    pub(crate) fn is_lost_race(&self) -> bool {
        self.class() == ErrorClass::Conflict
    }

    /// Returns the pause that a busy API server asked for.
    pub(crate) fn retry_after(&self) -> Option<Duration> {
        let seconds = self.refusal()?.details.as_ref()?.retry_after_seconds;
        (seconds > 0).then(|| Duration::from_secs(seconds.into()))
    }

    /// Returns the API server's answer if it refused the request.
    fn refusal(&self) -> Option<&Status> {
        match self {
            Self::Refused(status) => Some(status),
            Self::Timeout | Self::Broken(_) => None,
        }
    }

    /// Returns the API server's message if it refuses the object itself. It is for the author of
    /// the manifest.
    pub(crate) fn invalid_object(&self) -> Option<&str> {
        let refusal = self.refusal()?;
        matches!(refusal.code, 400 | 422).then_some(&refusal.message)
    }
}

impl From<Elapsed> for CallError {
    fn from(_: Elapsed) -> Self {
        Self::Timeout
    }
}

impl From<kube::Error> for CallError {
    fn from(error: kube::Error) -> Self {
        match error {
            kube::Error::Api(status) => Self::Refused(status),
            other => Self::Broken(other),
        }
    }
}

/// Waits for one request, at most [`CALL_TIMEOUT`].
///
/// # Errors
/// When the API server refuses the request or does not answer in time.
///
/// # Cancel safety
/// If dropped, the request is dropped too; the server may still have carried it out.
pub(crate) async fn call<T>(
    request: impl Future<Output = kube::Result<T>>,
) -> Result<T, CallError> {
    Ok(timeout(CALL_TIMEOUT, request).await??)
}

/// Waits for one request that may find nothing, at most [`CALL_TIMEOUT`]. The status code decides:
/// the answer for a kind that does not exist has no reason.
///
/// # Errors
/// When the API server refuses the request, but for 404, or does not answer in time.
///
/// # Cancel safety
/// If dropped, the request is dropped too; the server may still have carried it out.
pub(crate) async fn call_opt<T>(
    request: impl Future<Output = kube::Result<T>>,
) -> Result<Option<T>, CallError> {
    match call(request).await {
        Err(CallError::Refused(status)) if status.code == 404 => Ok(None),
        other => other.map(Some),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(code: u16) -> CallError {
        CallError::Refused(Box::new(Status {
            code,
            ..Status::default()
        }))
    }

    #[test]
    fn a_lost_race_is_tried_again_at_once_and_a_missing_right_is_not() {
        assert_eq!(refused(409).class(), ErrorClass::Conflict);
        assert_eq!(refused(403).class(), ErrorClass::Permanent);
        assert_eq!(refused(422).class(), ErrorClass::Permanent);
        assert_eq!(refused(429).class(), ErrorClass::Transient);
        assert_eq!(refused(500).class(), ErrorClass::Transient);
        assert_eq!(CallError::Timeout.class(), ErrorClass::Transient);
    }

    #[tokio::test(start_paused = true)]
    async fn a_silent_api_server_is_given_up_after_a_time() {
        let silence = std::future::pending::<kube::Result<()>>();
        assert!(matches!(call(silence).await, Err(CallError::Timeout)));
    }
}
