//! What rests and so is left out of fetches, and how its rows are found again when it flows. Pure.

use super::*;

impl Core {
    /// Topics that are left out, and rows without one.
    pub(super) fn left_topics(&self) -> impl Iterator<Item = Excluded> {
        self.topic_states
            .resting()
            .map(Excluded::Topic)
            .chain(self.topic_states.is_astray().then_some(Excluded::Astray))
    }

    /// What fetches leave out; `None`: nothing.
    pub(super) fn filter(&self) -> Option<FetchFilter> {
        let rests = self.topic_states.any() || self.isolation.any_key_rests();
        let flowing = || {
            self.routes
                .flowing(|topic| self.topic_states.is_active(topic))
        };
        rests.then(flowing).map(|flowing| FetchFilter {
            resting_keys: self.isolation.resting_keys(|topic| self.routes.name(topic)),
            declared: flowing.declared.filter(|_| !self.topic_states.is_astray()),
            ..flowing
        })
    }

    /// From now on fetches leave rows out: what is not settled yet must be found again when they do
    /// not.
    pub(super) fn hold_all(&mut self, left: &Excluded) {
        for lane in 0..LANES {
            if let Some(position) = self.lanes[lane]
                .as_ref()
                .map(|state| self.position(lane as u8, state))
                && let Some(state) = self.lanes[lane].as_mut()
            {
                state.hold(left.clone(), position);
            }
        }
    }

    /// The same for a topic, before it stops to flow. One that rests is held already, below all
    /// that is in flight of it.
    pub(super) fn hold_topic(&mut self, topic: TopicIndex) {
        if self.topic_states.is_active(topic) {
            self.hold_all(&Excluded::Topic(topic));
        }
    }

    /// The brokers answered whether a declared topic exists.
    pub fn on_topic_metadata(&mut self, topic: TopicIndex, presence: TopicPresence, now: Instant) {
        match presence {
            TopicPresence::Missing => {
                self.hold_topic(topic);
                self.topic_states.missing(topic);
                self.first_record_gate.forget_topic(topic);
                self.probe_first_record_gate.forget_topic(topic);
            }
            TopicPresence::Present => {
                self.topic_states.exists(topic);
                self.resume_due(now);
            }
        }
    }

    /// When [`Self::resume_due`] is to be asked next.
    #[must_use]
    pub fn next_resume_at(&self, now: Instant) -> Option<Instant> {
        self.topic_states
            .next(now, |topic| self.in_flight.sent_of(topic) == 0)
    }

    /// Lets flow again what has rested long enough; a topic that failed shows first that it takes a
    /// record.
    pub fn resume_due(&mut self, now: Instant) {
        for (topic, class) in self
            .topic_states
            .due(now, |topic| self.in_flight.sent_of(topic) == 0)
        {
            self.try_topic(topic, class, now);
        }
        for topic in self
            .topic_states
            .waited(|topic| self.in_flight.sent_of(topic) == 0)
        {
            self.topic_states.flow(topic);
            self.topic_flows_again(topic, now);
        }
        if self.topic_states.astray_is_over(now) {
            self.flow_again(&[Excluded::Astray], now);
        }
    }

    pub(super) fn topic_flows_again(&mut self, topic: TopicIndex, now: Instant) {
        // A person may have parked it meanwhile.
        if self.topic_states.is_active(topic) {
            self.flow_again(&[Excluded::Topic(topic)], now);
        }
    }

    /// Something flows again: every lane reads again from where its rows may have been left out.
    pub(super) fn flow_again(&mut self, flowing: &[Excluded], now: Instant) {
        if flowing.is_empty() {
            return;
        }
        self.fetch_is_stale = self.fetch_under_way;
        for lane in self.lanes.iter_mut().flatten() {
            for left in flowing {
                lane.let_flow(left, &self.topic_states);
            }
        }
        self.fetch_at = now;
    }
}

impl Lane {
    pub(super) fn hold(&mut self, left: Excluded, id: i64) {
        // What was left out with its topic is from now on left out with its key.
        let topic = if let Excluded::Key(topic, _) = &left {
            self.held.get(&Excluded::Topic(*topic))
        } else {
            None
        };
        let id = topic.map_or(id, |topic| id.min(*topic));
        let held = self.held.entry(left).or_insert(id);
        *held = id.min(*held);
    }

    pub(super) fn let_flow(&mut self, left: &Excluded, topic_states: &TopicStates) {
        let Some(held) = self.held.remove(left) else {
            return;
        };
        match left {
            // Its topic rests: what was left out with the key is from now on left out with the
            // topic.
            Excluded::Key(topic, _) if !topic_states.is_active(*topic) => {
                self.hold(Excluded::Topic(*topic), held)
            }
            _ => {
                self.marks.rewind(held);
                self.has_more = true;
            }
        }
    }
}
