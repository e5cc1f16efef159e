//! Every interleaving of writers and relays that fall asleep, with the real [`Doorbell`]. From each
//! state, once all that is under way has ended, every committed row is fetched without a clock.
//! Each planted bug leaves a row behind a relay that sleeps.

use std::{
    collections::HashSet,
    hash::{DefaultHasher, Hash, Hasher},
};

use super::*;

/// A bug that a careful engineer could still write.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
enum Bug {
    None,
    /// A fetch that began before the locks were held decides.
    DecideBeforeLock,
    /// The relay sleeps although a writer has a lock.
    SleepUnlocked,
    /// A lane that was granted since is not locked.
    ForgetNewLanes,
    /// A ring during a fetch is taken as answered by that fetch.
    RingAnsweredByFetch,
    /// A writer gives its lock up before its row is visible.
    UnlockBeforeVisible,
    /// A writer rings before its row is visible.
    RingBeforeVisible,
    /// A writer locks before it would ring, and rings for nobody that listens later.
    NeverRing,
}

/// Where a writer is. Its row is visible from [`Self::Visible`] on.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
enum Writer {
    Idle,
    /// The writer has inserted, and shares the lock or will ring.
    Inserted,
    Visible,
    Done,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
struct Transaction {
    lane: usize,
    at: Writer,
    shares_lock: bool,
    rings: bool,
    is_fetched: bool,
}

/// A request at the bell's connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
enum Request {
    None,
    Sent(BellRequest),
    Executed(BellAnswer),
}

/// A relay: the real bell, and what a session does around it.
#[derive(Clone)]
struct Relay {
    bell: Doorbell,
    lanes: Vec<usize>,
    /// Lane 0 is on its way to another relay.
    is_giving: bool,
    /// Lanes with rows that are known to wait: those that were granted and not read since.
    has_more: bool,
    request: Request,
    /// Rings on their way.
    rings: Vec<usize>,
    /// Writers whose rows the fetch under way sees.
    fetch: Option<Vec<usize>>,
    fetch_is_due: bool,
    is_connected: bool,
}

impl Hash for Relay {
    fn hash<H: Hasher>(&self, state: &mut H) {
        let bell = &self.bell;
        (bell.state, bell.is_requesting, bell.has_rung).hash(state);
        (&self.lanes, self.is_giving, self.has_more).hash(state);
        (self.request, &self.rings).hash(state);
        (&self.fetch, self.fetch_is_due, self.is_connected).hash(state);
    }
}

#[derive(Clone, Hash)]
struct World {
    bug: Bug,
    writers: Vec<Transaction>,
    relays: Vec<Relay>,
    /// The relay whose session has the lock of a lane.
    locks: Vec<Option<usize>>,
    /// Whether the bell's connection may still be lost, and lane 0 may change its owner.
    faults: u8,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Step {
    Write(usize),
    Ask(usize),
    Execute(usize),
    Answer(usize),
    BeginFetch(usize),
    EndFetch(usize),
    Ring(usize),
    CutBell,
    NoticeCut(usize),
    Drain,
    HandOver,
}

/// A moment; the model has no other.
fn early() -> Instant {
    static EARLY: std::sync::OnceLock<Instant> = std::sync::OnceLock::new();
    *EARLY.get_or_init(Instant::now)
}

/// When everything that waits for a time is due.
fn late() -> Instant {
    early() + Duration::from_secs(86_400)
}

impl Relay {
    fn new(lanes: Vec<usize>) -> Self {
        let mut bell = Doorbell::new(early());
        bell.on_opened(early());
        bell.ping_at = late() + PING_EVERY;
        Self {
            bell,
            lanes,
            is_giving: false,
            has_more: false,
            request: Request::None,
            rings: vec![],
            fetch: None,
            fetch_is_due: false,
            is_connected: true,
        }
    }

    /// Lanes that fetches read.
    fn kept(&self) -> impl Iterator<Item = usize> {
        let lanes = self.lanes.iter().copied();
        lanes.filter(|lane| !self.is_giving || *lane != 0)
    }

    fn kept_set(&self) -> LaneSet {
        self.kept().map(|lane| Lane::new(lane as u8)).collect()
    }

