//! `status`. Querying the database is IO, making the output is pure.

use std::io::Write;

use crate::{
    cli::{
        CliError, Exit,
        args::CommonArgs,
        open,
        text::{age, count, fields, line, table, thousands},
        write,
    },
    outbox::admin::{Attention, AttentionKind, Overview, RelayEntry, Role, Waiting},
};

/// Runs `status`.
///
/// # Errors
/// Returns an error when the settings cannot be read, the database fails, or the output cannot be
/// written.
///
/// # Cancel safety
/// Cancel safe: it only reads.
pub(super) async fn status(arguments: CommonArgs, out: &mut impl Write) -> Result<Exit, CliError> {
    let CommonArgs { config, output } = arguments;
    let overview = open(config, Role::Relay).await?.overview().await?;
    write(out, output, &overview, in_words)?;
    Ok(Exit::Done)
}

fn in_words(overview: &Overview) -> String {
    let parts = [
        summary(overview),
        relays(&overview.relays),
        unowned(&overview.lanes_without_relay),
        attention(&overview.attention),
    ];
    parts.concat()
}

/// Fields of the outbox as a whole, above the lists.
fn summary(overview: &Overview) -> String {
    fields(&[
        ("schema", schema(overview)),
        ("managed by", owner(overview)),
        ("waiting", waiting(&overview.waiting)),
        ("dead rows", dead_rows(overview)),
    ])
}

fn schema(overview: &Overview) -> String {
    format!("{}, level {}", overview.schema, overview.level)
}

fn owner(overview: &Overview) -> String {
    match &overview.owner {
        None => "no OutboxRelay".to_owned(),
        Some(owner) => line(&owner.to_string()),
    }
}

fn waiting(waiting: &Waiting) -> String {
    let more = if waiting.capped { "more than " } else { "" };
    let rows = count_of(waiting.rows, "row");
    format!("{more}{rows}{}", oldest_row(waiting))
}

/// Age of the oldest waiting row, to be appended to their number; empty if no row is waiting.
fn oldest_row(waiting: &Waiting) -> String {
    match (&waiting.oldest_at, waiting.oldest_seconds) {
        (Some(at), Some(seconds)) => format!(", the oldest for {} (since {at})", age(seconds)),
        _ => String::new(),
    }
}

fn dead_rows(overview: &Overview) -> String {
    let rows = overview.dead_rows.map(|rows| thousands(unsigned(rows)));
    let rows = rows.unwrap_or_else(|| "unknown".to_owned());
    let oldest = oldest_transaction(overview.oldest_transaction_seconds);
    format!("{rows}; oldest transaction: {oldest}")
}

fn oldest_transaction(seconds: Option<f64>) -> String {
    match seconds {
        None => "none visible".to_owned(),
        Some(seconds) => format!("{} old", age(seconds)),
    }
}

fn relays(relays: &[RelayEntry]) -> String {
    if relays.is_empty() {
        return "\nno relay is active\n".to_owned();
    }
    let table = table(
        ["RELAY", "LEASE", "BREAKER", "LANES", ""],
        relays.iter().map(relay_cells),
    );
    format!("\n{table}")
}

fn relay_cells(relay: &RelayEntry) -> [String; 5] {
    [
        relay.pod.clone(),
        lease(relay),
        relay.breaker.clone(),
        relay.lanes.len().to_string(),
        ranges(&relay.lanes),
    ]
}

fn lease(relay: &RelayEntry) -> String {
    if relay.is_active() {
        format!("{} left", age(relay.lease_seconds))
    } else {
        format!("expired {} ago", age(-relay.lease_seconds))
    }
}

fn unowned(lanes: &[i16]) -> String {
    if lanes.is_empty() {
        return String::new();
    }
    let number = count(lanes.len() as u64, "lane");
    format!("{number} without a relay: {}\n", ranges(lanes))
}

fn attention(items: &[Attention]) -> String {
    if items.is_empty() {
        return "\nnothing is parked, and there are no dead letters\n".to_owned();
    }
    let table = table(
        ["ATTENTION", "TOPIC", "CLASS", "SINCE"],
        items.iter().map(attention_cells),
    );
    format!("\n{table}")
}

fn attention_cells(item: &Attention) -> [String; 4] {
    [
        item_kind(item),
        item.topic.clone(),
        item.class.clone(),
        item.oldest_at.clone(),
    ]
}

