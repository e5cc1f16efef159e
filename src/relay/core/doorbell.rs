//! The doorbell: when a relay that has nothing to do falls asleep, and what wakes it. Pure.
//!
//! ```text
//!   Absent -> Awake -> Locking -> Locked -> Deciding -> Asleep
//!               ^         |         |          |          |   a ring, rows, other lanes
//!               |<-refused-         +----------+----------+-> Waking -> Unlocking -> Awake
//! ```
//!
//! A relay that sleeps holds the lock of each of its lanes; a writer that finds one locked rings.
//! The fetch that decides begins after the locks are held. So a row that it does not see belongs to
//! a writer that found the lock, and rings when it commits. ARCHITECTURE has the whole argument.

use std::time::{Duration, Instant};

use crate::{
    outbox::Lane,
    relay::core::{Core, owned_lanes::OwnedLane},
};

/// How long a relay stays awake after the last row. Rows that come faster than this ring for none
/// but the first of them.
const AWAKE_AFTER_ROWS: Duration = Duration::from_millis(20);
/// Longest sleep without a fetch. What did not ring waits for that long at most.
const SLEEP_MAX: Duration = Duration::from_secs(1);
/// Longest pause between two attempts to fall asleep while writers hold the locks.
const RETRY_MAX: Duration = Duration::from_secs(1);
/// Rings in a second from which on the relay stays awake: the commit of each one waits for those of
/// all others on the server.
const RINGS_MAX: u32 = 50;
/// Time in which [`RINGS_MAX`] counts, and how long the relay stays awake then.
const RINGS_PERIOD: Duration = Duration::from_secs(1);
/// How long the relay waits for the ring of a row that a fetch during its sleep found: the server
/// may be slow to deliver it.
const RING_MAX: Duration = Duration::from_millis(500);
/// How long the relay stays awake after a row that did not ring: somebody inserts without the
/// trigger.
const AWAKE_AFTER_SILENT_ROW: Duration = Duration::from_secs(60);
/// Pause between two requests on the bell's connection, which the server ends after 5 s without
/// one. With the longest wait for an answer it is less than that.
const PING_EVERY: Duration = Duration::from_secs(3);

/// Some of the 64 lanes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct LaneSet(u64);

impl LaneSet {
    /// Whether a lane is in the set.
    #[must_use]
    pub fn contains(self, lane: Lane) -> bool {
        self.0 & (1 << lane.index()) != 0
    }

    /// Whether all lanes of `other` are in the set.
    #[must_use]
    pub fn contains_all(self, other: Self) -> bool {
        other.0 & !self.0 == 0
    }

    /// Whether there is no lane in the set.
    fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Lanes of the set, by number.
    pub fn lanes(self) -> impl Iterator<Item = Lane> {
        Lane::all().filter(move |lane| self.contains(*lane))
    }
}

impl FromIterator<Lane> for LaneSet {
    fn from_iter<T: IntoIterator<Item = Lane>>(lanes: T) -> Self {
        let bits = lanes.into_iter().map(|lane| 1 << lane.index());
        Self(bits.fold(0, |set, bit| set | bit))
    }
}

/// What the bell's connection is to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum BellRequest {
    /// Lock these lanes, all of them or none.
    Lock(LaneSet),
    /// Unlock all lanes.
    Unlock,
    /// Show the server that the relay is alive.
    Ping,
}

/// How a request to the bell's connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum BellAnswer {
    /// All lanes are locked.
    Locked,
    /// A writer, or another relay, has the lock of a lane. None is held.
    Refused,
    /// No lane is locked.
    Unlocked,
    /// The server answered.
    Alive,
}

