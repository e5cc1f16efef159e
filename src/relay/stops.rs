//! Topics that rest, so that one sick topic stops only itself: which, why, and when they may flow again. Pure.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use super::{jitter::Jitter, window::TopicIndex};
use crate::report::ProblemClass;

/// First pause of a topic that failed; doubles up to [`PAUSE_MAX`].
const PAUSE_MIN: Duration = Duration::from_secs(1);
const PAUSE_MAX: Duration = Duration::from_secs(60);
/// How often rows without a declared topic are looked for again: somebody may have removed them.
const ASTRAY_PAUSE: Duration = Duration::from_secs(60);

/// Why a topic rests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Rest {
    /// No broker has named it yet: at start, or because it does not exist.
    Unseen,
    /// It failed.
    Failed { class: ProblemClass, until: Instant },
    /// Until nothing of it is with the producer.
    Waits(Wait),
}

/// Why a topic waits for what it has with the producer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wait {
    /// Its records do not end while later ones of others do.
    Stalled,
    /// It has so much there that it could take the window from the others.
    Share,
    /// No record of any topic ends: what it has there is probe enough.
    Outage,
}

/// All topics that rest.
#[derive(Clone, Debug)]
pub struct Stops {
    topics: BTreeMap<TopicIndex, Rest>,
    failures: Vec<u32>,
    seen_missing: Vec<bool>,
    astray_until: Option<Instant>,
    jitter: Jitter,
}

impl Stops {
    /// At first every topic rests: its existence is not known, and a record sent to a missing topic would wait inside the producer.
    #[must_use]
    pub fn new(topics: usize) -> Self {
        Self {
            topics: (0..topics).map(|topic| (topic, Rest::Unseen)).collect(),
            failures: vec![0; topics],
            seen_missing: vec![false; topics],
            astray_until: None,
            jitter: Jitter::seeded(0),
        }
    }

    /// With pauses that differ from those of other relays.
    #[must_use]
    pub fn jittered(self, jitter: Jitter) -> Self {
        Self { jitter, ..self }
    }

    #[must_use]
    pub fn flows(&self, topic: TopicIndex) -> bool {
        !self.topics.contains_key(&topic)
    }

    /// Whether any topic flows.
    #[must_use]
    pub fn any_flows(&self) -> bool {
        self.topics.len() < self.failures.len()
    }

    /// Whether anything rests.
    #[must_use]
    pub fn any(&self) -> bool {
        !self.topics.is_empty() || self.astray_until.is_some()
    }

    /// A topic failed: it rests, longer each time.
    pub fn failed(&mut self, topic: TopicIndex, class: ProblemClass, now: Instant) {
        if class == ProblemClass::TopicMissing {
            return self.missing(topic);
        }
        if matches!(self.topics.get(&topic), Some(Rest::Failed { .. })) {
            return;
        }
        let pause = self.jitter.around(PAUSE_MAX.min(PAUSE_MIN * (1 << self.failures[topic].min(6))));
        self.failures[topic] += 1;
        self.topics.insert(topic, Rest::Failed { class, until: now + pause });
    }

    /// Whether [`Self::wait`] would say something new: a topic that rests for another reason goes on resting for it.
    #[must_use]
    pub fn can_wait(&self, topic: TopicIndex, wait: Wait) -> bool {
        match self.topics.get(&topic) {
            None => true,
            Some(Rest::Waits(before)) => *before != wait && *before != Wait::Stalled,
            Some(_) => false,
        }
    }

    /// A topic waits until nothing of it is with the producer any more.
    pub fn wait(&mut self, topic: TopicIndex, wait: Wait) {
        self.topics.insert(topic, Rest::Waits(wait));
    }

    #[must_use]
    pub fn is_stalled(&self, topic: TopicIndex) -> bool {
        self.topics.get(&topic) == Some(&Rest::Waits(Wait::Stalled))
    }

    /// A topic acknowledged a record.
    pub fn succeeded(&mut self, topic: TopicIndex) {
        self.failures[topic] = 0;
    }

    /// Rows without a declared topic were found: they rest.
    pub fn astray(&mut self, now: Instant) {
        self.astray_until.get_or_insert(now + ASTRAY_PAUSE);
    }

    /// The brokers do not know the topic.
    pub fn missing(&mut self, topic: TopicIndex) {
        self.seen_missing[topic] = true;
        self.topics.insert(topic, Rest::Unseen);
    }

    /// The brokers know the topic. Returns whether it may flow now.
    pub fn exists(&mut self, topic: TopicIndex) -> bool {
        self.seen_missing[topic] = false;
        if self.topics.get(&topic) != Some(&Rest::Unseen) {
            return false;
        }
        self.topics.remove(&topic);
        true
    }

