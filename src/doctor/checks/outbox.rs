//! Checks of relays, waiting rows, and what is put aside. Pure.

use crate::{
    doctor::{
        checks::{Moment, skip},
        codes::{Code, Group},
        facts::DatabaseFacts,
        report::Finding,
    },
    outbox::admin::{Attention, AttentionKind, Overview},
};

/// Age of the oldest row from which it is worth a warning, in seconds.
const ROW_OLD: f64 = 60.0;

/// All checks of the group.
pub(super) fn all(database: &DatabaseFacts, moment: Moment) -> Vec<Finding> {
    let is_of_group = |code: Code| code.group() == Group::Outbox;
    match &database.overview {
        Ok(overview) => vec![
            relays(overview, moment),
            waiting(overview),
            parked(overview),
            dead_letters(overview),
        ],
        Err(_) if database.level.is_err() => skip(Code::SchemaLevel, is_of_group),
        Err(problem) => {
            let codes = Code::ALL.into_iter().filter(|code| is_of_group(*code));
            codes.map(|code| Finding::unknown(code, problem)).collect()
        }
    }
}

fn relays(overview: &Overview, moment: Moment) -> Finding {
    let code = Code::RelaysActive;
    let active = overview.relays.iter().filter(|relay| relay.is_active());
    let open = active.clone().filter(|relay| relay.breaker == "Open");
    let open: Vec<&str> = open.map(|relay| &*relay.pod).collect();
    if !open.is_empty() {
        let message = format!(
            "Kafka acknowledges nothing to {}: bring Kafka back; relays retry automatically",
            open.join(", ")
        );
        return Finding::fault(code, message);
    }
    lanes(active.count(), overview.lanes_without_relay.len(), moment)
}

fn lanes(active: usize, unowned: usize, moment: Moment) -> Finding {
    let code = Code::RelaysActive;
    match (unowned, moment) {
        (0, _) => Finding::ok(code, format!("{active} relays own all lanes")),
        (_, Moment::BeforeRollout) => Finding::ok(code, format!("{active} relays run")),
        (unowned, Moment::Running) => Finding::fault(
            code,
            format!(
                "{unowned} of 64 lanes have no relay ({active} relays run), so their rows wait: \
                 are relays running, and can they reach the database?"
            ),
        ),
    }
}

fn waiting(overview: &Overview) -> Finding {
    let (code, waiting) = (Code::RowsWaiting, &overview.waiting);
    let more = if waiting.capped { "more than " } else { "" };
    let rows = format!("{more}{} rows", waiting.rows);
    match waiting.oldest_seconds {
        Some(seconds) if seconds >= ROW_OLD => {
            let message = format!(
                "{rows} wait, the oldest for {seconds:.0} s: the other lines say why, else \
                 docs/troubleshooting.md"
            );
            Finding::warning(code, message)
        }
        Some(seconds) => Finding::ok(code, format!("{rows}, the oldest {seconds:.0} s old")),
        None => Finding::ok(code, "none"),
    }
}

fn parked(overview: &Overview) -> Finding {
    let is_parked = |kind| kind != AttentionKind::DeadLetters;
    let next = "outbox-relay parked list, then retry or skip";
    summary_of(Code::Parked, overview, is_parked, next)
}

fn dead_letters(overview: &Overview) -> Finding {
    let is_dead = |kind| kind == AttentionKind::DeadLetters;
    let next = "outbox-relay dead-letters list, then requeue or discard";
    summary_of(Code::DeadLetters, overview, is_dead, next)
}

/// Sums up what is put aside, by topic and cause.
fn summary_of(
    code: Code,
    overview: &Overview,
    counts: impl Fn(AttentionKind) -> bool,
    next: &str,
) -> Finding {
    let items = overview.attention.iter().filter(|item| counts(item.kind));
    let items: Vec<String> = items.map(in_words).collect();
    if items.is_empty() {
        return Finding::ok(code, "none");
    }
    Finding::warning(code, format!("{}: {next}", items.join("; ")))
}

fn in_words(item: &Attention) -> String {
    let (topic, class, number) = (&item.topic, &item.class, item.number);
    match item.kind {
        AttentionKind::ParkedTopic => format!("topic '{topic}' ({class})"),
        AttentionKind::ParkedKeys => format!("{number} keys of '{topic}' ({class})"),
        AttentionKind::DeadLetters => format!("{number} of '{topic}' ({class})"),
    }
}
