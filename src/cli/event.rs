//! `event`: where one event is, and what it waits for. Querying the database is IO, the judgement
//! and the output are pure.

use std::io::Write;

use serde::Serialize;
use uuid::Uuid;

use crate::{
    cli::{
        CliError, Exit,
        args::EventArgs,
        load, note,
        text::{fields, line, thousands},
        write,
    },
    outbox::admin::{AdminClient, FoundEvent, Obstacles, ParkedKeyHead, ROWS_BEFORE_MAX, Role},
    settings::TopicSettings,
};

const NOT_FOUND: &str = "no row and no dead letter has this event_id: it was published and \
    deleted, or discarded, or its transaction was rolled back or is still open";

/// State of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
enum EventState {
    /// The event waits for something that ends automatically, or for the next fetch.
    Waiting,
    /// A relay has taken the event.
    InFlight,
    /// The event waits for a person.
    Parked,
    /// The event is a dead letter.
    Dead,
    /// The outbox does not have the event.
    Gone,
}

impl EventState {
    fn words(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::InFlight => "in flight",
            Self::Parked => "parked",
            Self::Dead => "dead letter",
            Self::Gone => "gone",
        }
    }
}

/// What is known about an event. Fields are absent that its state does not have.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct EventReport {
    event_id: String,
    state: EventState,
    /// What it waits for, or what became of it.
    why: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    next_step: Option<String>,
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    row: Option<RowReport>,
}

/// The row that has the event.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct RowReport {
    outbox_seq: i64,
    lane: i16,
    /// `None` if no topic is declared for it.
    topic: Option<String>,
    key: String,
    event_type: String,
    created_at: String,
}

/// State, reason, and the next step of a person if there is one.
type Judgement = (EventState, String, Option<String>);

/// Runs `event`.
///
/// # Errors
/// Returns an error when the settings cannot be read, the database fails, or the output cannot be
/// written.
///
/// # Cancel safety
/// Cancel safe: it only reads.
pub(super) async fn event(arguments: EventArgs, out: &mut impl Write) -> Result<Exit, CliError> {
    let EventArgs { common, event_id } = arguments;
    let (settings, secrets) = load(common.config)?;
    let client = AdminClient::open(&settings, &secrets, Role::Relay).await?;
    let reports = reports(&client, event_id, &settings.topics).await?;
    write(out, common.output, &reports, |reports| {
        let texts: Vec<String> = reports.iter().map(in_words).collect();
        texts.join("\n")
    })?;
    if reports
        .iter()
        .all(|report| report.state == EventState::Gone)
    {
        note(NOT_FOUND);
        return Ok(Exit::NothingMatched);
    }
    Ok(Exit::Done)
}

async fn reports(
    client: &AdminClient,
    event_id: Uuid,
    topics: &[TopicSettings],
) -> Result<Vec<EventReport>, CliError> {
    let mut reports = Vec::new();
    for found in client.find_event(event_id).await? {
        let topic = destination(&found, topics);
        let judgement = judge(client, &found, topic).await?;
        reports.push(report(event_id, judgement, Some((&found, topic))));
    }
    if reports.is_empty() {
        reports.push(report(event_id, gone(), None));
    }
    Ok(reports)
}

async fn judge(
    client: &AdminClient,
    found: &FoundEvent,
    topic: Option<&str>,
) -> Result<Judgement, CliError> {
    if found.dead.is_some() {
        return Ok(dead(found));
    }
    let obstacles = client.obstacles(found, topic).await?;
    Ok(obstacles.map_or_else(gone, |obstacles| waiting(found, topic, &obstacles)))
}

/// The topic that a row goes to: its own, or that of its types. `None` if it is not declared.
fn destination<'a>(event: &'a FoundEvent, topics: &'a [TopicSettings]) -> Option<&'a str> {
    match &event.topic {
        Some(topic) if event.dead.is_some() => Some(topic),
        Some(topic) => declared(topics, |it| it.name == *topic),
        None => declared(topics, |it| it.event_types.contains(&event.event_type)).or_else(|| {
            declared(topics, |it| {
                it.aggregate_types.contains(&event.aggregate_type)
            })
        }),
    }
}

fn declared(topics: &[TopicSettings], fits: impl Fn(&TopicSettings) -> bool) -> Option<&str> {
    let found = topics.iter().find(|topic| fits(topic))?;
    Some(&found.name)
}

fn gone() -> Judgement {
    let why = "it was published and deleted, or discarded, or never committed";
    (EventState::Gone, why.to_owned(), None)
}

fn dead(event: &FoundEvent) -> Judgement {
    let why = event.dead.as_ref().map_or_else(String::new, |dead| {
        format!(
            "{}: rejected {} times, last at {}",
            dead.class, dead.attempts, dead.failed_at
        )
    });
    let next = "outbox-relay dead-letters requeue --event-id, or discard";
    (EventState::Dead, why, Some(next.to_owned()))
}

