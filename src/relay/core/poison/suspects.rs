//! Who is suspect: rows of a topic that failed, or of a batch that was refused, looked up by name.
//! Pure.

use super::*;

impl Core {
    pub(in crate::relay::core) fn topic_failed(
        &mut self,
        given_back: GivenBack,
        class: ProblemClass,
        now: Instant,
    ) {
        let (row, topic) = (given_back.row, given_back.topic);
        self.hold_topic(topic);
        let head = self.poison.heads.entry(topic).or_insert(row);
        if row.id < head.id {
            *head = row;
        }
        self.stops.failed(topic, class, now);
    }

    /// A topic has rested long enough: its head row is tried, so that a refusal costs nobody else
    /// their producer.
    pub(in crate::relay::core) fn try_topic(
        &mut self,
        topic: TopicIndex,
        class: ProblemClass,
        now: Instant,
    ) {
        match self.poison.heads.remove(&topic) {
            Some(head) => {
                self.stops.on_trial(topic, class);
                self.poison.lookups.push_back(Lookup {
                    topic,
                    class,
                    purpose: Purpose::Topic,
                    rows: vec![head],
                });
            }
            None => {
                self.stops.flow(topic);
                self.topic_flows_again(topic, now);
            }
        }
    }

    // --- a batch was refused

    pub(in crate::relay::core) fn suspect(&mut self, given_back: GivenBack, class: ProblemClass) {
        self.hold_topic(given_back.topic);
        self.stops.suspect(given_back.topic);
        let (_, rows) = self
            .poison
            .suspects
            .entry(given_back.topic)
            .or_insert_with(|| (class, BTreeSet::new()));
        rows.insert(given_back.row);
    }

    /// The producer refused the row of this slot at once, without asking the brokers: no trial is
    /// needed.
    pub fn refused(&mut self, slot: Slot, row: &OutboxRow, class: ProblemClass, now: Instant) {
        self.outstanding.ended(slot);
        self.openers_of(slot).ended(slot, false, now);
        if self.poison.is_on_trial(slot) {
            return self.trial_reported(slot, Outcome::Refused(class), now);
        }
        if let Some(given_back) = self.window.failed(slot) {
            self.read_again(given_back);
            self.judge(given_back.topic, row, class, 1, now);
        }
    }

    /// The next rows to look up. A topic's come once all its reports are in. [`Self::looked_up`] or
    /// [`Self::lookup_failed`] must follow.
    pub fn next_lookup(&mut self) -> Option<Lookup> {
        let ready = self
            .poison
            .suspects
            .keys()
            .copied()
            .find(|topic| self.window.sent_of(*topic) == 0);
        if let Some(topic) = ready
            && let Some((class, rows)) = self.poison.suspects.remove(&topic)
        {
            return Some(Lookup {
                topic,
                class,
                purpose: Purpose::Suspects,
                rows: rows.into_iter().collect(),
            });
        }
        self.poison.lookups.pop_front()
    }

    pub fn lookup_failed(&mut self, lookup: Lookup) {
        self.poison.lookups.push_back(lookup);
    }

    /// The rows that were looked up, as far as they still exist, by lane and id.
    pub fn looked_up(&mut self, lookup: &Lookup, mut rows: Vec<OutboxRow>, now: Instant) {
        let topic = lookup.topic;
        rows.retain(|row| {
            self.is_staying(row.lane) && !self.window.holds(row.lane, row.id, row.event_id)
        });
        if lookup.purpose == Purpose::Topic {
            return match rows.pop() {
                Some(row) => self.poison.trials.try_topic(topic, row),
                None => self.topic_works(topic, now),
            };
        }
        match &lookup.purpose {
            Purpose::Retry(key) => self.poison.is_retried(topic, key),
            // Whatever it rests for, its rows are read again afterwards.
            _ if !self.stops.identified(topic, now) => return,
            _ => {}
        }
        for row in &rows {
            let resting = RestingKey {
                lane: row.lane,
                rest: Rest::OnTrial,
                head: None,
            };
            let key = self.poison.rest(topic, row.key(), resting);
            self.hold(row.lane, Left::Key(topic, key), row.id - 1);
        }
        // Of one key's rows the lanes are the same, so their order stays.
        self.poison.trials.suspect(topic, Some(lookup.class), rows);
        if let Purpose::Retry(_) = lookup.purpose {
            self.end_trials(now);
        } else {
            self.topic_flows_again(topic, now);
        }
    }
}
