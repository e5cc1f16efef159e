//! Topics that rest, so that one sick topic stops only itself: which, why, and when they may flow
//! again. Pure.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

use crate::{
    relay::core::{in_flight::TopicIndex, jitter::Jitter},
    report::ProblemClass,
};

/// First pause of a topic that failed; doubles up to [`PAUSE_MAX`].
const PAUSE_MIN: Duration = Duration::from_secs(1);
const PAUSE_MAX: Duration = Duration::from_secs(60);
/// How often rows without a declared topic are looked for again: somebody may have removed them.
const ASTRAY_PAUSE: Duration = Duration::from_secs(60);

/// Whether the brokers list a topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TopicPresence {
    /// They list it, with a leader to write to.
    Present,
    /// They do not list it, or refuse to describe it.
    Missing,
}

/// Why a topic rests.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Rest {
    /// No broker has named it yet, at start or because it does not exist; `seen`: now one has.
    Unseen { seen: bool },
    /// It failed.
    Failed { class: ProblemClass, until: Instant },
    /// A batch of it was refused, and its rows are not known yet.
    Suspect,
    /// A row of it is on trial: whether it takes records again.
    OnTrial { class: ProblemClass },
    /// Until nothing of it is with a producer.
    Waits,
}

/// After a refused record the rows of its topic go by the trial producer for so long: each refusal
/// there costs no other topic anything.
const SLOW_FOR: Duration = Duration::from_secs(60);

/// All topics that rest.
#[derive(Clone, Debug, Hash)]
pub struct TopicStates {
    topics: BTreeMap<TopicIndex, Rest>,
    /// Parked by a person.
    parked: BTreeSet<TopicIndex>,
    slow_until: Vec<Option<Instant>>,
    failures: Vec<u32>,
    seen_missing: Vec<bool>,
    astray_until: Option<Instant>,
    jitter: Jitter,
}

