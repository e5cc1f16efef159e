//! Records that the brokers refuse: suspects are looked up, tried on a producer of their own, and judged; only their keys rest meanwhile. Pure.
//!
//! ```text
//!   refused -> topic rests until all its reports are in -> look its rows up -> their keys rest, the topic flows -> trials
//!           -> culprit: verdict (park its key, or move the row to dead_letter)      -> innocent: its key flows again
//!   topic failed -> rests, longer each time -> look its head row up -> trial -> flows again, or rests on
//! ```

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::*;
use crate::{
    outbox::{Parked, ParkedKey},
    relay::{
        trials::{Ended, Finding, Trials},
        window::RowName,
    },
    settings::OnPoison,
};

/// Rows to look up by name.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Lookup {
    topic: TopicIndex,
    class: ProblemClass,
    purpose: Purpose,
    pub rows: Vec<RowName>,
}

/// Why rows are looked up.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Purpose {
    /// Their batch was refused.
    Suspects,
    /// The first row of a topic that failed: it shows whether the topic takes records again.
    Topic,
    /// The first row of a key that was parked until now.
    Retry(Arc<str>),
}

/// What is to become of a row that Kafka will never take.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Verdict {
    pub row: RowName,
    pub topic: TopicIndex,
    pub key: Arc<str>,
    pub class: ProblemClass,
    pub attempts: u32,
    pub policy: OnPoison,
}

/// Why a key rests.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Rest {
    /// Rows of it are on trial, or wait for it.
    OnTrial,
    /// Parked no more; its first row is looked up, to be tried.
    Retried,
    /// Judged; the database does not know yet.
    Judged,
    /// The database says so; since when we know.
    Parked { since: Instant },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct RestingKey {
    lane: u8,
    rest: Rest,
    /// The row that it rests for; a key that a person parked has none.
    head: Option<RowName>,
}

impl RestingKey {
    fn is_parked(&self) -> bool {
        matches!(self.rest, Rest::Parked { .. })
    }
}

/// Keys that rest, by topic; a topic without any has no entry.
type Keys = BTreeMap<TopicIndex, BTreeMap<Arc<str>, RestingKey>>;

/// Rows of a slow topic that go on trial together.
const SLOW_ROWS_MAX: usize = 500;

/// Everything about refused records.
#[derive(Clone, Default)]
#[cfg_attr(test, derive(Hash))]
pub(super) struct Poison {
    trials: Trials,
    /// Rows of refused batches, until they are looked up.
    suspects: BTreeMap<TopicIndex, (ProblemClass, BTreeSet<RowName>)>,
    /// Lowest row of each topic that failed: what it is tried with.
    heads: BTreeMap<TopicIndex, RowName>,
    lookups: VecDeque<Lookup>,
    keys: Keys,
    verdicts: VecDeque<Verdict>,
    /// Rows of slow topics from the fetch that is being looked at.
    slow_rows: BTreeMap<TopicIndex, Vec<OutboxRow>>,
    /// A batch of so many bytes was too large.
    too_large: Option<usize>,
}

impl Poison {
    pub(super) fn is_on_trial(&self, slot: Slot) -> bool {
        self.trials.holds(slot)
    }

    /// Rows that are on trial now.
    pub(super) fn on_trial(&self) -> impl Iterator<Item = &OutboxRow> {
        self.trials.under_way()
    }

    /// Whether so many rows of a topic wait for their trial that more would only take memory.
    pub(super) fn has_enough_to_try(&self, topic: TopicIndex) -> bool {
        self.waiting(topic) >= SLOW_ROWS_MAX
    }

    pub(super) fn waiting(&self, topic: TopicIndex) -> usize {
        self.trials.waiting(topic)
    }

    pub(super) fn any_key_rests(&self) -> bool {
        !self.keys.is_empty()
    }

    pub(super) fn resting_key(&self, topic: TopicIndex, key: &str) -> Option<Arc<str>> {
        self.keys.get(&topic)?.get_key_value(key).map(|(key, _)| Arc::clone(key))
    }