fn item_kind(item: &Attention) -> String {
    match item.kind {
        AttentionKind::ParkedTopic => "parked topic".to_owned(),
        AttentionKind::ParkedKeys => count_of(item.number, "parked key"),
        AttentionKind::DeadLetters => count_of(item.number, "dead letter"),
    }
}

/// Number and noun of a count that PostgreSQL sent.
fn count_of(number: i64, noun: &str) -> String {
    count(unsigned(number), noun)
}

/// A count that PostgreSQL sent. It is never negative.
fn unsigned(number: i64) -> u64 {
    u64::try_from(number).unwrap_or(0)
}

/// Sorted lanes as ranges: `0-3, 7`.
fn ranges(lanes: &[i16]) -> String {
    let runs = lanes.chunk_by(|lane, next| lane + 1 == *next);
    runs.map(range).collect::<Vec<_>>().join(", ")
}

/// Consecutive lanes as a range: `0-3`, or only `7`.
fn range(lanes: &[i16]) -> String {
    match lanes {
        [] => String::new(),
        [lane] => lane.to_string(),
        [first, .., last] => format!("{first}-{last}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::Owner;

    fn overview() -> Overview {
        let relay = |pod: &str, lease_seconds, lanes| RelayEntry {
            pod: pod.to_owned(),
            instance: "7d6f".to_owned(),
            breaker: "Closed".to_owned(),
            lease_seconds,
            lanes,
        };
        let item = |kind, number| Attention {
            kind,
            topic: "files".to_owned(),
            class: "RecordRejected".to_owned(),
            number,
            oldest_at: "2026-01-01T00:00:00Z".to_owned(),
        };
        Overview {
            schema: "outbox".to_owned(),
            level: 2,
            owner: Some(Owner {
                cluster: "c".to_owned(),
                namespace: "n".to_owned(),
                name: "files".to_owned(),
            }),
            waiting: Waiting {
                rows: 1_000_000,
                capped: true,
                oldest_at: Some("2026-01-01T00:00:00Z".to_owned()),
                oldest_seconds: Some(75.0),
            },
            relays: vec![
                relay("relay-0", 12.3, vec![0, 1, 2, 7]),
                relay("relay-1", -61.0, vec![8]),
            ],
            lanes_without_relay: (8..64).collect(),
            attention: vec![
                item(AttentionKind::ParkedKeys, 2),
                item(AttentionKind::DeadLetters, 1),
            ],
            dead_rows: Some(1234),
            oldest_transaction_seconds: None,
        }
    }

    #[test]
    fn contract_of_json() {
        let full = Overview {
            oldest_transaction_seconds: Some(1.5),
            lanes_without_relay: vec![63],
            ..overview()
        };
        let topic = Attention {
            kind: AttentionKind::ParkedTopic,
            ..full.attention[0].clone()
        };
        let all = Overview {
            attention: [full.attention.clone(), vec![topic]].concat(),
            ..full
        };
        crate::golden::compare("cli-status.json", &crate::cli::text::json(&all));
    }

    #[test]
    fn a_status_reads_from_top_to_bottom() {
        let expected = "\
schema      outbox, level 2
managed by  c/n/files
waiting     more than 1,000,000 rows, the oldest for 1m15s (since 2026-01-01T00:00:00Z)
dead rows   1,234; oldest transaction: none visible

RELAY    LEASE              BREAKER  LANES
relay-0  12s left           Closed   4      0-2, 7
relay-1  expired 1m01s ago  Closed   1      8
56 lanes without a relay: 8-63

ATTENTION      TOPIC  CLASS           SINCE
2 parked keys  files  RecordRejected  2026-01-01T00:00:00Z
1 dead letter  files  RecordRejected  2026-01-01T00:00:00Z
";
        assert_eq!(in_words(&overview()), expected);
    }

    #[test]
    fn an_outbox_without_owner_and_relays_says_so() {
        let alone = Overview {
            relays: vec![],
            attention: vec![],
            owner: None,
            ..overview()
        };
        let text = in_words(&alone);
        assert!(
            text.contains("no relay is active")
                && text.contains("nothing is parked")
                && text.contains("no OutboxRelay"),
            "{text}"
        );
    }
}
