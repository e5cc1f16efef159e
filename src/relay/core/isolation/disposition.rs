//! What becomes of a row that Kafka never takes, and of keys and topics that are parked. Pure.

use super::*;

impl Core {
    pub(super) fn judge(
        &mut self,
        topic: TopicIndex,
        row: &OutboxRow,
        class: ProblemClass,
        attempts: u32,
        now: Instant,
    ) {
        let disposition = self.routes.on_poison(topic).into();
        let name = RowIdentity {
            lane: row.lane,
            id: row.id,
            event_id: row.event_id,
        };
        let key = self.isolation.rest(
            topic,
            row.key(),
            RestingKey {
                lane: row.lane,
                rest: Rest::Judged,
                head: Some(name),
            },
        );
        self.hold(row.lane, Excluded::Key(topic, Arc::clone(&key)), row.id - 1);
        // They are read again once the verdict is carried out: until then somebody else may come to
        // another one.
        let untried = self
            .isolation
            .trials
            .drop_where(|of, row| of == topic && row.key() == &*key);
        self.isolation.verdicts.push_back(RejectedRow {
            row: name,
            topic,
            key,
            class,
            attempts,
            disposition,
        });
        self.untried(&untried, now);
    }

    /// The rows that were to tell whether these topics take records again are not tried: those that
    /// flow next will tell.
    fn untried(&mut self, topics: &[TopicIndex], now: Instant) {
        for topic in topics {
            self.topic_works(*topic, now);
        }
    }

    /// The next verdict to carry out. [`Self::on_disposition_done`] or [`Self::on_disposition_failed`] must follow.
    pub fn next_disposition(&mut self) -> Option<RejectedRow> {
        self.isolation.verdicts.pop_front()
    }

    pub fn on_disposition_failed(&mut self, verdict: RejectedRow) {
        self.isolation.verdicts.push_front(verdict);
    }

    /// The database has carried the verdict out.
    pub fn on_disposition_done(&mut self, verdict: &RejectedRow, now: Instant) {
        let (topic, key, lane) = (verdict.topic, &verdict.key, verdict.row.lane);
        if !self.is_staying(lane) {
            return;
        }
        match verdict.disposition {
            Disposition::ParkKey => {
                self.isolation.rest(
                    topic,
                    key,
                    RestingKey {
                        lane,
                        rest: Rest::Parked { since: now },
                        head: Some(verdict.row),
                    },
                );
            }
            Disposition::DeadLetter => {
                let same = |other: &RejectedRow| other.topic == topic && other.key == *key;
                if !self.isolation.verdicts.iter().any(same) {
                    self.isolation.rest(
                        topic,
                        key,
                        RestingKey {
                            lane,
                            rest: Rest::OnTrial,
                            head: None,
                        },
                    );
                }
                self.end_trials(now);
            }
        }
    }

    // --- parked rows

    /// What the database says is parked in `lanes`, asked at `asked`: what is not in it is tried or
    /// flows again, what is new rests.
    pub fn set_parked(&mut self, parked: &Parked, lanes: &[i16], asked: Instant, now: Instant) {
        let index =
            |name: &str| (0..self.routes.len()).find(|topic| self.routes.name(*topic) == name);
        let topics = parked
            .topics
            .iter()
            .filter_map(|name| index(name))
            .collect();
        let listed: BTreeMap<(TopicIndex, &str), &ParkedKey> = parked
            .keys
            .iter()
            .filter_map(|parked| Some(((index(&parked.topic)?, parked.key.as_str()), parked)))
            .collect();
        for ((topic, key), parked) in &listed {
            self.key_is_parked(*topic, key, parked, asked);
        }
        let is_over = |topic, key: &str, resting: RestingKey| {
            let known = matches!(resting.rest, Rest::Parked { since } if since <= asked);
            known && lanes.contains(&i16::from(resting.lane)) && !listed.contains_key(&(topic, key))
        };
        let mut flowing = self.isolation.retry(is_over);
        let (freed, added) = self.topic_states.parked(topics);
        for topic in added {
            self.hold_all(&Excluded::Topic(topic));
        }
        flowing.extend(
            freed
                .into_iter()
                .filter(|topic| self.topic_states.is_active(*topic))
                .map(Excluded::Topic),
        );
        self.flow_again(&flowing, now);
    }

    fn key_is_parked(&mut self, topic: TopicIndex, key: &str, parked: &ParkedKey, asked: Instant) {
        let lane = parked.lane;
        let Some(state) = self.lanes[usize::from(lane)].as_ref() else {
            return;
        };
        if self.isolation.resting_key(topic, key).is_some() {
            return;
        }
        let position = self.position(lane, state);
        let head = parked
            .head
            .map(|(id, event_id)| RowIdentity { lane, id, event_id });
        let key = self.isolation.rest(
            topic,
            key,
            RestingKey {
                lane,
                rest: Rest::Parked { since: asked },
                head,
            },
        );
        self.hold(lane, Excluded::Key(topic, key), position);
    }

    /// Keys that are parked, by topic.
    #[must_use]
    pub fn parked_keys(&self) -> Vec<(TopicIndex, usize)> {
        let count = |keys: &BTreeMap<Arc<str>, RestingKey>| {
            keys.values().filter(|resting| resting.is_parked()).count()
        };
        self.isolation
            .keys
            .iter()
            .map(|(topic, keys)| (*topic, count(keys)))
            .filter(|(_, keys)| *keys > 0)
            .collect()
    }

    /// Topics that a person parked.
    pub fn parked_topics(&self) -> impl Iterator<Item = TopicIndex> {
        (0..self.routes.len()).filter(|topic| self.topic_states.is_parked(*topic))
    }

    // --- lanes that go

    pub(super) fn is_staying(&self, lane: u8) -> bool {
        self.lanes[usize::from(lane)]
            .as_ref()
            .is_some_and(|lane| !lane.draining)
    }

    pub(super) fn hold(&mut self, lane: u8, left: Excluded, id: i64) {
        if let Some(state) = self.lanes[usize::from(lane)].as_mut() {
            state.hold(left, id);
        }
    }

    pub(in crate::relay::core) fn drop_trials_of_leaving_lanes(&mut self, now: Instant) {
        let leaving: Vec<u8> = (0..LANES as u8)
            .filter(|lane| !self.is_staying(*lane))
            .collect();
        let untried = self
            .isolation
            .trials
            .drop_where(|_, row| leaving.contains(&row.lane));
        self.untried(&untried, now);
    }

    /// Another relay decides about their keys from now on.
    pub(in crate::relay::core) fn forget_keys_of_lost_lanes(&mut self) {
        let lost: Vec<u8> = (0..LANES as u8)
            .filter(|lane| self.lanes[usize::from(*lane)].is_none())
            .collect();
        end_rest(&mut self.isolation.keys, |_, _, resting| {
            lost.contains(&resting.lane)
        });
        self.isolation
            .verdicts
            .retain(|verdict| !lost.contains(&verdict.row.lane));
    }
}