    pub(super) fn resting_keys<'a>(&self, name: impl Fn(TopicIndex) -> &'a str) -> Vec<(String, String)> {
        let keys = self.keys.iter().flat_map(|(topic, keys)| keys.keys().map(move |key| (*topic, key)));
        keys.map(|(topic, key)| (name(topic).to_owned(), key.to_string())).collect()
    }

    pub(super) fn is_parked(&self, topic: TopicIndex, key: &str) -> bool {
        self.keys.get(&topic).and_then(|keys| keys.get(key)).is_some_and(RestingKey::is_parked)
    }

    /// Keys that the database says are parked.
    pub(super) fn parked(&self) -> impl Iterator<Item = (TopicIndex, &str)> {
        let keys = self.keys.iter().flat_map(|(topic, keys)| keys.iter().map(move |(key, resting)| (*topic, key, resting)));
        keys.filter(|(_, _, resting)| resting.is_parked()).map(|(topic, key, _)| (topic, &**key))
    }

    fn rest(&mut self, topic: TopicIndex, key: &str, resting: RestingKey) -> Arc<str> {
        let keys = self.keys.entry(topic).or_default();
        let key = keys.get_key_value(key).map_or_else(|| Arc::from(key), |(key, _)| Arc::clone(key));
        keys.insert(Arc::clone(&key), resting);
        key
    }

    /// The first row of a retried key was looked up: with its trial, or without a row, its rest ends.
    fn is_retried(&mut self, topic: TopicIndex, key: &str) {
        let resting = self.keys.get_mut(&topic).and_then(|keys| keys.get_mut(key));
        if let Some(resting) = resting.filter(|resting| resting.rest == Rest::Retried) {
            resting.rest = Rest::OnTrial;
        }
    }

    /// Keys for which `over` holds are parked no more: the row that one was parked for is tried first, any other flows again.
    fn retry(&mut self, over: impl Fn(TopicIndex, &str, RestingKey) -> bool) -> Vec<Left> {
        for (topic, keys) in &mut self.keys {
            for (key, resting) in keys.iter_mut() {
                if let Some(head) = resting.head
                    && over(*topic, key, *resting)
                {
                    resting.rest = Rest::Retried;
                    let purpose = Purpose::Retry(Arc::clone(key));
                    self.lookups.push_back(Lookup { topic: *topic, class: ProblemClass::RecordRejected, purpose, rows: vec![head] });
                }
            }
        }
        end_rest(&mut self.keys, over)
    }

    /// Takes out keys of which nothing is on trial any more.
    fn end_trials(&mut self) -> Vec<Left> {
        let Self { keys, trials, .. } = self;
        end_rest(keys, |topic, key, resting| resting.rest == Rest::OnTrial && !trials.has_key(topic, key))
    }

    /// A fetched row of a slow topic goes on trial, unless its key rests already. Returns the key, which rests now in any case.
    pub(super) fn take_slowly(&mut self, topic: TopicIndex, row: OutboxRow) -> Arc<str> {
        let resting = self.resting_key(topic, row.key());
        let waiting = self.slow_rows.entry(topic).or_default();
        if let Some(key) = resting
            && !waiting.iter().any(|other| other.key() == row.key())
        {
            return key;
        }
        let has_room = waiting.len() < SLOW_ROWS_MAX;
        let key = self.rest(topic, row.key(), RestingKey { lane: row.lane, rest: Rest::OnTrial, head: None });
        if has_room {
            self.slow_rows.entry(topic).or_default().push(row);
        }
        key
    }

    /// Sends the rows that were taken slowly to their trials. Returns whether there are any.
    pub(super) fn try_slow_rows(&mut self) -> bool {
        let slow_rows = std::mem::take(&mut self.slow_rows);
        let any = slow_rows.values().any(|rows| !rows.is_empty());
        for (topic, rows) in slow_rows {
            self.trials.suspect(topic, None, rows);
        }
        any
    }
}

/// Takes out keys for which `ended` holds.
fn end_rest(keys: &mut Keys, ended: impl Fn(TopicIndex, &str, RestingKey) -> bool) -> Vec<Left> {
    let mut flowing = Vec::new();
    for (topic, keys) in keys.iter_mut() {
        let gone = keys.extract_if(.., |key, resting| ended(*topic, key, *resting));
        flowing.extend(gone.map(|(key, _)| Left::Key(*topic, key)));
    }
    keys.retain(|_, keys| !keys.is_empty());
    flowing
}