/// How far the relay is on its way to sleep.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum State {
    /// There is no connection that could hold a lock: the relay polls.
    Absent,
    /// No lock is held: the relay polls.
    Awake,
    /// The locks are requested.
    Locking(LaneSet),
    /// The locks are held. A fetch that begins from now on decides.
    Locked(LaneSet),
    /// The locks are held, and the fetch that decides is under way.
    Deciding(LaneSet),
    /// The locks are held, and nothing waits.
    Asleep(LaneSet),
    /// The locks are held, and of no use any more.
    Waking,
    /// The locks are being given up.
    Unlocking,
}

/// What the rest of the relay means for its sleep.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Readiness {
    /// Lanes that a fetch reads.
    pub(super) lanes: LaneSet,
    /// Whether no row is known to wait, and a fetch would read all lanes.
    pub(super) is_quiet: bool,
}

/// Decides when to sleep and when to wake.
#[derive(Clone, Debug)]
pub(super) struct Doorbell {
    state: State,
    /// Whether a request is under way. Its answer comes first.
    is_requesting: bool,
    /// No lock is requested before.
    lock_at: Instant,
    /// When the connection needs a request to stay open.
    ping_at: Instant,
    /// Refused locks since the last ones that were held.
    refusals: u32,
    rings: u32,
    /// Since when `rings` are counted.
    rings_since: Instant,
    /// A ring came since the last fetch began.
    has_rung: bool,
    /// A fetch during the sleep found rows, and no ring has come for them yet.
    has_silent_rows: bool,
    /// No ring came for such rows, which [`Core::take_silence`] has not returned yet.
    has_silence: bool,
}

impl Doorbell {
    /// No connection yet.
    pub(super) fn new(now: Instant) -> Self {
        Self {
            state: State::Absent,
            is_requesting: false,
            lock_at: now,
            ping_at: now,
            refusals: 0,
            rings: 0,
            rings_since: now,
            has_rung: false,
            has_silent_rows: false,
            has_silence: false,
        }
    }

    /// Whether the relay waits for a ring instead of polling.
    pub(super) fn is_asleep(&self) -> bool {
        matches!(self.state, State::Asleep(_))
    }

    /// Whether another relay may find a lane of this one locked.
    fn may_hold_locks(&self) -> bool {
        !matches!(self.state, State::Absent | State::Awake)
    }

    /// Records that the connection listens, and holds no lock.
    fn on_opened(&mut self, now: Instant) {
        self.state = State::Awake;
        self.is_requesting = false;
        self.ping_at = now + PING_EVERY;
        self.stay_awake(now, AWAKE_AFTER_ROWS);
    }

    /// Records that the connection is gone, and its locks with it.
    fn on_lost(&mut self) {
        self.state = State::Absent;
        (self.is_requesting, self.has_silent_rows) = (false, false);
    }

    /// When [`Self::next_request`] has something to do; `None` while a request is under way or
    /// there is no connection.
    fn next_request_at(&self, ready: Readiness, now: Instant) -> Option<Instant> {
        if self.is_requesting || self.state == State::Absent {
            return None;
        }
        let lock_at = self.may_lock(ready).then_some(self.lock_at);
        let wake_at = self.must_wake(ready).then_some(now);
        [lock_at, wake_at]
            .into_iter()
            .flatten()
            .chain([self.ping_at])
            .min()
    }

    fn may_lock(&self, ready: Readiness) -> bool {
        self.state == State::Awake && ready.is_quiet && !ready.lanes.is_empty()
    }

    /// Whether the locks are of no use: rows are known to wait, or the lanes are other ones.
    fn must_wake(&self, ready: Readiness) -> bool {
        match self.state {
            State::Waking => true,
            State::Locked(locked) | State::Deciding(locked) | State::Asleep(locked) => {
                !ready.is_quiet || locked != ready.lanes
            }
            _ => false,
        }
    }

    /// The next request, if it is time. [`Self::on_answer`] or [`Self::on_lost`] must follow.
    fn next_request(&mut self, ready: Readiness, now: Instant) -> Option<BellRequest> {
        if self
            .next_request_at(ready, now)
            .is_none_or(|next| next > now)
        {
            return None;
        }
        let request = self.choose_request(ready, now)?;
        self.is_requesting = true;
        self.ping_at = now + PING_EVERY;
        Some(request)
    }

