//! `status`. Asking the database is IO, what is printed is pure.

use std::io::Write;

use crate::{
    cli::{
        CliError, Exit,
        args::Asked,
        open,
        text::{age, count, facts, line, table, thousands},
        write,
    },
    outbox::admin::{Overview, PutAside, PutAsideKind, RelaySeen, Role, Waiting},
};

pub(super) async fn status(
    Asked { place, output }: Asked,
    out: &mut impl Write,
) -> Result<Exit, CliError> {
    let overview = open(place, Role::Relay).await?.overview().await?;
    write(out, output, &overview, in_words)?;
    Ok(Exit::Done)
}

fn in_words(overview: &Overview) -> String {
    let owner = overview
        .owner
        .as_ref()
        .map_or_else(|| "nobody".to_owned(), |owner| line(&owner.to_string()));
    let oldest = overview.oldest_transaction_seconds.map_or_else(
        || "none seen".to_owned(),
        |seconds| format!("{} old", age(seconds)),
    );
    let mut text = facts(&[
        (
            "schema",
            format!("{}, level {}", overview.schema, overview.level),
        ),
        ("managed by", owner),
        ("waiting", waiting(&overview.waiting)),
        (
            "dead rows",
            format!(
                "{}; oldest transaction: {oldest}",
                thousands(u64::try_from(overview.dead_rows).unwrap_or(0))
            ),
        ),
    ]);
    text.push_str(&relays(&overview.relays, &overview.lanes_without_relay));
    text.push_str(&put_aside(&overview.put_aside));
    text
}

fn waiting(waiting: &Waiting) -> String {
    let more = if waiting.capped { "more than " } else { "" };
    let rows = count(u64::try_from(waiting.rows).unwrap_or(0), "row");
    match (&waiting.oldest_at, waiting.oldest_seconds) {
        (Some(at), Some(seconds)) => {
            format!("{more}{rows}, the oldest for {} (since {at})", age(seconds))
        }
        _ => format!("{more}{rows}"),
    }
}

fn relays(relays: &[RelaySeen], free: &[i16]) -> String {
    let row = |relay: &RelaySeen| {
        let lease = if relay.lease_seconds > 0.0 {
            format!("{} left", age(relay.lease_seconds))
        } else {
            format!("ran out {} ago", age(-relay.lease_seconds))
        };
        [
            relay.pod.clone(),
            lease,
            relay.breaker.clone(),
            relay.lanes.len().to_string(),
            ranges(&relay.lanes),
        ]
    };
    let mut text = if relays.is_empty() {
        "\nno relay is at work\n".to_owned()
    } else {
        format!(
            "\n{}",
            table(
                ["RELAY", "LEASE", "BREAKER", "LANES", ""],
                relays.iter().map(row)
            )
        )
    };
    if !free.is_empty() {
        text.push_str(&format!(
            "{} without a relay: {}\n",
            count(free.len() as u64, "lane"),
            ranges(free)
        ));
    }
    text
}

fn put_aside(put_aside: &[PutAside]) -> String {
    if put_aside.is_empty() {
        return "\nnothing is parked, and there are no dead letters\n".to_owned();
    }
    let row = |aside: &PutAside| {
        let number = u64::try_from(aside.number).unwrap_or(0);
        let what = match aside.kind {
            PutAsideKind::ParkedTopic => "parked topic".to_owned(),
            PutAsideKind::ParkedKeys => count(number, "parked key"),
            PutAsideKind::DeadLetters => count(number, "dead letter"),
        };
        [
            what,
            aside.topic.clone(),
            aside.class.clone(),
            aside.oldest_at.clone(),
        ]
    };
    format!(
        "\n{}",
        table(
            ["PUT ASIDE", "TOPIC", "CLASS", "SINCE"],
            put_aside.iter().map(row)
        )
    )
}

/// `0-3, 7`.
fn ranges(lanes: &[i16]) -> String {
    let mut ranges: Vec<(i16, i16)> = Vec::new();
    for lane in lanes {
        match ranges.last_mut() {
            Some((_, last)) if *last + 1 == *lane => *last = *lane,
            _ => ranges.push((*lane, *lane)),
        }
    }
    let text = |(first, last): &(i16, i16)| {
        if first == last {
            first.to_string()
        } else {
            format!("{first}-{last}")
        }
    };
    ranges.iter().map(text).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::Owner;

    fn overview() -> Overview {
        let relay = |pod: &str, lease_seconds, lanes| RelaySeen {
            pod: pod.to_owned(),
            instance: "7d6f".to_owned(),
            breaker: "Closed".to_owned(),
            lease_seconds,
            lanes,
        };
        let aside = |kind, number| PutAside {
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
            put_aside: vec![
                aside(PutAsideKind::ParkedKeys, 2),
                aside(PutAsideKind::DeadLetters, 1),
            ],
            dead_rows: 1234,
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
        let topic = PutAside {
            kind: PutAsideKind::ParkedTopic,
            ..full.put_aside[0].clone()
        };
        let all = Overview {
            put_aside: [full.put_aside.clone(), vec![topic]].concat(),
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
dead rows   1,234; oldest transaction: none seen

RELAY    LEASE              BREAKER  LANES
relay-0  12s left           Closed   4      0-2, 7
relay-1  ran out 1m01s ago  Closed   1      8
56 lanes without a relay: 8-63

PUT ASIDE      TOPIC  CLASS           SINCE
2 parked keys  files  RecordRejected  2026-01-01T00:00:00Z
1 dead letter  files  RecordRejected  2026-01-01T00:00:00Z
";
        assert_eq!(in_words(&overview()), expected);
    }

    #[test]
    fn an_outbox_without_anybody_says_so() {
        let alone = Overview {
            relays: vec![],
            put_aside: vec![],
            owner: None,
            ..overview()
        };
        let text = in_words(&alone);
        assert!(
            text.contains("no relay is at work")
                && text.contains("nothing is parked")
                && text.contains("nobody"),
            "{text}"
        );
    }
}