impl Core {
    // --- a topic failed

    pub(super) fn topic_failed(&mut self, given_back: GivenBack, class: ProblemClass, now: Instant) {
        let (row, topic) = (given_back.row, given_back.topic);
        self.hold_all(&Left::Topic(topic));
        let head = self.poison.heads.entry(topic).or_insert(row);
        if row.id < head.id {
            *head = row;
        }
        self.stops.failed(topic, class, now);
    }

    /// A topic has rested long enough: its head row is tried, so that a refusal costs nobody else their producer.
    pub(super) fn try_topic(&mut self, topic: TopicIndex, class: ProblemClass, now: Instant) {
        match self.poison.heads.remove(&topic) {
            Some(head) => {
                self.stops.on_trial(topic, class);
                self.poison.lookups.push_back(Lookup { topic, class, purpose: Purpose::Topic, rows: vec![head] });
            }
            None => {
                self.stops.flow(topic);
                self.topic_flows_again(topic, now);
            }
        }
    }

    // --- a batch was refused

    pub(super) fn suspect(&mut self, given_back: GivenBack, class: ProblemClass) {
        self.hold_all(&Left::Topic(given_back.topic));
        self.stops.suspect(given_back.topic);
        let (_, rows) = self.poison.suspects.entry(given_back.topic).or_insert_with(|| (class, BTreeSet::new()));
        rows.insert(given_back.row);
    }

    /// The producer refused the row of this slot at once, without asking the brokers: no trial is needed.
    pub fn refused(&mut self, slot: Slot, row: &OutboxRow, class: ProblemClass, now: Instant) {
        self.outstanding.ended(slot);
        if self.poison.is_on_trial(slot) {
            return self.trial_reported(slot, Outcome::Refused(class), now);
        }
        if let Some(given_back) = self.window.failed(slot) {
            self.read_again(given_back);
            self.judge(given_back.topic, row, class, 1);
        }
    }

    /// The next rows to look up. A topic's come once all its reports are in. [`Self::looked_up`] or [`Self::lookup_failed`] must follow.
    pub fn next_lookup(&mut self) -> Option<Lookup> {
        let ready = self.poison.suspects.keys().copied().find(|topic| self.window.sent_of(*topic) == 0);
        if let Some(topic) = ready
            && let Some((class, rows)) = self.poison.suspects.remove(&topic)
        {
            return Some(Lookup { topic, class, purpose: Purpose::Suspects, rows: rows.into_iter().collect() });
        }
        self.poison.lookups.pop_front()
    }

    pub fn lookup_failed(&mut self, lookup: Lookup) {
        self.poison.lookups.push_back(lookup);
    }

