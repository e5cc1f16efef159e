//! `dead-letters list|show|requeue|discard`. Querying the database is IO, making the output is
//! pure.

use std::io::Write;

use crate::{
    cli::{
        CliError, Exit,
        args::{CommonArgs, DeadLettersCommand, ListArgs, Selector, ShowArgs},
        change::{self, Change, PREVIEW_MAX, Verb},
        change_log::LoggedRows,
        note, open,
        text::{fields, line, lines, table},
        truncate, write,
    },
    outbox::admin::{
        AdminClient, AdminError, Contents, DeadLetter, DeadLetterId, Detail, LabelSource, Role,
    },
};

const NOTHING_MATCHES: &str = "no dead letter matches";

#[derive(Clone, Copy)]
enum Action {
    Requeue,
    Discard,
}

impl Change for Action {
    type Item = DeadLetterId;

    const NOTHING_MATCHES: &'static str = NOTHING_MATCHES;

    fn verb(&self) -> Verb {
        let (infinitive, past) = match self {
            Self::Requeue => ("requeue", "requeued"),
            Self::Discard => ("discard", "discarded"),
        };
        Verb {
            infinitive,
            past,
            noun: "dead letter",
            nouns: "dead letters",
        }
    }

    fn question(&self, matched: u64) -> String {
        let those = self.verb().count(matched);
        match self {
            Self::Requeue => format!("Requeue {those}? Each becomes the last row of its key."),
            Self::Discard => format!("Discard {those}? This cannot be undone."),
        }
    }

    async fn find(
        &self,
        client: &AdminClient,
        selector: &Selector,
        limit: Option<u64>,
    ) -> Result<Vec<DeadLetterId>, AdminError> {
        client.dead_letter_ids(&selector.filter(limit)).await
    }

    async fn preview(
        &self,
        client: &AdminClient,
        selector: &Selector,
        ids: &[DeadLetterId],
    ) -> Result<String, AdminError> {
        let filter = selector.filter(Some(PREVIEW_MAX.min(ids.len()) as u64));
        let dead_letters = client.dead_letters(&filter, Detail::Metadata).await?;
        Ok(render_list(&dead_letters))
    }

    /// Changes a batch in one transaction.
    async fn apply(&self, client: &AdminClient, ids: &[DeadLetterId]) -> Result<u64, AdminError> {
        match self {
            Self::Requeue => client.requeue(ids).await,
            Self::Discard => client.discard(ids).await,
        }
    }

    fn rows(ids: &[DeadLetterId]) -> LoggedRows {
        LoggedRows {
            source: LabelSource::DeadLetters,
            rows: ids.iter().map(|id| (id.event_id, id.id)).collect(),
        }
    }
}

/// Runs a subcommand of `dead-letters`.
///
/// # Errors
/// Returns an error when the settings cannot be read, the database fails, or the output cannot be
/// written.
///
/// # Cancel safety
/// If dropped midway, earlier batches of a change are done, and the current one may be.
pub(super) async fn dead_letters(
    command: DeadLettersCommand,
    out: &mut impl Write,
) -> Result<Exit, CliError> {
    match command {
        DeadLettersCommand::List(arguments) => list(arguments, out).await,
        DeadLettersCommand::Show(arguments) => show(arguments, out).await,
        DeadLettersCommand::Requeue(arguments) => {
            change::run(Action::Requeue, arguments, out).await
        }
        DeadLettersCommand::Discard(arguments) => {
            change::run(Action::Discard, arguments, out).await
        }
    }
}

async fn list(arguments: ListArgs, out: &mut impl Write) -> Result<Exit, CliError> {
    let output = arguments.common.output;
    let dead_letters = read(arguments, Detail::Metadata).await?;
    write(out, output, &dead_letters, |dead_letters| {
        render_list(dead_letters)
    })?;
    Ok(Exit::Done)
}

async fn show(arguments: ShowArgs, out: &mut impl Write) -> Result<Exit, CliError> {
    let ShowArgs { list, show_payload } = arguments;
    let output = list.common.output;
    let detail = if show_payload {
        Detail::Contents
    } else {
        Detail::Metadata
    };
    let dead_letters = read(list, detail).await?;
    write(out, output, &dead_letters, |dead_letters| {
        let texts: Vec<String> = dead_letters.iter().map(render).collect();
        texts.join("\n")
    })?;
    if dead_letters.is_empty() {
        note(NOTHING_MATCHES);
        return Ok(Exit::NothingMatched);
    }
    Ok(Exit::Done)
}

async fn read(arguments: ListArgs, detail: Detail) -> Result<Vec<DeadLetter>, CliError> {
    let ListArgs {
        common: CommonArgs { config, .. },
        selector,
        limit,
    } = arguments;
    let client = open(config, Role::Relay).await?;
    // One more than requested, to find out whether there are more.
    let filter = selector.filter(Some(limit + 1));
    let mut dead_letters = client.dead_letters(&filter, detail).await?;
    truncate(&mut dead_letters, limit);
    Ok(dead_letters)
}

fn render_list(dead_letters: &[DeadLetter]) -> String {
    if dead_letters.is_empty() {
        return "no dead letters\n".to_owned();
    }
    table(
        [
            "FAILED",
            "CLASS",
            "ATTEMPTS",
            "TOPIC",
            "KEY",
            "EVENT TYPE",
            "OUTBOX_SEQ",
            "EVENT ID",
        ],
        dead_letters.iter().map(cells),
    )
}

fn cells(dead_letter: &DeadLetter) -> [String; 8] {
    [
        dead_letter.failed_at.clone(),
        dead_letter.class.clone(),
        dead_letter.attempts.to_string(),
        dead_letter.topic.clone(),
        dead_letter.key.clone(),
        dead_letter.event_type.clone(),
        dead_letter.outbox_seq.to_string(),
        dead_letter.event_id.to_string(),
    ]
}