    fn readiness(&self, bug: Bug) -> Readiness {
        let lanes = match self.bell.state {
            State::Locked(locked) | State::Deciding(locked) | State::Asleep(locked)
                if bug == Bug::ForgetNewLanes =>
            {
                locked
            }
            _ => self.kept_set(),
        };
        Readiness {
            lanes,
            is_quiet: !self.is_giving && !self.has_more || bug == Bug::ForgetNewLanes,
        }
    }

    fn may_fetch(&self) -> bool {
        self.fetch.is_none() && (!self.bell.is_asleep() || self.fetch_is_due)
    }

    fn on_answer(&mut self, answer: BellAnswer, bug: Bug) {
        self.request = Request::None;
        self.fetch_is_due |= self.bell.on_answer(answer, early());
        if bug == Bug::DecideBeforeLock
            && self.fetch.is_some()
            && let State::Locked(lanes) = self.bell.state
        {
            self.bell.state = State::Deciding(lanes);
        }
    }

    fn end_fetch(&mut self, rows: bool, bug: Bug) {
        self.has_more = false;
        let found = if rows { Found::Rows } else { Found::NoRows };
        self.bell.on_fetched(found, early());
        self.bell.has_silent_rows = false;
        // The pace after a fetch replaces every time that was set before.
        self.fetch_is_due = self.bell.has_rung && bug != Bug::RingAnsweredByFetch;
    }

    /// A fetch under way does not read the new lane, and is ignored.
    fn take(&mut self, lane: usize) {
        self.lanes.push(lane);
        self.has_more = true;
        if self.fetch.take().is_some() {
            self.bell.on_fetch_useless();
        }
        self.fetch_is_due = true;
    }

    fn on_ring(&mut self, lane: usize, bug: Bug) {
        if self.kept().all(|kept| kept != lane) {
            return;
        }
        if bug == Bug::RingAnsweredByFetch && self.fetch.is_some() {
            return;
        }
        self.bell.on_ring(early());
        self.bell.rings = 0;
        self.fetch_is_due = true;
    }
}

impl World {
    fn new(bug: Bug, lanes_of_writers: &[usize], relays: usize) -> Self {
        let writer = |lane: &usize| Transaction {
            lane: *lane,
            at: Writer::Idle,
            shares_lock: false,
            rings: false,
            is_fetched: false,
        };
        let lanes = |relay: usize| (0..2).filter(|lane| lane % relays == relay).collect();
        Self {
            bug,
            writers: lanes_of_writers.iter().map(writer).collect(),
            relays: (0..relays).map(|relay| Relay::new(lanes(relay))).collect(),
            locks: vec![None; 2],
            faults: 1,
        }
    }

    fn steps(&self) -> Vec<Step> {
        let relays = 0..self.relays.len();
        let of_relay = |relay| {
            [
                Step::Ask(relay),
                Step::Execute(relay),
                Step::Answer(relay),
                Step::BeginFetch(relay),
                Step::EndFetch(relay),
                Step::Ring(relay),
                Step::NoticeCut(relay),
            ]
        };
        let mut steps: Vec<_> = (0..self.writers.len()).map(Step::Write).collect();
        steps.extend(relays.flat_map(of_relay));
        steps.extend([Step::CutBell, Step::Drain, Step::HandOver]);
        steps
    }

    /// Takes a step. Returns whether it was possible.
    fn apply(&mut self, step: Step) -> bool {
        match step {
            Step::Write(writer) => self.write(writer),
            Step::Ask(relay) => self.ask(relay),
            Step::Execute(relay) => self.execute(relay),
            Step::Answer(relay) => self.answer(relay),
            Step::BeginFetch(relay) => self.begin_fetch(relay),
            Step::EndFetch(relay) => self.end_fetch(relay),
            Step::Ring(relay) => self.ring(relay),
            Step::CutBell => self.cut_bell(),
            Step::NoticeCut(relay) => self.notice_cut(relay),
            Step::Drain => self.drain(),
            Step::HandOver => self.hand_over(),
        }
    }