    /// The rows that were looked up, as far as they still exist, by lane and id.
    pub fn looked_up(&mut self, lookup: &Lookup, mut rows: Vec<OutboxRow>, now: Instant) {
        let topic = lookup.topic;
        rows.retain(|row| self.is_staying(row.lane) && !self.window.holds(row.lane, row.id, row.event_id));
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
            let resting = RestingKey { lane: row.lane, rest: Rest::OnTrial, head: None };
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

    // --- trials

    /// The next rows to try, on a producer of their own, in this order.
    pub fn next_trial(&mut self, now: Instant) -> Option<Vec<Outgoing>> {
        let mut group = self.poison.trials.next_group()?;
        let mut taken = [0; LANES];
        let fits = |row: &&OutboxRow| {
            taken[usize::from(row.lane)] += 1;
            taken[usize::from(row.lane)] <= self.window.lane_room(row.lane) && taken.iter().sum::<usize>() <= self.window.room_rows()
        };
        let rest = group.rows.split_off(group.rows.iter().take_while(fits).count());
        if !rest.is_empty() {
            self.poison.trials.postpone(group.with(rest));
        }
        if group.rows.is_empty() {
            return None;
        }
        let topic = group.topic;
        let outgoing: Vec<Outgoing> = group
            .rows
            .iter()
            .filter_map(|row| self.window.take(row, topic).map(|slot| Outgoing { slot, topic, row: row.clone() }))
            .collect();
        for Outgoing { slot, row, .. } in &outgoing {
            self.outstanding.sent(*slot, topic, row.lane, row.bytes(), now);
        }
        let slots: Vec<Slot> = outgoing.iter().map(|outgoing| outgoing.slot).collect();
        self.poison.trials.began(group, &slots);
        Some(outgoing)
    }

    /// Whether nothing is on trial, or waits to be.
    #[must_use]
    pub fn trials_are_over(&self) -> bool {
        self.poison.trials.is_empty()
    }

    /// Whether reports of a trial are still to come.
    #[must_use]
    pub fn has_trial_under_way(&self) -> bool {
        self.poison.trials.is_under_way()
    }

    pub(super) fn trial_reported(&mut self, slot: Slot, outcome: Outcome, now: Instant) {
        let end = match outcome {
            Outcome::Published => Ended::Published,
            Outcome::Refused(class) => Ended::Refused(class),
            Outcome::TopicFailed(_) => Ended::TopicFailed,
            Outcome::Purged => Ended::Purged,
        };
        if outcome == Outcome::Published {
            self.window.acknowledged(slot);
        } else if let Some(given_back) = self.window.failed(slot)
            && let Outcome::TopicFailed(class) = outcome
        {
            self.topic_failed(given_back, class, now);
        }
        // Until its last report is in, a trial ends nobody's rest.
        let Some(findings) = self.poison.trials.ended(slot, end) else { return };
        for finding in findings {
            self.found(finding, now);
        }
        self.drop_trials_of_leaving_lanes();
        self.end_trials(now);
    }

    fn found(&mut self, finding: Finding, now: Instant) {
        match finding {
            Finding::Culprit { topic, row, class, attempts } => {
                self.stops.refused(topic, now);
                self.judge(topic, &row, class, attempts);
            }
            Finding::BatchTooLarge { topic, bytes } => {
                self.poison.too_large = Some(bytes);
                self.stops.acquit(topic);
            }
            Finding::TopicWorks(topic) => self.topic_works(topic, now),
        }
    }

    fn topic_works(&mut self, topic: TopicIndex, now: Instant) {
        if self.stops.works(topic) {
            self.topic_flows_again(topic, now);
        }
    }

    /// Keys flow again of which nothing is on trial any more.
    fn end_trials(&mut self, now: Instant) {
        let flowing = self.poison.end_trials();
        self.flow_again(&flowing, now);
    }

    /// A batch of so many bytes was refused though none of its rows is: batches must be smaller.
    pub fn take_too_large(&mut self) -> Option<usize> {
        self.poison.too_large.take()
    }

    // --- verdicts

    fn judge(&mut self, topic: TopicIndex, row: &OutboxRow, class: ProblemClass, attempts: u32) {
        let policy = self.routes.on_poison(topic);
        let name = RowName { lane: row.lane, id: row.id, event_id: row.event_id };
        let key = self.poison.rest(topic, row.key(), RestingKey { lane: row.lane, rest: Rest::Judged, head: Some(name) });
        self.hold(row.lane, Left::Key(topic, Arc::clone(&key)), row.id - 1);
        if policy == OnPoison::Block {
            self.poison.trials.drop_where(|of, row| of == topic && row.key() == &*key);
        }
        self.poison.verdicts.push_back(Verdict { row: name, topic, key, class, attempts, policy });
    }

    /// The next verdict to carry out. [`Self::judged`] or [`Self::verdict_failed`] must follow.
    pub fn next_verdict(&mut self) -> Option<Verdict> {
        self.poison.verdicts.pop_front()
    }

    pub fn verdict_failed(&mut self, verdict: Verdict) {
        self.poison.verdicts.push_front(verdict);
    }

    /// The database has carried the verdict out.
    pub fn judged(&mut self, verdict: &Verdict, now: Instant) {
        let (topic, key, lane) = (verdict.topic, &verdict.key, verdict.row.lane);
        if !self.is_staying(lane) {
            return;
        }
        match verdict.policy {
            OnPoison::Block => {
                self.poison.rest(topic, key, RestingKey { lane, rest: Rest::Parked { since: now }, head: Some(verdict.row) });
            }
            OnPoison::DeadLetter => {
                let same = |other: &Verdict| other.topic == topic && other.key == *key;
                if !self.poison.verdicts.iter().any(same) {
                    self.poison.rest(topic, key, RestingKey { lane, rest: Rest::OnTrial, head: None });
                }
                self.end_trials(now);
            }
        }
    }

    // --- parked rows

    /// What the database says is parked in `lanes`, asked at `asked`: what is not in it is tried or flows again, what is new rests.
    pub fn parked(&mut self, parked: &Parked, lanes: &[i16], asked: Instant, now: Instant) {
        let index = |name: &str| (0..self.routes.len()).find(|topic| self.routes.name(*topic) == name);
        let topics = parked.topics.iter().filter_map(|name| index(name)).collect();
        let listed: BTreeMap<(TopicIndex, &str), &ParkedKey> =
            parked.keys.iter().filter_map(|parked| Some(((index(&parked.topic)?, parked.key.as_str()), parked))).collect();
        for ((topic, key), parked) in &listed {
            self.key_is_parked(*topic, key, parked, asked);
        }
        let is_over = |topic, key: &str, resting: RestingKey| {
            let known = matches!(resting.rest, Rest::Parked { since } if since <= asked);
            known && lanes.contains(&i16::from(resting.lane)) && !listed.contains_key(&(topic, key))
        };
        let mut flowing = self.poison.retry(is_over);
        let (freed, added) = self.stops.parked(topics);
        for topic in added {
            self.hold_all(&Left::Topic(topic));
        }
        flowing.extend(freed.into_iter().filter(|topic| self.stops.flows(*topic)).map(Left::Topic));
        self.flow_again(&flowing, now);
    }

    fn key_is_parked(&mut self, topic: TopicIndex, key: &str, parked: &ParkedKey, asked: Instant) {
        let lane = parked.lane;
        let Some(state) = self.lanes[usize::from(lane)].as_ref() else { return };
        if self.poison.resting_key(topic, key).is_some() {
            return;
        }
        let position = self.position(lane, state);
        let head = parked.head.map(|(id, event_id)| RowName { lane, id, event_id });
        let key = self.poison.rest(topic, key, RestingKey { lane, rest: Rest::Parked { since: asked }, head });
        self.hold(lane, Left::Key(topic, key), position);
    }

    /// Keys that are parked, by topic.
    #[must_use]
    pub fn parked_keys(&self) -> Vec<(TopicIndex, usize)> {
        let count = |keys: &BTreeMap<Arc<str>, RestingKey>| keys.values().filter(|resting| resting.is_parked()).count();
        self.poison.keys.iter().map(|(topic, keys)| (*topic, count(keys))).filter(|(_, keys)| *keys > 0).collect()
    }

    // --- lanes that go

    fn is_staying(&self, lane: u8) -> bool {
        self.lanes[usize::from(lane)].as_ref().is_some_and(|lane| !lane.draining)
    }

    fn hold(&mut self, lane: u8, left: Left, id: i64) {
        if let Some(state) = self.lanes[usize::from(lane)].as_mut() {
            state.hold(left, id);
        }
    }

    pub(super) fn drop_trials_of_leaving_lanes(&mut self) {
        let leaving: Vec<u8> = (0..LANES as u8).filter(|lane| !self.is_staying(*lane)).collect();
        self.poison.trials.drop_where(|_, row| leaving.contains(&row.lane));
    }

    /// Another relay decides about their keys from now on.
    pub(super) fn forget_keys_of_lost_lanes(&mut self) {
        let lost: Vec<u8> = (0..LANES as u8).filter(|lane| self.lanes[usize::from(*lane)].is_none()).collect();
        end_rest(&mut self.poison.keys, |_, _, resting| lost.contains(&resting.lane));
        self.poison.verdicts.retain(|verdict| !lost.contains(&verdict.row.lane));
    }
}
