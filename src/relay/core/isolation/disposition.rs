//! What becomes of a row that Kafka rejects for good, and which keys and topics are parked. Pure.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Instant,
};

use crate::{
    event_labels::EventLabels,
    outbox::{Lane, OutboxRow, Parked, ParkedKey, RowIdentity, TextColumn},
    relay::core::{
        Core,
        excluded::Excluded,
        ids::TopicIndex,
        isolation::{
            Disposition, KeyPause, PausedKey, RejectedRow, remove_keys, unreadable_column,
        },
    },
    report::ProblemClass,
};

/// Parked keys of declared topics, by topic and key.
type DeclaredKeys<'a> = BTreeMap<(TopicIndex, &'a str), &'a ParkedKey>;

impl Core {
    /// Records that Kafka rejected a row although it was sent alone: its key is paused until the
    /// database knows what happens to it.
    pub(in crate::relay::core) fn reject(
        &mut self,
        topic: TopicIndex,
        row: &OutboxRow,
        class: ProblemClass,
        attempts: u32,
        now: Instant,
    ) {
        let identity = row.identity();
        let paused = PausedKey {
            lane: row.lane,
            pause: KeyPause::Rejected,
            head: Some(identity),
            column: unreadable_column(row.fault()),
            class: Some(class),
        };
        let key = self.isolation.pause_key(topic, row.key(), paused);
        self.exclude_from(row, Excluded::Key(topic, Arc::clone(&key)));
        self.drop_probes_of_key(topic, &key, now);
        self.isolation.rejected.push_back(RejectedRow {
            row: identity,
            topic,
            key,
            class,
            attempts,
            disposition: self.routes.on_poison(topic).into(),
            fault: row.fault(),
            labels: EventLabels::of_row(row.text().event_type, row.text().headers),
        });
    }

    /// Drops candidates of a key of which a row was rejected.
    fn drop_probes_of_key(&mut self, topic: TopicIndex, key: &str, now: Instant) {
        // Later rows of the key are read again once the disposition is done. Until then another
        // relay may become the owner of the lane and decide otherwise.
        self.drop_probes(|of, row| of == topic && row.key() == key, now);
    }

    /// Drops candidates for which `is_unwanted` holds, and ends the probes of topics whose row was
    /// dropped before it was sent.
    fn drop_probes(&mut self, is_unwanted: impl Fn(TopicIndex, &OutboxRow) -> bool, now: Instant) {
        for topic in self.isolation.bisect.drop_candidates(is_unwanted) {
            self.on_topic_accepted(topic, now);
        }
    }

    /// The next rejected row to park or to move to `outbox.dead_letter`.
    /// [`Self::on_disposition_done`] or [`Self::on_disposition_failed`] must follow.
    pub fn next_disposition(&mut self) -> Option<RejectedRow> {
        self.isolation.rejected.pop_front()
    }

    /// The next rejected rows of which the keys are parked, at most `rows_max`, or the next one
    /// that is moved to `outbox.dead_letter`. [`Self::on_disposition_done`] or
    /// [`Self::on_disposition_failed`] must follow for each, in their order.
    pub fn next_dispositions(&mut self, rows_max: usize) -> Vec<RejectedRow> {
        let rejected = &mut self.isolation.rejected;
        let is_parked = |row: &&RejectedRow| row.disposition == Disposition::ParkKey;
        let parked = rejected.iter().take(rows_max).take_while(is_parked).count();
        rejected
            .drain(..parked.max(1).min(rejected.len()))
            .collect()
    }

    /// Records that the database could not store the disposition: it is stored again.
    pub fn on_disposition_failed(&mut self, rejected: RejectedRow) {
        self.isolation.rejected.push_front(rejected);
    }

    /// Records that the database has stored the disposition.
    pub fn on_disposition_done(&mut self, rejected: &RejectedRow, now: Instant) {
        if !self.is_kept(rejected.row.lane) {
            return;
        }
        match rejected.disposition {
            Disposition::ParkKey => self.isolation.on_row_parked(rejected, now),
            Disposition::DeadLetter => self.on_dead_lettered(rejected, now),
        }
    }

    /// Resumes the key of a row that was moved to `outbox.dead_letter`, unless another row of it
    /// was rejected, too.
    fn on_dead_lettered(&mut self, dead: &RejectedRow, now: Instant) {
        let is_of_key = |other: &RejectedRow| other.topic == dead.topic && other.key == dead.key;
        if !self.isolation.rejected.iter().any(is_of_key) {
            let paused = PausedKey::probing(dead.row.lane);
            self.isolation.pause_key(dead.topic, &dead.key, paused);
        }
        self.end_probed_keys(now);
    }

    /// Sets what the database lists as parked in `lanes`, as asked at `asked`. A key or a topic
    /// that is no longer listed is probed or active again; a new one is paused.
    pub fn set_parked(&mut self, parked: &Parked, lanes: &[Lane], asked: Instant, now: Instant) {
        let keys = self.declared_keys(&parked.keys);
        for ((topic, key), parked) in &keys {
            self.on_key_parked(*topic, key, parked, asked);
        }
        let mut resumed = self.end_parked_keys(&keys, lanes, asked);
        resumed.extend(self.set_parked_topics(&parked.topics));
        self.resume(&resumed, now);
        self.isolation.parked_as_listed = self.is_parked_as_listed(&keys, lanes);
    }