    fn write(&mut self, number: usize) -> bool {
        let (bug, mut writer) = (self.bug, self.writers[number]);
        let is_locked = self.locks[writer.lane].is_some();
        match writer.at {
            Writer::Idle => {
                writer.at = Writer::Inserted;
                (writer.shares_lock, writer.rings) = (!is_locked, is_locked);
                self.ring_if(bug == Bug::RingBeforeVisible, &mut writer);
                writer.shares_lock &= bug != Bug::UnlockBeforeVisible;
            }
            Writer::Inserted => writer.at = Writer::Visible,
            Writer::Visible => {
                writer.at = Writer::Done;
                self.ring_if(true, &mut writer);
                writer.shares_lock = false;
            }
            Writer::Done => return false,
        }
        self.writers[number] = writer;
        true
    }

    fn ring_if(&mut self, now: bool, writer: &mut Transaction) {
        if !now || !writer.rings || self.bug == Bug::NeverRing {
            return;
        }
        writer.rings = false;
        for relay in self.relays.iter_mut().filter(|relay| relay.is_connected) {
            relay.rings.push(writer.lane);
        }
    }

    fn ask(&mut self, relay: usize) -> bool {
        let relay = &mut self.relays[relay];
        let ready = relay.readiness(self.bug);
        let slept = relay.bell.is_asleep();
        let Some(request) = relay.bell.next_request(ready, late()) else {
            return false;
        };
        relay.bell.ping_at = late() + PING_EVERY;
        relay.fetch_is_due |= slept && request == BellRequest::Unlock;
        relay.request = Request::Sent(request);
        true
    }

    fn execute(&mut self, number: usize) -> bool {
        let Request::Sent(request) = self.relays[number].request else {
            return false;
        };
        if !self.relays[number].is_connected {
            return false;
        }
        let answer = match request {
            BellRequest::Lock(lanes) => self.lock(number, lanes),
            BellRequest::Unlock => self.unlock(number),
            BellRequest::Ping => BellAnswer::Alive,
        };
        self.relays[number].request = Request::Executed(answer);
        true
    }

    fn lock(&mut self, number: usize, lanes: LaneSet) -> BellAnswer {
        let lanes: Vec<_> = lanes.lanes().map(Lane::index).collect();
        let is_free = |lane: &usize| {
            let shared = |writer: &Transaction| writer.lane == *lane && writer.shares_lock;
            self.locks[*lane].is_none() && !self.writers.iter().any(shared)
        };
        let (free, locked): (Vec<usize>, Vec<usize>) = lanes.into_iter().partition(is_free);
        if !locked.is_empty() && self.bug != Bug::SleepUnlocked {
            return BellAnswer::Refused;
        }
        free.iter()
            .for_each(|lane| self.locks[*lane] = Some(number));
        BellAnswer::Locked
    }

    fn unlock(&mut self, number: usize) -> BellAnswer {
        for lock in &mut self.locks {
            *lock = lock.filter(|holder| *holder != number);
        }
        BellAnswer::Unlocked
    }

    fn answer(&mut self, number: usize) -> bool {
        let relay = &mut self.relays[number];
        let Request::Executed(answer) = relay.request else {
            return false;
        };
        relay.on_answer(answer, self.bug);
        true
    }

    fn begin_fetch(&mut self, number: usize) -> bool {
        let relay = &mut self.relays[number];
        if !relay.may_fetch() {
            return false;
        }
        let sees = |writer: &Transaction| {
            let is_visible = matches!(writer.at, Writer::Visible | Writer::Done);
            is_visible && !writer.is_fetched && relay.kept().any(|lane| lane == writer.lane)
        };
        let writers = self.writers.iter().enumerate();
        let seen = writers.filter(|(_, writer)| sees(writer));
        relay.fetch = Some(seen.map(|(number, _)| number).collect());
        relay.fetch_is_due = false;
        relay.bell.on_fetch_begun(relay.kept_set());
        true
    }

    fn end_fetch(&mut self, number: usize) -> bool {
        let relay = &mut self.relays[number];
        let Some(rows) = relay.fetch.take() else {
            return false;
        };
        let (mut any, kept) = (false, relay.kept_set());
        for row in rows {
            let writer = &mut self.writers[row];
            let is_kept = kept.contains(Lane::new(writer.lane as u8));
            let is_new = is_kept && !writer.is_fetched;
            writer.is_fetched |= is_new;
            any |= is_new;
        }
        relay.end_fetch(any, self.bug);
        true
    }