    fn choose_request(&mut self, ready: Readiness, now: Instant) -> Option<BellRequest> {
        if self.must_wake(ready) {
            self.state = State::Unlocking;
            return Some(BellRequest::Unlock);
        }
        if self.may_lock(ready) && now >= self.lock_at && !self.heeds_silent_rows(now) {
            self.state = State::Locking(ready.lanes);
            return Some(BellRequest::Lock(ready.lanes));
        }
        (now >= self.ping_at).then_some(BellRequest::Ping)
    }

    /// Stays awake if rows came that had not rung by now. Returns whether it does.
    fn heeds_silent_rows(&mut self, now: Instant) -> bool {
        let silent = std::mem::take(&mut self.has_silent_rows);
        if silent {
            self.has_silence = true;
            self.stay_awake(now, AWAKE_AFTER_SILENT_ROW);
        }
        silent
    }

    fn stay_awake(&mut self, now: Instant, time: Duration) {
        self.lock_at = self.lock_at.max(now + time);
    }

    /// Records how the request ended. Returns whether a fetch must follow at once.
    fn on_answer(&mut self, answer: BellAnswer, now: Instant) -> bool {
        self.is_requesting = false;
        match (answer, self.state) {
            (BellAnswer::Locked, State::Locking(lanes)) => self.state = State::Locked(lanes),
            (BellAnswer::Refused, State::Locking(_)) => self.on_refused(now),
            (BellAnswer::Unlocked, State::Unlocking) => self.state = State::Awake,
            _ => return false,
        }
        // After a refusal, too: a writer is about to commit a row.
        answer != BellAnswer::Unlocked
    }

    /// Tries again later, twice as long each time.
    fn on_refused(&mut self, now: Instant) {
        self.state = State::Awake;
        let pause = AWAKE_AFTER_ROWS * (1 << self.refusals.min(6));
        self.stay_awake(now, pause.min(RETRY_MAX));
        self.refusals += 1;
    }

    /// Records a ring for a lane of this relay.
    fn on_ring(&mut self, now: Instant) {
        (self.has_rung, self.has_silent_rows) = (true, false);
        self.count_ring(now);
        if matches!(
            self.state,
            State::Locked(_) | State::Deciding(_) | State::Asleep(_)
        ) {
            self.state = State::Waking;
        }
    }

    fn count_ring(&mut self, now: Instant) {
        if now - self.rings_since >= RINGS_PERIOD {
            (self.rings, self.rings_since) = (0, now);
        }
        self.rings += 1;
        if self.rings > RINGS_MAX {
            self.stay_awake(now, RINGS_PERIOD);
        }
    }

    /// Records that a fetch of these lanes begins.
    pub(super) fn on_fetch_begun(&mut self, lanes: LaneSet) {
        self.has_rung = false;
        if let State::Locked(locked) = self.state
            && lanes.contains_all(locked)
        {
            self.state = State::Deciding(locked);
        }
    }

    /// Records that the fetch failed, or that its rows were not used: the next one decides.
    pub(super) fn on_fetch_useless(&mut self) {
        if let State::Deciding(locked) = self.state {
            self.state = State::Locked(locked);
        }
    }

    /// Records what a fetch found.
    pub(super) fn on_fetched(&mut self, found: Found, now: Instant) {
        match (found, self.state) {
            (Found::NoRows, State::Deciding(locked)) => self.fall_asleep(locked),
            (Found::NoRows, _) => {}
            (Found::Rows, State::Asleep(_)) => {
                self.wake(now);
                self.has_silent_rows = true;
                self.stay_awake(now, RING_MAX);
            }
            (Found::Rows | Found::Unread, _) => self.wake(now),
        }
    }

