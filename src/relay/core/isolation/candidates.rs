//! Who is suspect: rows of a topic that failed, or of a batch that was refused, looked up by name.
//! Pure.

use super::*;

impl Core {
    pub(in crate::relay::core) fn topic_failed(
        &mut self,
        returned: ReturnedRow,
        class: ProblemClass,
        now: Instant,
    ) {
        let (row, topic) = (returned.row, returned.topic);
        self.hold_topic(topic);
        let head = self.isolation.heads.entry(topic).or_insert(row);
        if row.id < head.id {
            *head = row;
        }
        self.topic_states.failed(topic, class, now);
    }

    /// A topic has rested long enough: its head row is tried, so that a refusal costs nobody else
    /// their producer.
    pub(in crate::relay::core) fn try_topic(
        &mut self,
        topic: TopicIndex,
        class: ProblemClass,
        now: Instant,
    ) {
        match self.isolation.heads.remove(&topic) {
            Some(head) => {
                self.topic_states.on_trial(topic, class);
                self.isolation.lookups.push_back(Lookup {
                    topic,
                    class,
                    purpose: Purpose::Topic,
                    rows: vec![head],
                });
            }
            None => {
                self.topic_states.flow(topic);
                self.topic_flows_again(topic, now);
            }
        }
    }

    // --- a batch was refused

    pub(in crate::relay::core) fn suspect(&mut self, returned: ReturnedRow, class: ProblemClass) {
        self.hold_topic(returned.topic);
        self.topic_states.suspect(returned.topic);
        let (_, rows) = self
            .isolation
            .suspects
            .entry(returned.topic)
            .or_insert_with(|| (class, BTreeSet::new()));
        rows.insert(returned.row);
    }

    /// The producer refused the row of this slot at once, without asking the brokers: no trial is
    /// needed.
    pub fn on_rejected_by_producer(
        &mut self,
        slot: Slot,
        row: &OutboxRow,
        class: ProblemClass,
        now: Instant,
    ) {
        self.unacknowledged.ended(slot);
        self.first_record_gate_of(slot).ended(slot, false, now);
        if self.isolation.is_on_trial(slot) {
            return self.trial_reported(slot, Outcome::Rejected(class), now);
        }
        if let Some(returned) = self.in_flight.failed(slot) {
            self.read_again(returned);
            self.judge(returned.topic, row, class, 1, now);
        }
    }

    /// The next rows to look up. A topic's come once all its reports are in. [`Self::on_looked_up`] or
    /// [`Self::on_lookup_failed`] must follow.
    pub fn next_lookup(&mut self) -> Option<Lookup> {
        let ready = self
            .isolation
            .suspects
            .keys()
            .copied()
            .find(|topic| self.in_flight.sent_of(*topic) == 0);
        if let Some(topic) = ready
            && let Some((class, rows)) = self.isolation.suspects.remove(&topic)
        {
            return Some(Lookup {
                topic,
                class,
                purpose: Purpose::Suspects,
                rows: rows.into_iter().collect(),
            });
        }
        self.isolation.lookups.pop_front()
    }

    pub fn on_lookup_failed(&mut self, lookup: Lookup) {
        self.isolation.lookups.push_back(lookup);
    }

    /// The rows that were looked up, as far as they still exist, by lane and id.
    pub fn on_looked_up(&mut self, lookup: &Lookup, mut rows: Vec<OutboxRow>, now: Instant) {
        let topic = lookup.topic;
        rows.retain(|row| {
            self.is_staying(row.lane) && !self.in_flight.holds(row.lane, row.id, row.event_id)
        });
        if lookup.purpose == Purpose::Topic {
            return match rows.pop() {
                Some(row) => self.isolation.trials.try_topic(topic, row),
                None => self.topic_works(topic, now),
            };
        }
        match &lookup.purpose {
            Purpose::Retry(key) => self.isolation.is_retried(topic, key),
            // Whatever it rests for, its rows are read again afterwards.
            _ if !self.topic_states.identified(topic, now) => return,
            _ => {}
        }
        for row in &rows {
            let resting = RestingKey {
                lane: row.lane,
                rest: Rest::OnTrial,
                head: None,
            };
            let key = self.isolation.rest(topic, row.key(), resting);
            self.hold(row.lane, Excluded::Key(topic, key), row.id - 1);
        }
        // Of one key's rows the lanes are the same, so their order stays.
        self.isolation
            .trials
            .suspect(topic, Some(lookup.class), rows);
        if let Purpose::Retry(_) = lookup.purpose {
            self.end_trials(now);
        } else {
            self.topic_flows_again(topic, now);
        }
    }
}
