//! Asking before something is changed. Reading the answer is IO.

use std::io::{self, BufRead, IsTerminal, Write};

use super::{CliError, Exit, args::Asking, note};

/// Whether to go on: `Ok(())`, or how the command ends.
pub(super) fn confirm(asking: &Asking, question: &str) -> Result<Result<(), Exit>, CliError> {
    if asking.yes {
        return Ok(Ok(()));
    }
    if !io::stdin().is_terminal() {
        note(&format!(
            "{question} There is no terminal to ask at: nothing was done. --yes does it, \
             --dry-run shows it."
        ));
        return Ok(Err(Exit::Refused));
    }
    let answer = ask(question).map_err(CliError::Ask)?;
    if agreed(&answer) {
        return Ok(Ok(()));
    }
    note("nothing was done");
    Ok(Err(Exit::Refused))
}

fn ask(question: &str) -> io::Result<String> {
    write!(io::stderr(), "{question} [y/N] ")?;
    io::stderr().flush()?;
    let mut answer = String::new();
    io::stdin().lock().read_line(&mut answer)?;
    Ok(answer)
}

/// Only a clear yes is one.
fn agreed(answer: &str) -> bool {
    matches!(answer.trim().to_ascii_lowercase().as_str(), "y" | "yes")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_clear_yes_is_one() {
        assert!(["y\n", "Yes", " YES \r\n"].into_iter().all(agreed));
        assert!(!["", "\n", "n", "yeah", "no", "y n"].into_iter().any(agreed));
    }
}