    /// Lets everything flow whose pause is over; `drained` says whether no record of a topic is with the producer any more, so that it starts
    /// again at its lowest row. Returns whether anything changed.
    pub fn resume(&mut self, now: Instant, drained: impl Fn(TopicIndex) -> bool) -> bool {
        let before = self.topics.len();
        let over = |topic, rest: &Rest| match rest {
            Rest::Failed { until, .. } => *until <= now && drained(topic),
            Rest::Waits(_) => drained(topic),
            Rest::Unseen => false,
        };
        self.topics.retain(|topic, rest| !over(*topic, rest));
        let astray_over = self.astray_until.is_some_and(|until| until <= now);
        if astray_over {
            self.astray_until = None;
        }
        astray_over || self.topics.len() < before
    }

    /// When [`Self::resume`] is to be asked next.
    #[must_use]
    pub fn next(&self, drained: impl Fn(TopicIndex) -> bool) -> Option<Instant> {
        let until = |(topic, rest): (&TopicIndex, &Rest)| match rest {
            Rest::Failed { until, .. } if drained(*topic) => Some(*until),
            _ => None,
        };
        self.topics.iter().filter_map(until).chain(self.astray_until).min()
    }

    /// Topics that rest for a reason to report, and whether rows went astray.
    #[must_use]
    pub fn reasons(&self) -> (Vec<(TopicIndex, ProblemClass)>, bool) {
        let reason = |(topic, rest): (&TopicIndex, &Rest)| match rest {
            Rest::Failed { class, .. } => Some((*topic, *class)),
            Rest::Waits(Wait::Stalled) => Some((*topic, ProblemClass::TopicStalled)),
            Rest::Waits(_) => None,
            Rest::Unseen => self.seen_missing[*topic].then_some((*topic, ProblemClass::TopicMissing)),
        };
        (self.topics.iter().filter_map(reason).collect(), self.astray_until.is_some())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_topic_flows_only_once_a_broker_has_named_it() {
        let mut stops = Stops::new(1);
        assert!(!stops.flows(0));
        assert!(stops.exists(0) && stops.flows(0));
        stops.missing(0);
        assert_eq!(stops.reasons().0, vec![(0, ProblemClass::TopicMissing)]);
    }

    #[test]
    fn a_failed_topic_rests_longer_each_time_until_a_success() {
        let (mut stops, start) = (Stops::new(1), Instant::now());
        stops.exists(0);
        for pause in [1, 2, 4] {
            stops.failed(0, ProblemClass::TopicNotAuthorized, start);
            let over = start + Duration::from_secs(pause);
            assert!(!stops.resume(start + Duration::from_millis(pause * 500 - 1), |_| true), "at least half of it");
            assert!(!stops.resume(over, |_| false), "records of it are still with the producer");
            assert!(stops.resume(over, |_| true) && stops.flows(0));
        }
        stops.succeeded(0);
        stops.failed(0, ProblemClass::TopicNotAuthorized, start);
        assert!(stops.next(|_| true) <= Some(start + PAUSE_MIN));
    }

    #[test]
    fn relays_do_not_try_a_failed_topic_again_at_the_same_moment() {
        let start = Instant::now();
        let next = |seed| {
            let mut stops = Stops::new(1).jittered(Jitter::seeded(seed));
            stops.exists(0);
            stops.failed(0, ProblemClass::TopicNotAuthorized, start);
            stops.next(|_| true)
        };
        let all: std::collections::BTreeSet<_> = (0..50).map(next).collect();
        assert_eq!(all.len(), 50);
    }

    #[test]
    fn a_topic_that_waits_flows_when_nothing_of_it_is_with_the_producer() {
        let (mut stops, now) = (Stops::new(2), Instant::now());
        stops.exists(0);
        stops.exists(1);
        stops.wait(0, Wait::Share);
        assert!(stops.can_wait(0, Wait::Stalled) && !stops.can_wait(0, Wait::Share) && stops.any_flows());
        assert_eq!(stops.reasons().0, vec![], "that it has much there is nobody's business");
        stops.wait(0, Wait::Stalled);
        assert!(!stops.can_wait(0, Wait::Outage), "it is known more exactly");
        assert_eq!(stops.reasons().0, vec![(0, ProblemClass::TopicStalled)]);
        assert!(!stops.resume(now, |_| false) && stops.resume(now, |_| true) && stops.flows(0));
        stops.failed(1, ProblemClass::TopicNotAuthorized, now);
        assert!(!stops.can_wait(1, Wait::Stalled), "it rests already");
    }
}