    fn ring(&mut self, number: usize) -> bool {
        let relay = &mut self.relays[number];
        if relay.rings.is_empty() || relay.request != Request::None {
            return false;
        }
        let lane = relay.rings.remove(0);
        relay.on_ring(lane, self.bug);
        true
    }

    /// The server ends the session of the first relay's bell.
    fn cut_bell(&mut self) -> bool {
        if self.faults == 0 || !self.relays[0].is_connected {
            return false;
        }
        self.faults -= 1;
        self.unlock(0);
        (self.relays[0].is_connected, self.relays[0].rings) = (false, vec![]);
        true
    }

    /// The relay learns that the connection is gone, and opens another one.
    fn notice_cut(&mut self, number: usize) -> bool {
        let relay = &mut self.relays[number];
        if relay.is_connected {
            return false;
        }
        relay.bell.on_lost();
        relay.bell.on_opened(early());
        relay.bell.ping_at = late() + PING_EVERY;
        (relay.request, relay.is_connected) = (Request::None, true);
        relay.fetch_is_due = true;
        true
    }

    /// The first relay begins to give lane 0 back.
    fn drain(&mut self) -> bool {
        let is_alone = self.relays.len() == 1;
        let gives = &mut self.relays[0];
        if self.faults == 0 || is_alone || gives.is_giving {
            return false;
        }
        self.faults -= 1;
        gives.is_giving = true;
        true
    }

    /// The last relay is granted lane 0.
    fn hand_over(&mut self) -> bool {
        let gives = &mut self.relays[0];
        if !gives.is_giving || gives.bell.may_hold_locks() {
            return false;
        }
        gives.is_giving = false;
        gives.lanes.retain(|lane| *lane != 0);
        let last = self.relays.len() - 1;
        self.relays[last].take(0);
        true
    }

    /// Ends all that is under way. Returns whether every committed row was fetched.
    fn comes_to_rest(mut self) -> bool {
        self.faults = 0;
        for _ in 0..20 {
            if self.writers.iter().all(|writer| writer.is_fetched) {
                return true;
            }
            for step in self.steps() {
                self.apply(step);
            }
        }
        false
    }
}

fn fingerprint(world: &World) -> u64 {
    let mut hasher = DefaultHasher::new();
    world.hash(&mut hasher);
    hasher.finish()
}

/// Tries all interleavings. Returns the number of states, and whether each came to rest.
fn explore(first: World) -> (usize, bool) {
    let mut seen = HashSet::from([fingerprint(&first)]);
    let mut stack = vec![first];
    while let Some(world) = stack.pop() {
        if !world.clone().comes_to_rest() {
            return (seen.len(), false);
        }
        for step in world.steps() {
            let mut next = world.clone();
            if next.apply(step) && seen.insert(fingerprint(&next)) {
                stack.push(next);
            }
        }
    }
    (seen.len(), true)
}

#[test]
fn no_row_waits_for_a_clock() {
    for (writers, relays) in [(&[0, 1][..], 1), (&[0, 0], 1), (&[0], 2)] {
        let (states, holds) = explore(World::new(Bug::None, writers, relays));
        eprintln!("writers of lanes {writers:?}, {relays} relays: {states} states");
        assert!(holds, "writers of lanes {writers:?}, {relays} relays");
    }
}

#[test]
fn each_planted_bug_leaves_a_row_behind() {
    for bug in [
        Bug::DecideBeforeLock,
        Bug::SleepUnlocked,
        Bug::ForgetNewLanes,
        Bug::RingAnsweredByFetch,
        Bug::UnlockBeforeVisible,
        Bug::RingBeforeVisible,
        Bug::NeverRing,
    ] {
        let worlds = [(&[0, 0][..], 1), (&[0], 2)];
        let is_found = |(writers, relays)| !explore(World::new(bug, writers, relays)).1;
        assert!(worlds.into_iter().any(is_found), "{bug:?} is not found");
    }
}
