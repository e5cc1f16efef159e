//! The command line of whoever is on call: how the outbox is doing, and what to do with rows that
//! were put aside. Arguments come in, text or JSON goes out; IO is thin, what is printed is made by
//! pure functions.

mod args;
mod change;
mod confirm;
mod letters;
mod owner;
mod parked;
mod status;
mod text;

use std::{
    io::{self, Write},
    process::ExitCode,
};

use serde::Serialize;

pub use args::{Command, DeadLetters, OwnerOf, Parked, Place};

use crate::{
    outbox::desk::{As, Desk, DeskError},
    report::Problem,
    secrets::Secrets,
    settings::RelaySettings,
    source::SourceError,
};
use args::Output;

/// How a command ended that did not fail. A wrong call is 2, as clap has it; a failure 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    Done,
    /// There was nothing that it could have been done to.
    NothingMatched,
    /// Nobody agreed to it.
    Refused,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(match exit {
            Exit::Done => 0,
            Exit::NothingMatched => 3,
            Exit::Refused => 4,
        })
    }
}

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
pub enum CliError {
    #[error("{0}")]
    Problem(ProblemText),
    #[error("cannot write the answer")]
    Write(#[source] io::Error),
    #[error("cannot ask for confirmation")]
    Ask(#[source] io::Error),
}

/// A problem in one line: its class, and what it says.
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

impl From<SourceError> for CliError {
    fn from(error: SourceError) -> Self {
        error.problem().into()
    }
}

impl From<DeskError> for CliError {
    fn from(error: DeskError) -> Self {
        error.problem().into()
    }
}

impl From<io::Error> for CliError {
    fn from(error: io::Error) -> Self {
        Self::Write(error)
    }
}

/// Does what was asked and writes the answer to `out`. Dropped mid-way, each batch of a long work
/// is done or not.
///
/// # Errors
/// When the settings cannot be read, the database fails, or the answer cannot be written.
pub async fn run(command: Command, out: &mut impl Write) -> Result<Exit, CliError> {
    let done = match command {
        Command::Status(arguments) => status::status(arguments, out).await,
        Command::DeadLetters { command } => letters::dead_letters(command, out).await,
        Command::Parked { command } => parked::parked(command, out).await,
        Command::Owner { command } => owner::owner(command, out).await,
    };
    match done {
        // Whoever read the answer has seen enough, as `head` does.
        Err(CliError::Write(error)) if error.kind() == io::ErrorKind::BrokenPipe => Ok(Exit::Done),
        done => done,
    }
}

/// Whose schema it is does not matter here: the owner's name is not compared.
fn load(place: Place) -> Result<(RelaySettings, Secrets), CliError> {
    Ok(place.source(String::new()).load()?)
}

async fn open(place: Place, who: As) -> Result<Desk, CliError> {
    let (settings, secrets) = load(place)?;
    Ok(Desk::open(&settings, &secrets, who).await?)
}

/// Writes the answer in the form that was asked for.
fn write<T: Serialize>(
    out: &mut impl Write,
    output: Output,
    answer: &T,
    as_text: impl FnOnce(&T) -> String,
) -> io::Result<()> {
    let text = match output {
        Output::Table => as_text(answer),
        Output::Json => text::json(answer),
    };
    out.write_all(text.as_bytes())
}

/// A remark beside the answer. Nobody is left to tell when stderr is closed.
fn note(text: &str) {
    drop(writeln!(io::stderr(), "{text}"));
}
