//! What the relay knows of each declared topic: whether rows are sent to it, why not if they are
//! not, when that ends, and what producers have of it. One sick topic pauses only itself. Pure.
//!
//! ```text
//!            listed by a broker         reports are in
//!   Unlisted -----------------> Listed ---------------> Active <---------------------+
//!      ^                          | reports are in,       |                          |
//!      |                          | a row failed          |           rows are known |
//!      |                          v      row accepted     +- batch rejected -> Isolating
//!      |                       Probing -----------> Active|
//!      |                        |   ^                     |           reports are in |
//!      | not listed             v   | pause is over       +- enough is sent -> Draining
//!   any phase                  Failed <-------------------+- a record failed
//! ```
//!
//! "Reports are in" means that no row of the topic is with a producer. If metadata no longer lists
//! a topic, `Isolating` and `Probing` end first; a record that fails because its topic is missing
//! makes it `Unlisted` at once. `Probing` also ends when its row no longer exists. A topic that
//! drains can fail, or lose a batch, like an active one. A topic that a person parked is paused
//! whatever its phase, and neither `Listed` nor `Failed` ends meanwhile.

use std::{
    collections::BTreeSet,
    ops::{Index, IndexMut},
    time::{Duration, Instant},
};

use crate::{
    outbox::Lane,
    relay::core::{
        ids::TopicIndex,
        in_flight::SentRow,
        jitter::Jitter,
        unacknowledged::{BurstNumber, Unacknowledged},
    },
    report::ProblemClass,
};

/// First pause of a topic that failed; doubles with each failure up to [`PAUSE_MAX`].
const PAUSE_MIN: Duration = Duration::from_secs(1);
/// Upper bound of the pause of a topic that failed.
const PAUSE_MAX: Duration = Duration::from_secs(60);
/// Pause before rows without a declared topic are read again: they may have been deleted since.
const UNDECLARED_PAUSE: Duration = Duration::from_secs(60);
/// After brokers rejected the time of a record, the topic's records carry the present time of the
/// database for this long. Its limits may not be known, and each rejection costs a producer.
const PRESENT_TIME_FOR: Duration = Duration::from_secs(3600);
/// After a rejected record, the rows of its topic go through the probe producer for this long: a
/// rejection there costs no other topic anything.
const SLOW_FOR: Duration = Duration::from_secs(60);

/// Whether the brokers list a topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TopicPresence {
    /// The brokers list the topic, with a leader to write to.
    Present,
    /// The brokers do not list the topic, or refuse to describe it.
    Missing,
}

/// What a topic does at the moment. Rows are sent in [`Phase::Active`] only.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Phase {
    /// Rows are sent. Set when a pause ends; ended by a failed or rejected record, by missing
    /// metadata, or when the topic has enough with the producers.
    Active,
    /// No broker lists the topic, or none has answered since the start: a record sent to it would
    /// wait inside the producer. Set at the start, by metadata, and by a record that failed for
    /// that reason; ended by metadata that lists the topic.
    Unlisted,
    /// The brokers list the topic again. Set by metadata; ends once no row of the topic is with a
    /// producer, so that it goes on at its lowest row.
    Listed,
    /// A record failed for a reason that concerns the topic, such as a missing permission. Set by
    /// its delivery report; ends at `until`, once no row of the topic is with a producer.
    Failed { class: ProblemClass, until: Instant },
    /// A batch was rejected, and which rows it had is being looked up. Set by the first report of
    /// the batch; ends when the rows were found, whose keys are paused from then on.
    Isolating,
    /// The row with which the topic failed is sent alone by the probe producer. Set when the pause
    /// of [`Phase::Failed`] or [`Phase::Listed`] ends; ended by the report of that row.
    Probing { class: ProblemClass },
    /// Enough of the topic is with the producers. Set when it is stalled, has used up its share of
    /// the window, has enough candidates, or the breaker is open; ends once no row of it is with a
    /// producer.
    Draining,
}

/// Everything that is known of one declared topic.
#[derive(Clone, Debug)]
pub struct TopicState {
    phase: Phase,
    /// A person parked the topic.
    is_parked: bool,
    /// Until then rows go through the probe producer.
    slow_until: Option<Instant>,
    /// Until then records carry the present time of the database.
    present_time_until: Option<Instant>,
    /// Failures since the last acknowledged record; sets the length of the next pause.
    failures: u32,
    /// The brokers do not list the topic, by their last answer.
    is_missing: bool,
    unacknowledged: Unacknowledged,
}

impl TopicState {
    /// A topic of which no broker has answered.
    fn unlisted() -> Self {
        Self {
            phase: Phase::Unlisted,
            is_parked: false,
            slow_until: None,
            present_time_until: None,
            failures: 0,
            is_missing: false,
            unacknowledged: Unacknowledged::default(),
        }
    }