/// Judges a waiting row: the first obstacle that holds it back.
fn waiting(event: &FoundEvent, topic: Option<&str>, obstacles: &Obstacles) -> Judgement {
    let Some(topic) = topic else {
        return not_declared(event);
    };
    if let Some(class) = &obstacles.topic_class {
        let why = format!("topic '{topic}' is parked: {class}");
        let next = format!("outbox-relay parked retry --topic {topic}");
        return (EventState::Parked, why, Some(next));
    }
    match &obstacles.parked_key {
        Some(parked) => parked_key(event, parked),
        None => active(event, obstacles),
    }
}

fn not_declared(event: &FoundEvent) -> Judgement {
    let why = match &event.topic {
        Some(topic) => format!("its topic '{topic}' is not declared in spec.topics"),
        None => format!(
            "no topic of spec.topics lists its eventType '{}' or its aggregateType '{}'",
            event.event_type, event.aggregate_type
        ),
    };
    let next = "declare it in spec.topics of the manifest".to_owned();
    (EventState::Waiting, why, Some(next))
}

fn parked_key(event: &FoundEvent, parked: &ParkedKeyHead) -> Judgement {
    let why = match &parked.head {
        Some((id, _)) if *id == event.outbox_seq => {
            format!(
                "it was rejected: {}. Rows of its key wait for it",
                parked.class
            )
        }
        Some((id, event_id)) => format!(
            "its key is parked behind outbox_seq {id}, event {event_id}: {}",
            parked.class
        ),
        None => format!("its key is parked: {}", parked.class),
    };
    let next = "outbox-relay parked list; then parked retry, or parked skip".to_owned();
    (EventState::Parked, why, Some(next))
}

/// Judges a row that nothing parks.
fn active(event: &FoundEvent, obstacles: &Obstacles) -> Judgement {
    let Some(relay) = &obstacles.relay else {
        let why = format!("no relay owns lane {}", event.lane);
        let next = "outbox-relay status; is a relay running?".to_owned();
        return (EventState::Waiting, why, Some(next));
    };
    if relay.breaker == "Open" {
        let why = format!("Kafka acknowledges nothing to relay {}", relay.pod);
        let next = "bring Kafka back; the relay retries automatically".to_owned();
        return (EventState::Waiting, why, Some(next));
    }
    let before = rows_before(obstacles.rows_before);
    if event.outbox_seq <= obstacles.high_id {
        let why = format!("relay {} has taken it{before}", relay.pod);
        return (EventState::InFlight, why, None);
    }
    let why = format!("relay {} fetches it next{before}", relay.pod);
    (EventState::Waiting, why, None)
}

/// How many rows of its key are before a row, to be appended; empty if none is.
fn rows_before(rows: i64) -> String {
    match rows {
        0 => String::new(),
        ROWS_BEFORE_MAX.. => format!("; {ROWS_BEFORE_MAX} or more rows of its key are before it"),
        rows => {
            let rows = thousands(u64::try_from(rows).unwrap_or(0));
            format!("; {rows} of its key before it")
        }
    }
}

fn report(
    event_id: Uuid,
    (state, why, next_step): Judgement,
    row: Option<(&FoundEvent, Option<&str>)>,
) -> EventReport {
    EventReport {
        event_id: event_id.to_string(),
        state,
        why,
        next_step,
        row: row.map(|(found, topic)| RowReport {
            outbox_seq: found.outbox_seq,
            lane: found.lane,
            topic: topic.map(str::to_owned),
            key: found.key.clone(),
            event_type: found.event_type.clone(),
            created_at: found.created_at.clone(),
        }),
    }
}

fn in_words(report: &EventReport) -> String {
    let state = format!("{}: {}", report.state.words(), line(&report.why));
    let mut list = vec![("event_id", report.event_id.clone()), ("state", state)];
    if let Some(next) = &report.next_step {
        list.push(("next step", line(next)));
    }
    list.extend(report.row.iter().flat_map(row_fields));
    fields(&list)
}

