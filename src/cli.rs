//! Commands for people on call: the state of an outbox, dead letters, parked topics and keys, the
//! adoption of tables, and the owner of the schema. Arguments come in, text or JSON goes out. IO is
//! thin: the output is made by pure functions.

mod adopt;
mod args;
mod change;
mod change_log;
mod confirm;
mod dead_letters;
mod doctor;
mod event;
mod owner;
mod parked;
mod status;
mod text;

use std::{
    io::{self, Write},
    process::ExitCode,
};

use serde::Serialize;

pub use args::{Command, ConfigSource, DeadLettersCommand, OwnerCommand, ParkedCommand};

use crate::{
    outbox::admin::{AdminClient, AdminError, Role},
    report::Problem,
    secrets::Secrets,
    settings::{RelaySettings, source::SettingsSourceError},
};
use args::Output;
#[cfg(test)]
pub(crate) use text::json;

/// Result of a command that did not fail.
///
/// The exit code of a failed command is 1; that of a command line that clap refuses is 2.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// The command did what it was asked to do. Exit code 0.
    Done,
    /// Nothing matched the conditions. Exit code 3.
    NothingMatched,
    /// The user did not confirm the change. Exit code 4.
    Refused,
    /// A check found a fault. Exit code 1.
    FaultFound,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(match exit {
            Exit::Done => 0,
            Exit::NothingMatched => 3,
            Exit::Refused => 4,
            Exit::FaultFound => 1,
        })
    }
}

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
pub enum CliError {
    #[error("{0}")]
    Problem(ProblemText),
    #[error("cannot write the output")]
    Write(#[source] io::Error),
    #[error("cannot ask for confirmation")]
    Ask(#[source] io::Error),
}

/// A problem as one line: class and message.
#[derive(Debug)]
pub struct ProblemText(Problem);

impl std::fmt::Display for ProblemText {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.0.class, self.0.message)
    }
}

impl From<Problem> for CliError {
    fn from(problem: Problem) -> Self {
        Self::Problem(ProblemText(problem))
    }
}

impl From<SettingsSourceError> for CliError {
    fn from(error: SettingsSourceError) -> Self {
        error.problem().into()
    }
}

impl From<AdminError> for CliError {
    fn from(error: AdminError) -> Self {
        error.problem().into()
    }
}

impl From<io::Error> for CliError {
    fn from(error: io::Error) -> Self {
        Self::Write(error)
    }
}

/// Runs a command and writes its output to `out`.
///
/// # Errors
/// Returns an error when the settings cannot be read, the database fails, or the output cannot be
/// written.
///
/// # Cancel safety
/// If dropped midway, earlier batches of a change are done, and the current one may be.
pub async fn run(command: Command, out: &mut impl Write) -> Result<Exit, CliError> {
    let result = match command {
        Command::Status(arguments) => status::status(arguments, out).await,
        Command::Doctor(arguments) => doctor::doctor(arguments, out).await,
        Command::Event(arguments) => event::event(arguments, out).await,
        Command::DeadLetters { command } => dead_letters::dead_letters(command, out).await,
        Command::Parked { command } => parked::parked(command, out).await,
        Command::Adopt(arguments) => adopt::adopt(arguments, out).await,
        Command::Owner { command } => owner::owner(command, out).await,
    };
    match result {
        // A reader such as `head` has read enough and closed the pipe.
        Err(CliError::Write(error)) if error.kind() == io::ErrorKind::BrokenPipe => Ok(Exit::Done),
        result => result,
    }
}

/// Reads settings and secrets.
fn load(config: ConfigSource) -> Result<(RelaySettings, Secrets), CliError> {
    // These commands do not compare the owner's name, so its cluster does not matter.
    Ok(config.source(String::new()).load()?)
}

/// Reads settings and secrets and connects.
async fn open(config: ConfigSource, role: Role) -> Result<AdminClient, CliError> {
    let (settings, secrets) = load(config)?;
    Ok(AdminClient::open(&settings, &secrets, role).await?)
}

/// Cuts a list to `limit` entries. Prints a note when there were more.
fn truncate<T>(list: &mut Vec<T>, limit: u64) {
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    if list.len() > limit {
        list.truncate(limit);
        note("there are more: raise --limit to list them, or add conditions");
    }
}

/// Writes the output in the requested format.
fn write<T: Serialize>(
    out: &mut impl Write,
    output: Output,
    value: &T,
    as_text: impl FnOnce(&T) -> String,
) -> io::Result<()> {
    let text = match output {
        Output::Table => as_text(value),
        Output::Json => text::json(value),
    };
    out.write_all(text.as_bytes())
}

/// Prints a remark on stderr, beside the output on stdout.
fn note(text: &str) {
    // A closed stderr must not stop the command.
    drop(writeln!(io::stderr(), "{text}"));
}