impl TopicStates {
    /// At first every topic rests: its existence is not known, and a record sent to a missing topic
    /// would wait inside the producer.
    #[must_use]
    pub fn new(topics: usize) -> Self {
        Self {
            topics: (0..topics)
                .map(|topic| (topic, Rest::Unseen { seen: false }))
                .collect(),
            parked: BTreeSet::new(),
            slow_until: vec![None; topics],
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
    pub fn is_active(&self, topic: TopicIndex) -> bool {
        !self.topics.contains_key(&topic) && !self.parked.contains(&topic)
    }

    /// Whether any topic flows.
    #[must_use]
    pub fn any_is_active(&self) -> bool {
        (0..self.failures.len()).any(|topic| self.is_active(topic))
    }

    /// Topics that rest.
    pub fn resting(&self) -> impl Iterator<Item = TopicIndex> {
        self.topics
            .keys()
            .chain(
                self.parked
                    .iter()
                    .filter(|topic| !self.topics.contains_key(topic)),
            )
            .copied()
    }

    /// Whether a person parked it.
    #[must_use]
    pub fn is_parked(&self, topic: TopicIndex) -> bool {
        self.parked.contains(&topic)
    }

    #[must_use]
    pub fn is_astray(&self) -> bool {
        self.astray_until.is_some()
    }

    /// Whether anything rests.
    #[must_use]
    pub fn any(&self) -> bool {
        !self.topics.is_empty() || !self.parked.is_empty() || self.astray_until.is_some()
    }

    /// A topic failed: it rests, longer each time.
    pub fn failed(&mut self, topic: TopicIndex, class: ProblemClass, now: Instant) {
        if class == ProblemClass::TopicMissing {
            self.seen_missing[topic] = true;
            self.topics.insert(topic, Rest::Unseen { seen: false });
            return;
        }
        if matches!(self.topics.get(&topic), Some(Rest::Failed { .. })) {
            return;
        }
        let pause = self
            .jitter
            .around(PAUSE_MAX.min(PAUSE_MIN * (1 << self.failures[topic].min(6))));
        self.failures[topic] += 1;
        self.topics.insert(
            topic,
            Rest::Failed {
                class,
                until: now + pause,
            },
        );
    }

    /// A topic that flows waits until nothing of it is with a producer any more.
    pub fn wait(&mut self, topic: TopicIndex) {
        self.topics.entry(topic).or_insert(Rest::Waits);
    }

    /// Topics that waited, and of which nothing is with a producer any more. Each of them must
    /// [`Self::flow`].
    #[must_use]
    pub fn waited(&self, drained: impl Fn(TopicIndex) -> bool) -> Vec<TopicIndex> {
        let over = |(topic, rest): (&TopicIndex, &Rest)| *rest == Rest::Waits && drained(*topic);
        self.topics
            .iter()
            .filter(|entry| over(*entry))
            .map(|(topic, _)| *topic)
            .collect()
    }

    /// A topic acknowledged a record.
    pub fn succeeded(&mut self, topic: TopicIndex) {
        self.failures[topic] = 0;
    }

    /// A batch of a topic was refused: it rests until its rows are known.
    pub fn suspect(&mut self, topic: TopicIndex) {
        if !matches!(self.topics.get(&topic), Some(Rest::Failed { .. })) {
            self.topics.insert(topic, Rest::Suspect);
        }
    }

    /// The rows of the refused batch are known: the topic flows without them, slowly. False: it
    /// rests for another reason by now.
    pub fn identified(&mut self, topic: TopicIndex, now: Instant) -> bool {
        let was_suspect = self.topics.get(&topic) == Some(&Rest::Suspect);
        if was_suspect {
            self.slow_until[topic] = Some(now + SLOW_FOR);
            self.end_rest(topic);
        }
        was_suspect
    }

    /// A record of the topic was refused on trial. A topic that is not slow stays so: its rows are
    /// with the main producer, and a row that went by the other one could overtake them.
    pub fn refused(&mut self, topic: TopicIndex, now: Instant) {
        if self.is_slow(topic, now) {
            self.slow_until[topic] = Some(now + SLOW_FOR);
        }
    }

    /// Whether rows of the topic go by the trial producer.
    #[must_use]
    pub fn is_slow(&self, topic: TopicIndex, now: Instant) -> bool {
        self.slow_until[topic].is_some_and(|until| now < until)
    }

    /// Its batches were too large, and will be smaller: no record was to blame.
    pub fn acquit(&mut self, topic: TopicIndex) {
        self.slow_until[topic] = None;
    }

    /// A row of the topic goes on trial.
    pub fn on_trial(&mut self, topic: TopicIndex, class: ProblemClass) {
        self.topics.insert(topic, Rest::OnTrial { class });
    }

    /// The topic takes records again. Returns whether it may flow now.
    pub fn works(&mut self, topic: TopicIndex) -> bool {
        let was_on_trial = matches!(self.topics.get(&topic), Some(Rest::OnTrial { .. }));
        was_on_trial && self.end_rest(topic)
    }

    /// A person parked these topics, and no others. Returns those that were parked until now, and
    /// those that are from now on.
    pub fn parked(&mut self, parked: BTreeSet<TopicIndex>) -> (Vec<TopicIndex>, Vec<TopicIndex>) {
        let freed = self.parked.difference(&parked).copied().collect();
        let added = parked.difference(&self.parked).copied().collect();
        self.parked = parked;
        (freed, added)
    }

    /// Rows without a declared topic were found: they rest.
    pub fn astray(&mut self, now: Instant) {
        self.astray_until.get_or_insert(now + ASTRAY_PAUSE);
    }

    /// The brokers do not know the topic. What is on trial ends first.
    pub fn missing(&mut self, topic: TopicIndex) {
        self.seen_missing[topic] = true;
        if !matches!(
            self.topics.get(&topic),
            Some(Rest::OnTrial { .. } | Rest::Suspect)
        ) {
            self.topics.insert(topic, Rest::Unseen { seen: false });
        }
    }

    /// The brokers know the topic.
    pub fn exists(&mut self, topic: TopicIndex) {
        self.seen_missing[topic] = false;
        if let Some(Rest::Unseen { seen }) = self.topics.get_mut(&topic) {
            *seen = true;
        }
    }

    /// Its trial, or the look at its rows, is over: it flows, unless it is missing now.
    fn end_rest(&mut self, topic: TopicIndex) -> bool {
        if self.seen_missing[topic] {
            self.topics.insert(topic, Rest::Unseen { seen: false });
        } else {
            self.topics.remove(&topic);
        }
        !self.seen_missing[topic]
    }

    /// Topics whose pause is over and that no person parked; `drained` says whether no record of a
    /// topic is with the producer any more, so that it starts again at its lowest row. Each of them
    /// must go [`Self::on_trial`] or [`Self::flow`].
    #[must_use]
    pub fn due(
        &self,
        now: Instant,
        drained: impl Fn(TopicIndex) -> bool,
    ) -> Vec<(TopicIndex, ProblemClass)> {
        let due = |(topic, rest): (&TopicIndex, &Rest)| match rest {
            Rest::Failed { class, until } if *until <= now && drained(*topic) => {
                Some((*topic, *class))
            }
            Rest::Unseen { seen: true } if drained(*topic) => {
                Some((*topic, ProblemClass::TopicMissing))
            }
            _ => None,
        };
        self.unparked().filter_map(due).collect()
    }

    /// The topic flows again.
    pub fn flow(&mut self, topic: TopicIndex) {
        self.topics.remove(&topic);
    }

    /// Whether rows without a declared topic are to be looked for again.
    pub fn astray_is_over(&mut self, now: Instant) -> bool {
        let over = self.astray_until.is_some_and(|until| until <= now);
        if over {
            self.astray_until = None;
        }
        over
    }

    /// When something is due next.
    #[must_use]
    pub fn next(&self, now: Instant, drained: impl Fn(TopicIndex) -> bool) -> Option<Instant> {
        let until = |(topic, rest): (&TopicIndex, &Rest)| match rest {
            Rest::Unseen { seen: true } if drained(*topic) => Some(now),
            Rest::Failed { until, .. } if drained(*topic) => Some(*until),
            _ => None,
        };
        self.unparked()
            .filter_map(until)
            .chain(self.astray_until)
            .min()
    }

    fn unparked(&self) -> impl Iterator<Item = (&TopicIndex, &Rest)> {
        self.topics
            .iter()
            .filter(|(topic, _)| !self.is_parked(**topic))
    }

    /// Topics that rest for a reason to report, and whether rows went astray.
    #[must_use]
    pub fn reasons(&self) -> (Vec<(TopicIndex, ProblemClass)>, bool) {
        let reason = |(topic, rest): (&TopicIndex, &Rest)| match rest {
            Rest::Failed { class, .. } | Rest::OnTrial { class } => Some((*topic, *class)),
            Rest::Suspect | Rest::Waits => None,
            Rest::Unseen { .. } => {
                self.seen_missing[*topic].then_some((*topic, ProblemClass::TopicMissing))
            }
        };
        (
            self.topics.iter().filter_map(reason).collect(),
            self.astray_until.is_some(),
        )
    }
}

#[cfg(test)]
mod tests;
