//! How a change to many rows is told: what it found, how far it is, what it did. Pure, but for the
//! progress on stderr.

use std::io::{self, IsTerminal, Write};

use serde::Serialize;

use super::text::thousands;

/// How many rows of a dry run are listed.
pub(super) const SHOWN: usize = 20;

/// A verb in the forms that its messages need.
pub(super) struct Verb {
    pub(super) infinitive: &'static str,
    pub(super) done: &'static str,
    /// What it is done to, one and many.
    pub(super) noun: &'static str,
    pub(super) nouns: &'static str,
}

impl Verb {
    /// `1 row`, `1,234 rows`.
    pub(super) fn many(&self, number: u64) -> String {
        format!(
            "{} {}",
            thousands(number),
            if number == 1 { self.noun } else { self.nouns }
        )
    }
}

/// What a change did.
#[derive(Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Changed {
    pub(super) action: &'static str,
    pub(super) dry_run: bool,
    /// What the conditions held for.
    pub(super) matched: u64,
    /// What was changed; the others were gone or had changed meanwhile.
    pub(super) done: u64,
}

impl Changed {
    pub(super) fn new(verb: &Verb, matched: usize) -> Self {
        Self {
            action: verb.infinitive,
            dry_run: false,
            matched: u64::try_from(matched).unwrap_or(u64::MAX),
            done: 0,
        }
    }

    pub(super) fn in_words(&self, verb: &Verb) -> String {
        if self.dry_run {
            return format!("would {} {}\n", verb.infinitive, verb.many(self.matched));
        }
        let gone = match self.matched - self.done {
            0 => String::new(),
            gone => format!("; {} had gone or changed meanwhile", thousands(gone)),
        };
        format!("{} {}{gone}\n", verb.done, verb.many(self.done))
    }
}

/// Tells how far a long work is: on a terminal in one line, else in a line each.
pub(super) fn progress(verb: &Verb, done: u64, of: u64) {
    let mut stderr = io::stderr();
    let text = format!("{} {} of {}", verb.done, thousands(done), verb.many(of));
    let told = match (stderr.is_terminal(), done >= of) {
        (true, false) => write!(stderr, "\r{text}").and_then(|()| stderr.flush()),
        (true, true) => writeln!(stderr, "\r{text}"),
        (false, _) => writeln!(stderr, "{text}"),
    };
    // Nobody is left to tell when stderr is closed.
    drop(told);
}

#[cfg(test)]
mod tests {
    use super::*;

    const VERB: Verb = Verb {
        infinitive: "requeue",
        done: "requeued",
        noun: "dead letter",
        nouns: "dead letters",
    };

    #[test]
    fn words_say_what_was_done_and_what_had_gone() {
        let told = |dry_run, matched, done| {
            Changed {
                action: "requeue",
                dry_run,
                matched,
                done,
            }
            .in_words(&VERB)
        };
        assert_eq!(told(true, 1, 0), "would requeue 1 dead letter\n");
        assert_eq!(told(false, 1234, 1234), "requeued 1,234 dead letters\n");
        assert_eq!(
            told(false, 3, 1),
            "requeued 1 dead letter; 2 had gone or changed meanwhile\n"
        );
    }
}
