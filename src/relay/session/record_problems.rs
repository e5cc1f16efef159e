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
            "does not acknowledge records while Kafka takes later ones: has each of its partitions a leader and enough \
                                       replicas in sync? Its other rows wait"
        }
        ProblemClass::TopicNotAuthorized => {
            "may not be written to by this user: allow WRITE on it; its rows wait until then"
        }
        _ => {
            "does not take a record, for a reason that the relay's log names: it rests and is \
             tried again"
        }
    };
    Problem::new(class, format!("topic '{name}' {why}"))
}

fn parked_keys(name: &str, keys: usize) -> Problem {
    let message = format!(
        "{keys} keys of topic '{name}' are parked, their rows wait: see `outbox-relay \
         parked list`, then retry or skip them"
    );
    Problem::new(ProblemClass::KeysParked, message)
}

fn parked_topic(name: &str) -> Problem {
    let message = format!(
        "topic '{name}' is parked, its rows wait: `outbox-relay parked retry --topic \
         {name}` lets it flow again"
    );
    Problem::new(ProblemClass::KeysParked, message)
}

fn undeclared_topics() -> Problem {
    let message = "rows name a topic, or have types, that spec.topics does not declare: \
        add it there; they wait until then";
    Problem::new(ProblemClass::TopicNotDeclared, message)
}
