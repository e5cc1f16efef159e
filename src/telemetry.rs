//! Logs of both binaries: text for people, JSON for machines. An error is logged once, with all its
//! sources. The environment is read in `bin/` only.

use std::{error::Error, io::IsTerminal, iter::successors};

use tracing_subscriber::{EnvFilter, fmt};

/// Format of log lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum LogFormat {
    /// Text on a terminal, otherwise JSON.
    Auto,
    /// Text for people.
    Text,
    /// One JSON object a line.
    Json,
}

/// The log filter cannot be parsed.
#[derive(Debug, thiserror::Error)]
#[error(
    "'{filter}' is not a log filter: use levels or module=level pairs, separated by commas, such \
     as info,outbox_relay=debug"
)]
pub struct InvalidFilter {
    filter: String,
    #[source]
    source: tracing_subscriber::filter::ParseError,
}

/// Starts logging to stderr. A second call in the same process changes nothing.
///
/// # Errors
/// If the filter cannot be parsed.
pub fn init(format: LogFormat, filter: &str) -> Result<(), InvalidFilter> {
    // Notices of PostgreSQL can quote rows, which must not be logged.
    let parsed = EnvFilter::try_new(format!("{filter},sqlx::postgres::notice=off"));
    let filter = parsed.map_err(|source| InvalidFilter {
        filter: filter.to_owned(),
        source,
    })?;
    // Escape sequences for colours are for terminals only: a file or a pod's log would keep them.
    let lines = fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal());
    let started = match format {
        LogFormat::Json => lines.json().flatten_event(true).try_init(),
        LogFormat::Auto if !std::io::stderr().is_terminal() => {
            lines.json().flatten_event(true).try_init()
        }
        LogFormat::Auto | LogFormat::Text => lines.with_target(false).try_init(),
    };
    // Tests share one process, in which the first one has started logging.
    drop(started);
    Ok(())
}

/// Text of an error with all its sources, outermost first, separated by colons.
#[must_use]
pub fn chain(error: &dyn Error) -> String {
    let errors = successors(Some(error), |&error| error.source());
    errors
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join(": ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("cannot settle")]
    struct Outer(#[source] std::io::Error);

    #[test]
    fn a_chain_reads_from_the_outside_in() {
        let error = Outer(std::io::Error::other("disk full"));
        assert_eq!(chain(&error), "cannot settle: disk full");
    }

    #[test]
    fn a_filter_that_is_none_is_refused() {
        assert!(init(LogFormat::Text, "info,=,=").is_err());
    }
}