    /// Whether the list that was set last need not be set again while the database has the same.
    #[must_use]
    pub fn knows_parked(&self) -> bool {
        self.isolation.parked_as_listed
    }

    /// Whether the same keys are parked here as the database lists, in lanes that are owned. They
    /// are not while a listed key is probed: it may have to be paused later.
    fn is_parked_as_listed(&self, listed: &DeclaredKeys<'_>, lanes: &[Lane]) -> bool {
        let owned = listed.iter().filter(|(_, key)| self.owns(key.lane));
        let (mut count, mut all_parked) = (0, true);
        for ((topic, key), _) in owned {
            count += 1;
            all_parked &= self.isolation.is_parked(*topic, key);
        }
        all_parked && count == self.isolation.parked_keys_count(lanes)
    }

    /// Ends the pause of keys that were parked and are not listed any more. Returns those that are
    /// active at once.
    fn end_parked_keys(
        &mut self,
        listed: &DeclaredKeys<'_>,
        lanes: &[Lane],
        asked: Instant,
    ) -> Vec<Excluded> {
        self.isolation.retry_keys(|topic, key, paused| {
            // A race: a key that was parked after the read began may be missing in its result.
            let was_known = matches!(paused.pause, KeyPause::Parked { since } if since <= asked);
            was_known && lanes.contains(&paused.lane) && !listed.contains_key(&(topic, key))
        })
    }

    /// Parked keys of declared topics.
    fn declared_keys<'a>(&self, parked: &'a [ParkedKey]) -> DeclaredKeys<'a> {
        let mut keys = BTreeMap::new();
        for parked in parked {
            if let Some(topic) = self.routes.index(&parked.topic) {
                keys.insert((topic, parked.key.as_str()), parked);
            }
        }
        keys
    }

    /// Sets which topics a person parked. Returns those that are active again.
    fn set_parked_topics(&mut self, names: &[String]) -> Vec<Excluded> {
        let mut parked = BTreeSet::new();
        for name in names {
            parked.extend(self.routes.index(name));
        }
        let (freed, added) = self.topics.set_parked(&parked);
        for topic in added {
            self.exclude_everywhere(&Excluded::Topic(topic));
        }
        let mut resumed = Vec::new();
        for topic in freed {
            if self.topics[topic].is_active() {
                resumed.push(Excluded::Topic(topic));
            }
        }
        resumed
    }

    /// Pauses a key that the database lists as parked, unless it is paused already.
    fn on_key_parked(&mut self, topic: TopicIndex, key: &str, parked: &ParkedKey, asked: Instant) {
        let lane = parked.lane;
        let Some(owned) = self.lanes[lane.index()].as_ref() else {
            return;
        };
        if self.isolation.paused_key(topic, key).is_some() {
            return;
        }
        let position = self.taken_up_to(lane, owned);
        let head = head_of(parked);
        let paused = PausedKey {
            head,
            class: head.map(|_| parked.class),
            ..PausedKey::parked(lane, asked)
        };
        let key = self.isolation.pause_key(topic, key, paused);
        self.exclude(lane, Excluded::Key(topic, key), position);
    }

    /// Number of parked keys, by topic and by why the row was rejected that they wait behind.
    /// `None` is the reason of keys that a person parked.
    #[must_use]
    pub fn parked_keys(&self) -> BTreeMap<(TopicIndex, Option<ProblemClass>), usize> {
        let mut parked = BTreeMap::new();
        for (topic, keys) in &self.isolation.paused {
            for paused in keys.values().filter(|paused| paused.is_parked()) {
                *parked.entry((*topic, paused.class)).or_default() += 1;
            }
        }
        parked
    }

    /// Parked rows with a text that cannot become UTF-8: topic, row and column.
    pub fn unreadable_rows(&self) -> impl Iterator<Item = (TopicIndex, RowIdentity, TextColumn)> {
        let keys = self.isolation.paused.iter();
        let keys = keys.flat_map(|(topic, keys)| keys.values().map(|paused| (*topic, *paused)));
        keys.filter_map(|(topic, paused)| Some((topic, paused.head?, paused.column?)))
    }

    /// Topics that a person parked.
    pub fn parked_topics(&self) -> impl Iterator<Item = TopicIndex> {
        self.routes
            .indexes()
            .filter(|topic| self.topics[*topic].is_parked())
    }

    /// Drops candidates of lanes that are leaving or were lost.
    pub(in crate::relay::core) fn drop_probes_of_leaving_lanes(&mut self, now: Instant) {
        let kept: BTreeSet<Lane> = Lane::all().filter(|lane| self.is_kept(*lane)).collect();
        self.drop_probes(|_, row| !kept.contains(&row.lane), now);
    }

    /// Forgets paused keys and rejected rows of lanes that are not owned: their new owner decides.
    pub(in crate::relay::core) fn forget_keys_of_lost_lanes(&mut self) {
        let lanes = &self.lanes;
        let is_lost = |lane: Lane| lanes[lane.index()].is_none();
        remove_keys(&mut self.isolation.paused, |_, _, paused| {
            is_lost(paused.lane)
        });
        self.isolation
            .rejected
            .retain(|rejected| !is_lost(rejected.row.lane));
    }
}

/// The row that a key was parked for; `None` for a key that a person parked.
fn head_of(parked: &ParkedKey) -> Option<RowIdentity> {
    let (id, event_id) = parked.head?;
    let lane = parked.lane;
    Some(RowIdentity { lane, id, event_id })
}
