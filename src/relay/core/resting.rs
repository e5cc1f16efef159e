//! What rests and so is left out of fetches, and how its rows are found again when it flows. Pure.

use super::*;

impl Core {
    /// Topics that are left out, and rows without one.
    pub(super) fn left_topics(&self) -> impl Iterator<Item = Left> {
        self.stops
            .resting()
            .map(Left::Topic)
            .chain(self.stops.is_astray().then_some(Left::Astray))
    }

    /// What fetches leave out; `None`: nothing.
    pub(super) fn filter(&self) -> Option<Flowing> {
        let rests = self.stops.any() || self.poison.any_key_rests();
        let flowing = || self.routes.flowing(|topic| self.stops.flows(topic));
        rests.then(flowing).map(|flowing| Flowing {
            resting_keys: self.poison.resting_keys(|topic| self.routes.name(topic)),
            declared: flowing.declared.filter(|_| !self.stops.is_astray()),
            ..flowing
        })
    }

    /// From now on fetches leave rows out: what is not settled yet must be found again when they do
    /// not.
    pub(super) fn hold_all(&mut self, left: &Left) {
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
        if self.stops.flows(topic) {
            self.hold_all(&Left::Topic(topic));
        }
    }

    /// What the brokers say about a declared topic.
    pub fn topic_seen(&mut self, topic: TopicIndex, exists: bool, now: Instant) {
        if !exists {
            self.hold_topic(topic);
            self.stops.missing(topic);
            self.openers.forget_topic(topic);
            self.trial_openers.forget_topic(topic);
        } else {
            self.stops.exists(topic);
            self.resume(now);
        }
    }

    /// When [`Self::resume`] is to be asked next.
    #[must_use]
    pub fn resume_at(&self, now: Instant) -> Option<Instant> {
        self.stops
            .next(now, |topic| self.window.sent_of(topic) == 0)
    }

    /// Lets flow again what has rested long enough; a topic that failed shows first that it takes a
    /// record.
    pub fn resume(&mut self, now: Instant) {
        for (topic, class) in self.stops.due(now, |topic| self.window.sent_of(topic) == 0) {
            self.try_topic(topic, class, now);
        }
        for topic in self.stops.waited(|topic| self.window.sent_of(topic) == 0) {
            self.stops.flow(topic);
            self.topic_flows_again(topic, now);
        }
        if self.stops.astray_is_over(now) {
            self.flow_again(&[Left::Astray], now);
        }
    }

    pub(super) fn topic_flows_again(&mut self, topic: TopicIndex, now: Instant) {
        // A person may have parked it meanwhile.
        if self.stops.flows(topic) {
            self.flow_again(&[Left::Topic(topic)], now);
        }
    }

    /// Something flows again: every lane reads again from where its rows may have been left out.
    pub(super) fn flow_again(&mut self, flowing: &[Left], now: Instant) {
        if flowing.is_empty() {
            return;
        }
        self.fetch_is_stale = self.fetch_under_way;
        for lane in self.lanes.iter_mut().flatten() {
            for left in flowing {
                lane.let_flow(left, &self.stops);
            }
        }
        self.fetch_at = now;
    }
}

impl Lane {
    pub(super) fn hold(&mut self, left: Left, id: i64) {
        // What was left out with its topic is from now on left out with its key.
        let topic = if let Left::Key(topic, _) = &left {
            self.held.get(&Left::Topic(*topic))
        } else {
            None
        };
        let id = topic.map_or(id, |topic| id.min(*topic));
        let held = self.held.entry(left).or_insert(id);
        *held = id.min(*held);
    }

    pub(super) fn let_flow(&mut self, left: &Left, stops: &Stops) {
        let Some(held) = self.held.remove(left) else {
            return;
        };
        match left {
            // Its topic rests: what was left out with the key is from now on left out with the
            // topic.
            Left::Key(topic, _) if !stops.flows(*topic) => self.hold(Left::Topic(*topic), held),
            _ => {
                self.marks.rewind(held);
                self.hungry = true;
            }
        }
    }
}
