//! Problems with rows and records, as a status report has them: paused topics, parked keys and
//! topics, undeclared topics. Pure.

use crate::{
    relay::core::Core,
    report::{Problem, ProblemClass},
};

/// All problems with rows and records that there are now.
pub(super) fn record_problems(core: &Core) -> Vec<Problem> {
    let (paused, has_undeclared) = core.topic_problems();
    let mut problems = Vec::new();
    for (topic, class) in paused {
        // The client for topic metadata reports a missing topic.
        if class != ProblemClass::TopicMissing {
            problems.push(paused_topic(core.routes().name(topic), class));
        }
    }
    for (topic, keys) in core.parked_keys() {
        problems.push(parked_keys(core.routes().name(topic), keys));
    }
    for topic in core.parked_topics() {
        problems.push(parked_topic(core.routes().name(topic)));
    }
    if has_undeclared {
        problems.push(undeclared_topics());
    }
    problems
}

fn paused_topic(name: &str, class: ProblemClass) -> Problem {
    let why = match class {
        ProblemClass::TopicStalled => {
            "does not acknowledge records while Kafka acknowledges later ones; its other rows \
             wait: check that each of its partitions has a leader and enough replicas in sync"
        }
        ProblemClass::TopicNotAuthorized => {
            "may not be written to by the relay's user; its rows wait: allow WRITE on it"
        }
        _ => {
            "does not take a record, for the reason in the relay's log; the topic is paused, and \
             the relay retries automatically"
        }
    };
    Problem::new(class, format!("topic '{name}' {why}"))
}

fn parked_keys(name: &str, keys: usize) -> Problem {
    let message = format!(
        "{keys} keys of topic '{name}' are parked and their rows wait: list them with \
         `outbox-relay parked list`, then retry or skip them"
    );
    Problem::new(ProblemClass::KeysParked, message)
}

fn parked_topic(name: &str) -> Problem {
    let message = format!(
        "topic '{name}' is parked and its rows wait: resume it with \
         `outbox-relay parked retry --topic {name}`"
    );
    Problem::new(ProblemClass::KeysParked, message)
}

fn undeclared_topics() -> Problem {
    let message = "rows wait because spec.topics declares neither their topic nor a topic for \
        their types: add the topic to spec.topics";
    Problem::new(ProblemClass::TopicNotDeclared, message)
}