    /// Whether rows are sent to it.
    #[must_use]
    pub fn is_active(&self) -> bool {
        self.phase == Phase::Active && !self.is_parked
    }

    /// Whether a person parked it.
    #[must_use]
    pub fn is_parked(&self) -> bool {
        self.is_parked
    }

    /// Whether its rows go through the probe producer.
    #[must_use]
    pub fn is_slow(&self, now: Instant) -> bool {
        self.slow_until.is_some_and(|until| now < until)
    }

    /// Whether its records carry the present time of the database, because its brokers rejected
    /// another one.
    #[must_use]
    pub fn needs_present_time(&self, now: Instant) -> bool {
        self.present_time_until.is_some_and(|until| now < until)
    }

    /// Whether no row of it is with a producer.
    #[must_use]
    pub fn is_drained(&self) -> bool {
        self.unacknowledged.rows() == 0
    }

    /// What producers have of it.
    #[must_use]
    pub fn unacknowledged(&self) -> &Unacknowledged {
        &self.unacknowledged
    }

    /// Pauses an active topic until no row of it is with a producer. Another phase stays.
    pub fn drain(&mut self) {
        if self.phase == Phase::Active {
            self.phase = Phase::Draining;
        }
    }

    /// Whether [`Phase::Draining`] is over. [`Self::activate`] must follow.
    #[must_use]
    pub fn has_drained(&self) -> bool {
        self.phase == Phase::Draining && self.is_drained()
    }

    /// Ends the pause: rows are sent again, unless a person parked the topic.
    pub fn activate(&mut self) {
        self.phase = Phase::Active;
    }

    /// Records that a record was acknowledged: the next pause is the shortest again.
    pub fn on_success(&mut self) {
        self.failures = 0;
    }

    /// Records that a batch was rejected: the topic is paused until its rows are known. A failure
    /// of the whole topic is stronger.
    pub fn isolate(&mut self) {
        if !matches!(self.phase, Phase::Failed { .. }) {
            self.phase = Phase::Isolating;
        }
    }

    /// Records that the rows of the rejected batch are known: the topic goes on without them,
    /// through the probe producer. Returns false if it is paused for another reason by now.
    #[must_use]
    pub fn on_candidates_known(&mut self, now: Instant) -> bool {
        let was_isolating = self.phase == Phase::Isolating;
        if was_isolating {
            self.slow_until = Some(now + SLOW_FOR);
            self.end_exclusive_phase();
        }
        was_isolating
    }

    /// Records that a probed record was rejected, which prolongs a slow time. A topic that is not
    /// slow stays so: its rows are with the main producer, and a row sent by the probe producer
    /// could overtake them.
    pub fn on_probe_rejected(&mut self, now: Instant) {
        if self.is_slow(now) {
            self.slow_until = Some(now + SLOW_FOR);
        }
    }

    /// Ends the slow time: batches were too large and will be smaller, and no record is at fault.
    pub fn end_slow_time(&mut self) {
        self.slow_until = None;
    }

    /// Pauses the topic while one row of it is probed.
    pub fn probe(&mut self, class: ProblemClass) {
        self.phase = Phase::Probing { class };
    }

    /// Records that the topic accepted the probed row. Returns whether it is active now, as far as
    /// a person has not parked it; false also if no probe was under way.
    #[must_use]
    pub fn on_probe_accepted(&mut self) -> bool {
        matches!(self.phase, Phase::Probing { .. }) && self.end_exclusive_phase()
    }

    /// Records that the brokers do not list the topic. A probe or a look-up under way ends first.
    pub fn on_missing(&mut self) {
        self.is_missing = true;
        if !matches!(self.phase, Phase::Probing { .. } | Phase::Isolating) {
            self.phase = Phase::Unlisted;
        }
    }

    /// Records that the brokers list the topic.
    pub fn on_present(&mut self) {
        self.is_missing = false;
        if self.phase == Phase::Unlisted {
            self.phase = Phase::Listed;
        }
    }

    /// Ends [`Phase::Probing`] or [`Phase::Isolating`]. Returns whether the topic exists, and so is
    /// active now.
    fn end_exclusive_phase(&mut self) -> bool {
        self.phase = if self.is_missing {
            Phase::Unlisted
        } else {
            Phase::Active
        };
        !self.is_missing
    }

    /// Records that brokers rejected the time of a record. Returns whether it was another one than
    /// the present time of the database, so that the record may be sent again at once.
    fn on_time_rejected(&mut self, now: Instant) -> bool {
        let was_another = !self.needs_present_time(now);
        self.present_time_until = Some(now + PRESENT_TIME_FOR);
        was_another
    }