/// Text of one dead letter: its fields, and below them headers and payload when they were read.
fn render(dead_letter: &DeadLetter) -> String {
    let mut metadata = metadata(dead_letter);
    match &dead_letter.contents {
        None => {
            metadata.push(("headers", header_names(&dead_letter.header_names)));
            fields(&metadata)
        }
        Some(contents) => format!("{}{}", fields(&metadata), render_contents(contents)),
    }
}

fn metadata(dead_letter: &DeadLetter) -> Vec<(&'static str, String)> {
    vec![
        ("event_id", dead_letter.event_id.to_string()),
        (
            "outbox_seq",
            format!("{} (when it was rejected)", dead_letter.outbox_seq),
        ),
        ("topic", line(&dead_letter.topic)),
        ("key", line(&dead_letter.key)),
        ("event_type", line(&dead_letter.event_type)),
        ("aggregate", aggregate(dead_letter)),
        ("written", dead_letter.created_at.clone()),
        ("rejected", attempts(dead_letter)),
        ("class", line(&dead_letter.class)),
        ("payload", payload_size(dead_letter.payload_bytes)),
    ]
}

fn aggregate(dead_letter: &DeadLetter) -> String {
    format!(
        "{} {}",
        line(&dead_letter.aggregate_type),
        line(&dead_letter.aggregate_id)
    )
}

fn attempts(dead_letter: &DeadLetter) -> String {
    let times = match dead_letter.attempts {
        1 => "once".to_owned(),
        attempts => format!("{attempts} times"),
    };
    format!(
        "{times}, first {}, last {}",
        dead_letter.first_failed_at, dead_letter.failed_at
    )
}

fn payload_size(bytes: Option<i32>) -> String {
    match bytes {
        None => "none: a tombstone".to_owned(),
        Some(bytes) => format!("{bytes} bytes"),
    }
}

fn header_names(names: &[String]) -> String {
    if names.is_empty() {
        return "none".to_owned();
    }
    line(&names.join(", "))
}

fn render_contents(contents: &Contents) -> String {
    let payload = match (&contents.payload, &contents.payload_base64) {
        (Some(text), _) => lines(text),
        (None, Some(base64)) => format!("base64: {base64}"),
        (None, None) => String::new(),
    };
    let headers = lines(&contents.headers.to_string());
    format!("headers\n{headers}\npayload\n{payload}\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dead_letter(key: &str) -> DeadLetter {
        DeadLetter {
            event_id: uuid::Uuid::nil(),
            outbox_seq: 7,
            topic: "files".to_owned(),
            key: key.to_owned(),
            lane: 3,
            class: "RecordRejected".to_owned(),
            attempts: 2,
            event_type: "Uploaded".to_owned(),
            aggregate_type: "file".to_owned(),
            aggregate_id: key.to_owned(),
            created_at: "2026-01-01T00:00:00Z".to_owned(),
            first_failed_at: "2026-01-01T00:00:01Z".to_owned(),
            failed_at: "2026-01-01T00:00:02Z".to_owned(),
            payload_bytes: Some(5),
            header_names: vec!["traceparent".to_owned()],
            contents: None,
        }
    }

    #[test]
    fn a_hostile_key_is_one_harmless_line_of_the_list() {
        let text = render_list(&[
            dead_letter("\u{1b}[2J\n\u{202e}"),
            dead_letter(&"x".repeat(100_000)),
        ]);
        assert_eq!(text.lines().count(), 3);
        assert!(
            text.lines().all(|line| line.chars().count() < 250) && !text.contains('\u{1b}'),
            "{text}"
        );
    }

    #[test]
    fn contents_are_shown_only_when_they_were_asked_for() {
        let text = render(&dead_letter("f1"));
        assert!(
            text.contains("5 bytes") && text.contains("traceparent") && text.contains("2 times"),
            "{text}"
        );
        let headers = serde_json::json!({"traceparent": "00-1"});
        let contents = Contents {
            payload: Some("{\n\u{1b}}".to_owned()),
            payload_base64: None,
            headers,
        };
        let text = render(&DeadLetter {
            contents: Some(contents),
            ..dead_letter("f1")
        });
        assert!(
            text.ends_with("headers\n{\"traceparent\":\"00-1\"}\npayload\n{\n\\u{1b}}\n"),
            "{text}"
        );
    }

    #[test]
    fn contract_of_json() {
        let contents = |headers| Contents {
            payload: None,
            payload_base64: Some("AA==".to_owned()),
            headers,
        };
        let shown = DeadLetter {
            contents: Some(contents(serde_json::json!({"traceparent": "00-1"}))),
            ..dead_letter("f1")
        };
        crate::golden::compare(
            "cli-dead-letters.json",
            &crate::cli::text::json(&[dead_letter("f1"), shown]),
        );
        let changed = |action: Action| change::Changed::new(&action.verb(), 2);
        let both = [changed(Action::Requeue), changed(Action::Discard)];
        crate::golden::compare(
            "cli-dead-letters-changed.json",
            &crate::cli::text::json(&both),
        );
    }

    #[test]
    fn json_names_are_those_of_the_documentation() {
        let json = serde_json::to_value(dead_letter("f1")).expect("plain data");
        assert_eq!(
            (json["eventId"].as_str(), json["outboxSeq"].as_i64()),
            (Some("00000000-0000-0000-0000-000000000000"), Some(7))
        );
        assert!(
            json.get("payload").is_none() && json.get("headers").is_none(),
            "{json}"
        );
    }
}