    fn fall_asleep(&mut self, locked: LaneSet) {
        self.state = State::Asleep(locked);
        self.refusals = 0;
    }

    /// Stays awake, without the locks.
    fn wake(&mut self, now: Instant) {
        self.stay_awake(now, AWAKE_AFTER_ROWS);
        if let State::Locked(_) | State::Deciding(_) | State::Asleep(_) = self.state {
            self.state = State::Waking;
        }
    }
}

/// What a fetch found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Found {
    /// New rows.
    Rows,
    /// No row, but some lanes must be read again: their answer was not used.
    Unread,
    /// All lanes were read to their ends, and no row was new.
    NoRows,
}

impl Core {
    /// Records that the bell's connection listens.
    pub fn on_bell_opened(&mut self, now: Instant) {
        self.doorbell.on_opened(now);
    }

    /// Records that the bell's connection is gone: the relay polls.
    pub fn on_bell_lost(&mut self, now: Instant) {
        self.doorbell.on_lost();
        self.poll_now(now);
    }

    /// When the bell's connection has something to do next; `None` if it has not, or its last
    /// request is under way.
    #[must_use]
    pub fn next_bell_request_at(&self, now: Instant) -> Option<Instant> {
        self.doorbell.next_request_at(self.readiness(), now)
    }

    /// The next request to the bell's connection, if it is time. [`Self::on_bell_answer`] or
    /// [`Self::on_bell_lost`] must follow.
    pub fn next_bell_request(&mut self, now: Instant) -> Option<BellRequest> {
        let slept = self.doorbell.is_asleep();
        let request = self.doorbell.next_request(self.readiness(), now);
        if slept && request == Some(BellRequest::Unlock) {
            self.fetch_at = self.fetch_at.min(now);
        }
        request
    }

    /// Records how a request to the bell's connection ended.
    pub fn on_bell_answer(&mut self, answer: BellAnswer, now: Instant) {
        if self.doorbell.on_answer(answer, now) {
            self.poll_now(now);
        }
    }

    /// Records that a writer rang for a lane.
    pub fn on_ring(&mut self, lane: Lane, now: Instant) {
        if self.is_kept(lane) {
            self.doorbell.on_ring(now);
            self.poll_now(now);
        }
    }

    /// Whether rows were found that had not rung, since this was last called.
    pub fn take_silence(&mut self) -> bool {
        std::mem::take(&mut self.doorbell.has_silence)
    }

    /// Whether another relay may find a lane of this one locked. No lane is given back before.
    #[must_use]
    pub fn may_hold_bell_locks(&self) -> bool {
        self.doorbell.may_hold_locks()
    }

    /// When the next fetch begins although nothing rang, if the relay sleeps.
    pub(super) fn sleeps_until(&self, now: Instant) -> Option<Instant> {
        self.doorbell.is_asleep().then_some(now + SLEEP_MAX)
    }

    /// Whether the fetch that has just ended may have missed a row that rang.
    pub(super) fn has_rung(&self) -> bool {
        self.doorbell.has_rung
    }

    fn readiness(&self) -> Readiness {
        Readiness {
            lanes: self.kept_lane_set(),
            is_quiet: !self.has_more() && self.reads_all_lanes(),
        }
    }

    /// Whether a fetch would read all lanes that this relay owns, at once.
    fn reads_all_lanes(&self) -> bool {
        let all_kept = self.lanes.iter().flatten().all(OwnedLane::is_kept);
        all_kept && self.has_room_to_fetch() && self.breaker.not_before().is_none()
    }

    fn kept_lane_set(&self) -> LaneSet {
        let owned = self.lanes_by_number();
        let kept = owned.filter(|(_, lane)| lane.is_kept());
        kept.map(|(lane, _)| lane).collect()
    }
}

#[cfg(test)]
mod tests;

#[cfg(test)]
mod protocol;