    /// Length of the pause after a failure, without jitter.
    fn next_pause(&self) -> Duration {
        // 2^6 s is above the maximum: the exponent need not grow further, and cannot overflow.
        PAUSE_MAX.min(PAUSE_MIN * (1 << self.failures.min(6)))
    }

    /// When the pause ends, and why there was one; `None` while that depends on something else.
    fn pause_end(&self, now: Instant) -> Option<(Instant, ProblemClass)> {
        if self.is_parked || !self.is_drained() {
            return None;
        }
        match self.phase {
            Phase::Failed { class, until } => Some((until, class)),
            Phase::Listed => Some((now, ProblemClass::TopicMissing)),
            _ => None,
        }
    }

    /// Why the topic was paused, if its pause is over.
    fn class_of_ended_pause(&self, now: Instant) -> Option<ProblemClass> {
        let (end, class) = self.pause_end(now)?;
        (end <= now).then_some(class)
    }

    /// The problem to report of it, if there is one.
    fn problem(&self) -> Option<ProblemClass> {
        match self.phase {
            // Without a failure, its record is sent again with another time.
            Phase::Failed { class, .. } | Phase::Probing { class } => {
                (class != ProblemClass::ClockSkew || self.failures > 0).then_some(class)
            }
            Phase::Unlisted | Phase::Listed => {
                self.is_missing.then_some(ProblemClass::TopicMissing)
            }
            Phase::Active | Phase::Isolating | Phase::Draining => None,
        }
    }
}

/// All declared topics, and rows without one.
#[derive(Clone, Debug)]
pub struct TopicStates {
    topics: Vec<TopicState>,
    /// Until then rows without a declared topic are left out; `None`: none are known.
    undeclared_until: Option<Instant>,
    /// When the row was sent that was sent last among all acknowledged ones, and when it was
    /// acknowledged.
    newest_acknowledged: Option<(Instant, Instant)>,
    jitter: Jitter,
}

impl Index<TopicIndex> for TopicStates {
    type Output = TopicState;

    fn index(&self, topic: TopicIndex) -> &TopicState {
        &self.topics[topic.index()]
    }
}

impl IndexMut<TopicIndex> for TopicStates {
    fn index_mut(&mut self, topic: TopicIndex) -> &mut TopicState {
        &mut self.topics[topic.index()]
    }
}

impl TopicStates {
    /// All topics are unlisted at first.
    #[must_use]
    pub fn new(topics: usize) -> Self {
        Self {
            topics: vec![TopicState::unlisted(); topics],
            undeclared_until: None,
            newest_acknowledged: None,
            jitter: Jitter::seeded(0),
        }
    }

    /// Sets the source of random pauses, which should differ from those of other relays.
    #[must_use]
    pub fn with_jitter(self, jitter: Jitter) -> Self {
        Self { jitter, ..self }
    }

    /// All topics with their indexes.
    pub fn iter(&self) -> impl Iterator<Item = (TopicIndex, &TopicState)> {
        let topics = self.topics.iter().enumerate();
        topics.map(|(index, state)| (TopicIndex::new(index), state))
    }

    /// Whether rows are sent to any topic.
    #[must_use]
    pub fn any_is_active(&self) -> bool {
        self.active().next().is_some()
    }

    /// States of the topics that rows are sent to.
    pub fn active(&self) -> impl Iterator<Item = &TopicState> {
        self.topics.iter().filter(|state| state.is_active())
    }

    /// Topics that no rows are sent to.
    pub fn paused(&self) -> impl Iterator<Item = TopicIndex> {
        self.iter()
            .filter(|(_, state)| !state.is_active())
            .map(|(topic, _)| topic)
    }

    /// Whether rows without a declared topic are known of.
    #[must_use]
    pub fn has_undeclared(&self) -> bool {
        self.undeclared_until.is_some()
    }

    /// Whether any topic is paused, or rows without a declared topic are left out.
    #[must_use]
    pub fn any_is_excluded(&self) -> bool {
        self.has_undeclared() || !self.topics.iter().all(TopicState::is_active)
    }

    /// Records that a record failed for a reason that concerns its topic, which is paused, longer
    /// each time.
    pub fn on_failed(&mut self, topic: TopicIndex, class: ProblemClass, now: Instant) {
        let state = &mut self.topics[topic.index()];
        if class == ProblemClass::TopicMissing {
            state.is_missing = true;
            state.phase = Phase::Unlisted;
            return;
        }
        if matches!(state.phase, Phase::Failed { .. }) {
            return;
        }
        if class == ProblemClass::ClockSkew && state.on_time_rejected(now) {
            state.phase = Phase::Failed { class, until: now };
            return;
        }
        let until = now + self.jitter.around(state.next_pause());
        state.failures += 1;
        state.phase = Phase::Failed { class, until };
    }