fn row_fields(row: &RowReport) -> [(&'static str, String); 5] {
    let topic = row.topic.as_deref().unwrap_or("none is declared");
    [
        ("topic", line(topic)),
        ("key", line(&row.key)),
        ("event_type", line(&row.event_type)),
        (
            "outbox_seq",
            format!("{}, lane {}", row.outbox_seq, row.lane),
        ),
        ("written", row.created_at.clone()),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        outbox::admin::{DeadEvent, LaneRelay},
        settings::OnPoison,
    };

    fn topics() -> Vec<TopicSettings> {
        vec![TopicSettings {
            name: "files".to_owned(),
            event_types: vec!["Uploaded".to_owned()],
            aggregate_types: vec!["file".to_owned()],
            on_poison: OnPoison::default(),
        }]
    }

    fn found() -> FoundEvent {
        FoundEvent {
            lane: 3,
            outbox_seq: 42,
            topic: None,
            key: "f1".to_owned(),
            event_type: "Uploaded".to_owned(),
            aggregate_type: "essay".to_owned(),
            created_at: "2026-01-01T00:00:00Z".to_owned(),
            dead: None,
        }
    }

    fn owned(breaker: &str) -> Obstacles {
        Obstacles {
            relay: Some(LaneRelay {
                pod: "relay-0".to_owned(),
                breaker: breaker.to_owned(),
            }),
            ..Obstacles::default()
        }
    }

    fn parked(head: Option<(i64, &str)>) -> Obstacles {
        Obstacles {
            parked_key: Some(ParkedKeyHead {
                class: "RecordTooLarge".to_owned(),
                head: head.map(|(id, event_id)| (id, event_id.to_owned())),
            }),
            ..owned("Closed")
        }
    }

    #[test]
    fn the_first_obstacle_is_reported() {
        use EventState::{InFlight, Parked, Waiting};
        let taken = Obstacles {
            high_id: 42,
            rows_before: 2,
            ..owned("Slow")
        };
        let parked_topic = Obstacles {
            topic_class: Some("ParkedByHand".to_owned()),
            ..parked(None)
        };
        for (obstacles, state, part) in [
            (Obstacles::default(), Waiting, "no relay owns lane 3"),
            (
                owned("Open"),
                Waiting,
                "acknowledges nothing to relay relay-0",
            ),
            (owned("Closed"), Waiting, "relay-0 fetches it next"),
            (
                taken,
                InFlight,
                "relay-0 has taken it; 2 of its key before it",
            ),
            (
                parked(Some((42, "e"))),
                Parked,
                "it was rejected: RecordTooLarge",
            ),
            (
                parked(Some((7, "e"))),
                Parked,
                "behind outbox_seq 7, event e",
            ),
            (parked(None), Parked, "its key is parked"),
            (parked_topic, Parked, "topic 'files' is parked"),
        ] {
            let found = found();
            let (is, why, _) = waiting(&found, destination(&found, &topics()), &obstacles);
            assert!(
                is == state && why.contains(part),
                "{is:?}: {why}, not {part}"
            );
        }
    }

    #[test]
    fn a_topic_is_the_row_s_own_or_follows_from_its_types() {
        let with = |topic: Option<&str>, event_type: &str, aggregate_type: &str| FoundEvent {
            topic: topic.map(str::to_owned),
            event_type: event_type.to_owned(),
            aggregate_type: aggregate_type.to_owned(),
            ..found()
        };
        for (event, topic) in [
            (with(None, "Uploaded", "x"), Some("files")),
            (with(None, "x", "file"), Some("files")),
            (with(None, "x", "x"), None),
            (with(Some("files"), "x", "x"), Some("files")),
            (with(Some("other"), "Uploaded", "file"), None),
        ] {
            assert_eq!(destination(&event, &topics()), topic, "{event:?}");
            if topic.is_none() {
                let (state, why, _) = waiting(&event, topic, &owned("Closed"));
                assert!(
                    state == EventState::Waiting && why.contains("spec.topics"),
                    "{why}"
                );
            }
        }
    }

    #[test]
    fn contract_of_json() {
        let dead_event = FoundEvent {
            topic: Some("files".to_owned()),
            dead: Some(DeadEvent {
                class: "RecordTooLarge".to_owned(),
                attempts: 2,
                failed_at: "2026-01-01T00:00:02Z".to_owned(),
            }),
            ..found()
        };
        let all = [
            report(Uuid::nil(), gone(), None),
            report(
                Uuid::nil(),
                dead(&dead_event),
                Some((&dead_event, Some("files"))),
            ),
            report(
                Uuid::nil(),
                waiting(&found(), Some("files"), &parked(None)),
                Some((&found(), Some("files"))),
            ),
        ];
        crate::golden::compare("cli-event.json", &crate::cli::text::json(&all));
    }

    #[test]
    fn a_hostile_key_is_one_harmless_line() {
        let hostile = FoundEvent {
            key: "\u{1b}[2J\nstate  gone".to_owned(),
            event_type: "\u{202e}".to_owned(),
            ..found()
        };
        let judgement = waiting(&hostile, None, &Obstacles::default());
        let text = in_words(&report(Uuid::nil(), judgement, Some((&hostile, None))));
        assert!(
            text.lines().count() == 8 && !text.contains('\u{1b}'),
            "{text}"
        );
    }
}
