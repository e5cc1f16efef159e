//! Which rows are under suspicion: those of a rejected batch, or the lowest one of a topic that
//! failed. They are looked up by identity. Pure.

use std::time::Instant;

use crate::{
    outbox::OutboxRow,
    relay::core::{
        Core,
        excluded::Excluded,
        ids::TopicIndex,
        in_flight::ReturnedRow,
        isolation::{Lookup, LookupPurpose, PausedKey, class_of},
    },
    report::ProblemClass,
};

impl Core {
    /// Pauses the topic of a row that failed, and remembers the lowest such row.
    pub(in crate::relay::core) fn on_topic_failed(
        &mut self,
        returned: ReturnedRow,
        class: ProblemClass,
        now: Instant,
    ) {
        self.exclude_topic(returned.topic);
        self.isolation.note_head(returned);
        self.topics.on_failed(returned.topic, class, now);
    }

    /// Probes a topic whose pause is over with the lowest row that failed, so that a rejection
    /// costs no other topic its producer. Without such a row the topic is active at once.
    pub(in crate::relay::core) fn probe_topic(
        &mut self,
        topic: TopicIndex,
        class: ProblemClass,
        now: Instant,
    ) {
        let Some(head) = self.isolation.heads.remove(&topic) else {
            return self.activate_topic(topic, now);
        };
        self.topics[topic].probe(class);
        let lookup = Lookup::head(topic, class, head);
        self.isolation.lookups.push_back(lookup);
    }

    /// Adds a row of a rejected batch, and pauses its topic.
    pub(in crate::relay::core) fn add_candidate(
        &mut self,
        returned: ReturnedRow,
        class: ProblemClass,
    ) {
        let topic = returned.topic;
        self.exclude_topic(topic);
        self.topics[topic].isolate();
        self.isolation.add_candidate(returned, class);
    }

    /// The next rows to look up; those of a rejected batch once no row of their topic is with a
    /// producer. [`Self::on_looked_up`] or [`Self::on_lookup_failed`] must follow.
    pub fn next_lookup(&mut self) -> Option<Lookup> {
        self.next_candidates().or_else(|| self.next_queued())
    }

    /// The first look-up in the queue whose topic has not enough rows to probe.
    fn next_queued(&mut self) -> Option<Lookup> {
        let isolation = &self.isolation;
        let mut lookups = isolation.lookups.iter();
        let at = lookups.position(|lookup| !isolation.has_enough_bytes(lookup.topic))?;
        self.isolation.lookups.remove(at)
    }

    fn next_candidates(&mut self) -> Option<Lookup> {
        let topic = self.drained_topic_with_candidates()?;
        let candidates = self.isolation.candidates.remove(&topic)?;
        Some(Lookup::candidates(topic, candidates))
    }

    fn drained_topic_with_candidates(&self) -> Option<TopicIndex> {
        let mut topics = self.isolation.candidates.keys().copied();
        topics.find(|topic| self.topics[*topic].is_drained())
    }

    /// Records that a look-up failed: it is done again.
    pub fn on_lookup_failed(&mut self, lookup: Lookup) {
        self.isolation.lookups.push_back(lookup);
    }

    /// Records the rows that were looked up and still exist, ordered by lane and id.
    /// The payload of one that was not read is read later.
    pub fn on_looked_up(&mut self, lookup: &Lookup, mut rows: Vec<OutboxRow>, now: Instant) {
        let topic = lookup.topic;
        // Since the look-up began, a lane may have begun to leave, and a row may have been fetched.
        rows.retain(|row| self.may_probe(row));
        let mut rows = self.reject_faulty(topic, rows, now);
        match &lookup.purpose {
            LookupPurpose::ProbeTopic => match rows.pop() {
                Some(row) => self.isolation.bisect.add_topic_row(topic, row),
                None => self.on_topic_accepted(topic, now),
            },
            LookupPurpose::RetryKey(key) => {
                self.isolation.on_retry_looked_up(topic, key);
                self.pause_candidates(topic, lookup.class, rows);
                self.end_probed_keys(now);
            }
            LookupPurpose::Alone(key) => {
                // Without the pause of its key, a row may be with the main producer soon.
                if self.isolation.on_retry_looked_up(topic, key) {
                    for row in rows {
                        self.isolation.bisect.add_alone(topic, row);
                    }
                }
                self.end_probed_keys(now);
            }
            LookupPurpose::Candidates => self.on_candidates_known(lookup, rows, now),
        }
    }

    /// Rejects rows that cannot become records, and returns the others that were read.
    fn reject_faulty(
        &mut self,
        topic: TopicIndex,
        rows: Vec<OutboxRow>,
        now: Instant,
    ) -> Vec<OutboxRow> {
        let (mut whole, others): (Vec<_>, Vec<_>) =
            rows.into_iter().partition(|row| row.value().is_some());
        for row in others.iter().filter(|row| row.fault().is_some()) {
            whole.retain(|later| later.key() != row.key());
            self.reject(topic, row, class_of(row.fault()), 1, now);
        }
        whole
    }

    fn may_probe(&self, row: &OutboxRow) -> bool {
        self.is_kept(row.lane) && !self.in_flight.holds(row.identity())
    }

    /// Resumes the topic of a rejected batch whose rows are known: only their keys stay paused.
    fn on_candidates_known(&mut self, lookup: &Lookup, rows: Vec<OutboxRow>, now: Instant) {
        // If the topic is paused for another reason by now, its rows are read again after that
        // pause.
        if self.topics[lookup.topic].on_candidates_known(now) {
            self.pause_candidates(lookup.topic, lookup.class, rows);
            self.resume_topic(lookup.topic, now);
        }
    }

    /// Pauses the keys of candidates, and queues the rows for their probes. Rows of one key are all
    /// in one lane, so their order is kept.
    fn pause_candidates(&mut self, topic: TopicIndex, class: ProblemClass, rows: Vec<OutboxRow>) {
        for row in &rows {
            self.pause_candidate(topic, row);
        }
        self.isolation
            .bisect
            .add_candidates(topic, Some(class), rows);
    }

    /// Pauses the key of a candidate.
    fn pause_candidate(&mut self, topic: TopicIndex, row: &OutboxRow) {
        let paused = PausedKey::probing(row.lane);
        let key = self.isolation.pause_key(topic, row.key(), paused);
        self.exclude_from(row, Excluded::Key(topic, key));
    }
}
