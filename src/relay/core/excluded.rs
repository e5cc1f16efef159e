//! What fetches leave out because it is paused, and how its rows are read again when it is not.
//! Pure.

use std::{sync::Arc, time::Instant};

use crate::{
    outbox::{FetchFilter, Lane, OutboxRow, RowId},
    relay::core::{Core, ids::TopicIndex, topic_state::TopicPresence},
};

/// Paused keys that a fetch leaves out at most. With more of them it reads their rows, too, and the
/// relay drops these: every fetch would have to send all keys to the database.
///
/// In tests few, so that small models have more of them.
const EXCLUDED_KEYS_MAX: usize = if cfg!(test) { 1 } else { 128 };

/// Rows that fetches leave out. They stay in the table; each lane remembers an id above which they
/// are.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Excluded {
    /// All rows of a topic.
    Topic(TopicIndex),
    /// All rows of a key of a topic.
    Key(TopicIndex, Arc<str>),
    /// All rows without a declared topic.
    Undeclared,
}

impl Core {
    /// Topics that are left out, and rows without one.
    pub(super) fn excluded_topics(&self) -> impl Iterator<Item = Excluded> {
        let undeclared = self.topics.has_undeclared().then_some(Excluded::Undeclared);
        self.topics.paused().map(Excluded::Topic).chain(undeclared)
    }

    /// The rows that a fetch is restricted to; `None`: all.
    pub(super) fn fetch_filter(&self) -> Option<FetchFilter> {
        let is_restricted = self.topics.any_is_excluded() || self.leaves_out_keys();
        is_restricted.then(|| self.filter_of_active())
    }

    fn leaves_out_keys(&self) -> bool {
        (1..=EXCLUDED_KEYS_MAX).contains(&self.isolation.paused_keys_count())
    }

    /// The filter of a fetch that leaves out everything that is paused.
    fn filter_of_active(&self) -> FetchFilter {
        let mut filter = self.routes.filter(|topic| self.topics[topic].is_active());
        if self.leaves_out_keys() {
            filter.paused_keys = self.isolation.paused_keys(|topic| self.routes.name(topic));
        }
        if self.topics.has_undeclared() {
            filter.declared = None;
        }
        filter
    }

    /// Leaves rows of a lane out of fetches, all of which have ids above `id`.
    pub(super) fn exclude(&mut self, lane: Lane, excluded: Excluded, id: RowId) {
        if let Some(lane) = self.lanes[lane.index()].as_mut() {
            lane.exclude(excluded, id);
        }
    }

    /// Leaves rows of a lane out of fetches, from this row on.
    pub(super) fn exclude_from(&mut self, row: &OutboxRow, excluded: Excluded) {
        self.exclude(row.lane, excluded, row.id.before());
    }

    /// Leaves rows out of fetches in all lanes, from what is not settled yet.
    pub(super) fn exclude_everywhere(&mut self, excluded: &Excluded) {
        for lane in Lane::all() {
            let owned = self.lanes[lane.index()].as_ref();
            if let Some(position) = owned.map(|owned| self.taken_up_to(lane, owned)) {
                self.exclude(lane, excluded.clone(), position);
            }
        }
    }

    /// Leaves a topic out of fetches, before it is paused. One that is paused is left out already,
    /// from below everything that is in flight of it.
    pub(super) fn exclude_topic(&mut self, topic: TopicIndex) {
        if self.topics[topic].is_active() {
            self.exclude_everywhere(&Excluded::Topic(topic));
        }
    }

    /// Records whether the brokers list a declared topic.
    pub fn on_topic_metadata(&mut self, topic: TopicIndex, presence: TopicPresence, now: Instant) {
        match presence {
            TopicPresence::Missing => self.on_topic_missing(topic),
            TopicPresence::Present => self.on_topic_present(topic, now),
        }
    }

    fn on_topic_missing(&mut self, topic: TopicIndex) {
        self.exclude_topic(topic);
        self.topics[topic].on_missing();
        // Brokers forget producers with the topic: created again, it would accept any sequence
        // number as the first.
        self.first_record_gate.forget_topic(topic);
        self.probe_first_record_gate.forget_topic(topic);
        self.single_gate.forget_topic(topic);
    }

    fn on_topic_present(&mut self, topic: TopicIndex, now: Instant) {
        self.topics[topic].on_present();
        self.resume_due(now);
    }

    /// When [`Self::resume_due`] has something to do next.
    #[must_use]
    pub fn next_resume_at(&self, now: Instant) -> Option<Instant> {
        self.topics.next_due_at(now)
    }

    /// Ends pauses that are over. A topic that failed is probed first.
    pub fn resume_due(&mut self, now: Instant) {
        for (topic, class) in self.topics.due(now) {
            self.probe_topic(topic, class, now);
        }
        self.resume_drained_topics(now);
        self.resume_undeclared(now);
    }

    /// Ends the pauses of topics that waited until no row of them was with a producer.
    fn resume_drained_topics(&mut self, now: Instant) {
        for topic in self.routes.indexes() {
            if self.topics[topic].has_drained() {
                self.activate_topic(topic, now);
            }
        }
    }

    /// Ends the pause of a topic, and reads its rows again unless a person has parked it.
    pub(super) fn activate_topic(&mut self, topic: TopicIndex, now: Instant) {
        self.topics[topic].activate();
        self.resume_topic(topic, now);
    }

    /// Reads rows without a declared topic again, if their pause is over.
    fn resume_undeclared(&mut self, now: Instant) {
        if self.topics.end_undeclared_pause(now) {
            self.resume(&[Excluded::Undeclared], now);
        }
    }

    /// Reads rows of a topic again whose pause is over, unless a person has parked it.
    pub(super) fn resume_topic(&mut self, topic: TopicIndex, now: Instant) {
        if self.topics[topic].is_active() {
            self.resume(&[Excluded::Topic(topic)], now);
        }
    }

    /// Reads rows again that were left out: every lane goes back to where the first of them may be.
    pub(super) fn resume(&mut self, excluded: &[Excluded], now: Instant) {
        if excluded.is_empty() {
            return;
        }
        // The fetch under way leaves them out, but what it covers would count as read.
        self.discard_fetch();
        for lane in self.lanes.iter_mut().flatten() {
            for excluded in excluded {
                lane.resume(excluded, &self.topics);
            }
        }
        self.fetch_at = now;
    }
}
