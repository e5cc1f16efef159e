//! Asking for confirmation before something is changed. Reading the answer is IO.

use std::io::{self, BufRead, IsTerminal, Write, stderr, stdin};

use crate::cli::{CliError, args::ConfirmArgs, note};

/// Whether the user wants the change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    Yes,
    No,
}

/// Asks the user, unless `--yes` is set. Without a terminal the answer is no. After a no, the user
/// has read on stderr that nothing was done.
///
/// # Errors
/// Returns an error when the terminal cannot be read or written.
pub(super) fn confirm(arguments: &ConfirmArgs, question: &str) -> Result<Answer, CliError> {
    if arguments.yes {
        Ok(Answer::Yes)
    } else if stdin().is_terminal() {
        ask(question)
    } else {
        Ok(refuse_without_terminal(question))
    }
}

/// Asks on the terminal. After a no, the user has read that nothing was done.
fn ask(question: &str) -> Result<Answer, CliError> {
    let line = prompt(question).map_err(CliError::Ask)?;
    let answer = parse(&line);
    if answer == Answer::No {
        note("nothing was done");
    }
    Ok(answer)
}

fn refuse_without_terminal(question: &str) -> Answer {
    note(&format!(
        "{question} Nothing was done, because there is no terminal to confirm at. Use --yes to \
         confirm, or --dry-run to see what would change."
    ));
    Answer::No
}

fn prompt(question: &str) -> io::Result<String> {
    write!(stderr(), "{question} [y/N] ")?;
    stderr().flush()?;
    read_line()
}

fn read_line() -> io::Result<String> {
    let mut line = String::new();
    stdin().lock().read_line(&mut line)?;
    Ok(line)
}

/// Anything but an explicit yes is a no.
fn parse(line: &str) -> Answer {
    match line.trim().to_ascii_lowercase().as_str() {
        "y" | "yes" => Answer::Yes,
        _ => Answer::No,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_explicit_yes_is_a_yes() {
        for line in ["y\n", "Yes", " YES \r\n"] {
            assert_eq!(parse(line), Answer::Yes, "{line:?}");
        }
        for line in ["", "\n", "n", "yeah", "no", "y n"] {
            assert_eq!(parse(line), Answer::No, "{line:?}");
        }
    }
}