    /// Sets which topics a person parked. Returns those that were parked until now, and those that
    /// are from now on.
    pub fn set_parked(
        &mut self,
        parked: &BTreeSet<TopicIndex>,
    ) -> (Vec<TopicIndex>, Vec<TopicIndex>) {
        let (mut freed, mut added) = (Vec::new(), Vec::new());
        for (index, state) in self.topics.iter_mut().enumerate() {
            let topic = TopicIndex::new(index);
            let is_parked = parked.contains(&topic);
            let was_parked = std::mem::replace(&mut state.is_parked, is_parked);
            match (was_parked, is_parked) {
                (true, false) => freed.push(topic),
                (false, true) => added.push(topic),
                _ => {}
            }
        }
        (freed, added)
    }

    /// Records that rows without a declared topic were found: they are left out for a while.
    pub fn on_undeclared(&mut self, now: Instant) {
        self.undeclared_until.get_or_insert(now + UNDECLARED_PAUSE);
    }

    /// Whether rows without a declared topic are to be read again. True once per pause.
    #[must_use]
    pub fn end_undeclared_pause(&mut self, now: Instant) -> bool {
        let is_over = self.undeclared_until.is_some_and(|until| until <= now);
        if is_over {
            self.undeclared_until = None;
        }
        is_over
    }

    /// Topics that may go on, each with the reason of its pause: no row of them is with a producer,
    /// so they start again at their lowest row. [`TopicState::probe`] or [`TopicState::activate`]
    /// must follow for each.
    #[must_use]
    pub fn due(&self, now: Instant) -> Vec<(TopicIndex, ProblemClass)> {
        self.iter()
            .filter_map(|(topic, state)| Some((topic, state.class_of_ended_pause(now)?)))
            .collect()
    }

    /// When [`Self::due`] or [`Self::end_undeclared_pause`] has something to do next.
    #[must_use]
    pub fn next_due_at(&self, now: Instant) -> Option<Instant> {
        self.topics
            .iter()
            .filter_map(|state| state.pause_end(now))
            .map(|(end, _)| end)
            .chain(self.undeclared_until)
            .min()
    }

    /// Topics with a problem to report.
    #[must_use]
    pub fn problems(&self) -> Vec<(TopicIndex, ProblemClass)> {
        self.iter()
            .filter_map(|(topic, state)| Some((topic, state.problem()?)))
            .collect()
    }

    /// Records that a row of `bytes` goes to a producer. Returns the number of its burst.
    pub fn on_sent(
        &mut self,
        topic: TopicIndex,
        lane: Lane,
        bytes: usize,
        now: Instant,
    ) -> BurstNumber {
        self.topics[topic.index()]
            .unacknowledged
            .on_sent(lane, bytes, now)
    }

    /// Records that Kafka acknowledged a row. Returns when it was sent.
    pub fn on_acknowledged(&mut self, row: &SentRow, now: Instant) -> Option<Instant> {
        let sent_at = self.on_ended(row);
        let acknowledged = sent_at.map(|sent_at| (sent_at, now));
        self.newest_acknowledged = self.newest_acknowledged.max(acknowledged);
        sent_at
    }

    /// Records that the delivery report of a row is in. Returns when the row was sent.
    pub fn on_ended(&mut self, row: &SentRow) -> Option<Instant> {
        self.topics[row.topic.index()]
            .unacknowledged
            .on_ended(row.lane, row.bytes, row.burst)
    }

    /// Whether a topic's oldest row was sent `after` ago or earlier, and a row sent later was
    /// acknowledged when the oldest one was that old already. Then the cluster is neither slow nor
    /// unavailable; the topic is.
    #[must_use]
    pub fn is_overtaken(&self, topic: TopicIndex, after: Duration) -> bool {
        let Some((sent_at, acknowledged_at)) = self.newest_acknowledged else {
            return false;
        };
        self[topic]
            .unacknowledged
            .oldest_sent_at()
            .is_some_and(|oldest| sent_at > oldest && acknowledged_at >= oldest + after)
    }
}

/// For the model: what a step can depend on. What is unacknowledged follows from the rows in
/// flight, and time does not pass in the model.
#[cfg(test)]
impl std::hash::Hash for TopicStates {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        let Self {
            topics,
            undeclared_until,
            newest_acknowledged: _,
            jitter,
        } = self;
        for topic in topics {
            let TopicState {
                phase,
                is_parked,
                slow_until,
                present_time_until,
                failures,
                is_missing,
                unacknowledged: _,
            } = topic;
            (phase, is_parked, slow_until, failures, is_missing).hash(state);
            present_time_until.hash(state);
        }
        (undeclared_until, jitter).hash(state);
    }
}

#[cfg(test)]
mod tests;
