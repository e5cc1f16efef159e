//! Every interleaving of a small database and a reader with [`Watermark`]: writers whose
//! transactions are listed, hidden or over, ticks, settles, fetches cut by a limit, and time. Each
//! property has a planted bug that must break it.

use std::{
    collections::{BTreeSet, HashSet, hash_map::DefaultHasher},
    hash::{Hash, Hasher},
    time::Instant,
};

use super::{Covered, ReadDecision, Watermark, XidTick, XidTicks, YOUNG_FOR};
use crate::outbox::{RowId, Snapshot};

/// A bug that a careful reader could still write.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Bug {
    None,
    /// A cursor that only moves forward over what it has read.
    ForwardOnly,
    /// Take every transaction that is not listed as ended.
    NotListedMeansEnded,
    /// Send what comes behind an ended transaction before its own rows were read.
    IgnoreEnded,
    /// Forget a row as soon as its DELETE has returned, while an older fetch is under way.
    ForgetAtOnce,
    /// A tick carries what was seen when it ended, not when it began.
    TickAtEnd,
}

/// What a writer's transaction does: draws `rows` ids for `key`, then ends.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct Script {
    key: u8,
    rows: u8,
    commits: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum Writer {
    Waiting,
    Running { xid: u64, drawn: u8 },
    Over,
}

/// A row that a writer drew.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
struct Row {
    id: RowId,
    key: u8,
    writer: usize,
    deleted: bool,
}

#[derive(Clone, PartialEq, Eq, Hash)]
struct Fetch {
    low: RowId,
    limit: usize,
    /// Set once the server has answered: its snapshot and the ids it showed.
    answer: Option<(Vec<u64>, u64, Vec<RowId>)>,
}

/// One of the reader's own transactions that has begun: `tick`, and the rows that it deletes.
#[derive(Clone, PartialEq, Eq, Hash)]
struct Settle {
    tick: (u64, RowId),
    ids: Vec<RowId>,
}

#[derive(Clone, Hash)]
struct State {
    next_xid: u64,
    latest_completed: u64,
    writers: Vec<Writer>,
    rows: Vec<Row>,
    settle: Option<Settle>,
    settles_left: u8,
    fetch: Option<Fetch>,
    fetches_left: u8,
    clock: u8,
    ticks: XidTicks,
    marks: Watermark,
    seen: RowId,
    in_flight: BTreeSet<RowId>,
    lingering: BTreeSet<RowId>,
    taken: Vec<RowId>,
}

struct Model {
    scripts: Vec<Script>,
    bug: Bug,
    start: Instant,
    seen: HashSet<u64>,
}

impl Model {
    fn committed(&self, state: &State, row: &Row) -> bool {
        state.writers[row.writer] == Writer::Over && self.scripts[row.writer].commits
    }

    fn snapshot(&self, state: &State) -> (Vec<u64>, u64) {
        let xmax = state.latest_completed + 1;
        let mut running: Vec<u64> = state
            .writers
            .iter()
            .filter_map(|w| {
                if let Writer::Running { xid, .. } = w {
                    Some(*xid)
                } else {
                    None
                }
            })
            .collect();
        running.extend(state.settle.iter().map(|settle| settle.tick.0));
        running.retain(|xid| *xid < xmax);
        running.sort_unstable();
        (running, xmax)
    }

    /// Writers of one key take turns: the next draws its first id only when the one before is over.
    fn may_begin(&self, state: &State, writer: usize) -> bool {
        (0..writer).all(|other| {
            self.scripts[other].key != self.scripts[writer].key
                || state.writers[other] == Writer::Over
        })
    }

    fn steps(&self, state: &State) -> Vec<Result<State, String>> {
        let mut next = Vec::new();
        for writer in 0..self.scripts.len() {
            next.extend(self.write(state, writer).map(Ok));
        }
        next.extend(self.settle(state).map(Ok));
        if state.fetch.is_none() && state.fetches_left > 0 {
            for room in [1, 99] {
                next.push(Ok(self.plan(state, room)));
            }
        }
        if let Some(fetch) = &state.fetch {
            next.push(if fetch.answer.is_none() {
                Ok(self.answer(state))
            } else {
                self.accept(state)
            });
        }
        if state.clock < 1 {
            next.push(Ok(State {
                clock: state.clock + 1,
                ..state.clone()
            }));
        }
        next
    }

    fn write(&self, state: &State, writer: usize) -> Option<State> {
        let script = self.scripts[writer];
        let mut next = state.clone();
        match state.writers[writer] {
            Writer::Waiting => {
                if !self.may_begin(state, writer) {
                    return None;
                }
                next.writers[writer] = Writer::Running {
                    xid: state.next_xid,
                    drawn: 0,
                };
                next.next_xid += 1;
            }
            Writer::Running { xid, drawn } if drawn < script.rows => {
                next.writers[writer] = Writer::Running {
                    xid,
                    drawn: drawn + 1,
                };
                next.rows.push(Row {
                    id: RowId::new(state.rows.len() as i64 + 1),
                    key: script.key,
                    writer,
                    deleted: false,
                });
            }
            Writer::Running { xid, .. } => {
                next.writers[writer] = Writer::Over;
                next.latest_completed = state.latest_completed.max(xid);
            }
            Writer::Over => return None,
        }
        Some(next)
    }

    fn settle(&self, state: &State) -> Option<State> {
        let mut next = state.clone();
        match &state.settle {
            None if state.settles_left > 0 => {
                let ids = state
                    .in_flight
                    .difference(&state.lingering)
                    .copied()
                    .collect();
                next.settle = Some(Settle {
                    tick: (state.next_xid, state.seen),
                    ids,
                });
                next.next_xid += 1;
                next.settles_left -= 1;
            }
            None => return None,
            Some(settle) => {
                for row in next
                    .rows
                    .iter_mut()
                    .filter(|row| settle.ids.contains(&row.id))
                {
                    row.deleted = true;
                }
                next.latest_completed = state.latest_completed.max(settle.tick.0);
                let drawn = if self.bug == Bug::TickAtEnd {
                    state.seen
                } else {
                    settle.tick.1
                };
                next.ticks.add(XidTick {
                    xid: settle.tick.0,
                    drawn,
                });
                if state.fetch.is_none() || self.bug == Bug::ForgetAtOnce {
                    next.in_flight.retain(|id| !settle.ids.contains(id));
                } else {
                    next.lingering.extend(&settle.ids);
                }
                next.settle = None;
            }
        }
        Some(next)
    }

    fn now(&self, state: &State) -> Instant {
        self.start + YOUNG_FOR * u32::from(state.clock)
    }

    fn plan(&self, state: &State, room: usize) -> State {
        let low = state.marks.read_from(self.now(state));
        let limit = room + state.in_flight.range(low.next()..).count();
        State {
            fetch: Some(Fetch {
                low,
                limit,
                answer: None,
            }),
            fetches_left: state.fetches_left - 1,
            ..state.clone()
        }
    }

    fn answer(&self, state: &State) -> State {
        let mut next = state.clone();
        let (running, xmax) = self.snapshot(state);
        let fetch = next.fetch.as_mut().expect("planned");
        let visible = state
            .rows
            .iter()
            .filter(|row| !row.deleted && row.id > fetch.low && self.committed(state, row));
        fetch.answer = Some((
            running,
            xmax,
            visible.map(|row| row.id).take(fetch.limit).collect(),
        ));
        next
    }

    fn accept(&self, state: &State) -> Result<State, String> {
        let mut next = state.clone();
        let fetch = next.fetch.take().expect("planned");
        let (running, xmax, ids) = fetch.answer.expect("answered");
        next.seen = ids.last().copied().unwrap_or(RowId::ZERO).max(next.seen);
        let snapshot = Snapshot::new(xmax, running);
        let reached = if ids.len() == fetch.limit {
            ids.last().copied().unwrap_or(fetch.low)
        } else {
            RowId::MAX
        };
        let mut safe_id = next.ticks.safe_id(&snapshot);
        if self.bug == Bug::NotListedMeansEnded {
            safe_id = next.seen;
        }
        let covered = Covered {
            low: fetch.low,
            reached,
        };
        let before = next.marks.clone();
        let mut reading = next
            .marks
            .advance(covered, &snapshot, safe_id, self.now(state));
        if self.bug == Bug::IgnoreEnded && reading == ReadDecision::Again {
            reading = ReadDecision::Take;
        }
        if self.bug == Bug::ForwardOnly {
            next.marks = Watermark::starting_at(
                ids.last()
                    .copied()
                    .unwrap_or(RowId::ZERO)
                    .max(before.complete_to()),
            );
        }
        if reading == ReadDecision::Take {
            for id in ids {
                if next.in_flight.insert(id) {
                    self.take(&mut next, id)?;
                }
            }
        }
        let lingering = std::mem::take(&mut next.lingering);
        next.in_flight.retain(|id| !lingering.contains(id));
        self.mark_is_safe(&next)?;
        Ok(next)
    }

    fn take(&self, state: &mut State, id: RowId) -> Result<(), String> {
        if state.taken.contains(&id) {
            return Err(format!("row {id} was sent twice: {:?}", state.taken));
        }
        let key = state.rows[id.get() as usize - 1].key;
        let earlier = state
            .rows
            .iter()
            .filter(|row| row.key == key && row.id < id && self.committed(state, row));
        if let Some(row) = earlier
            .into_iter()
            .find(|row| !state.taken.contains(&row.id))
        {
            return Err(format!(
                "row {id} went out before row {} of its key",
                row.id
            ));
        }
        state.taken.push(id);
        Ok(())
    }

    fn mark_is_safe(&self, state: &State) -> Result<(), String> {
        let mark = state.marks.complete_to();
        let to_come = |row: &&Row| {
            let running = matches!(state.writers[row.writer], Writer::Running { .. });
            running || (self.committed(state, row) && !state.taken.contains(&row.id))
        };
        match state.rows.iter().filter(to_come).find(|row| row.id <= mark) {
            Some(row) => Err(format!(
                "row {} is still to come, but the mark is {mark}",
                row.id
            )),
            None => Ok(()),
        }
    }

    /// When nothing runs any more, a few more fetches bring everything.
    fn nothing_is_missed(&self, state: &State) -> Result<(), String> {
        if state.writers.iter().any(|writer| *writer != Writer::Over)
            || state.settle.is_some()
            || state.fetch.is_some()
        {
            return Ok(());
        }
        let mut last = State {
            fetches_left: 9,
            ..state.clone()
        };
        for _ in 0..4 {
            last = self.accept(&self.answer(&self.plan(&last, 99)))?;
        }
        match last
            .rows
            .iter()
            .find(|row| self.committed(&last, row) && !last.taken.contains(&row.id))
        {
            Some(row) => Err(format!("row {} was never sent", row.id)),
            None => Ok(()),
        }
    }

    fn explore(mut self, settles: u8, fetches: u8) -> (usize, Option<String>) {
        let first = State {
            next_xid: 10,
            latest_completed: 9,
            writers: vec![Writer::Waiting; self.scripts.len()],
            rows: vec![],
            settle: None,
            settles_left: settles,
            fetch: None,
            fetches_left: fetches,
            clock: 0,
            ticks: XidTicks::default(),
            marks: Watermark::starting_at(RowId::ZERO),
            seen: RowId::ZERO,
            in_flight: BTreeSet::new(),
            lingering: BTreeSet::new(),
            taken: vec![],
        };
        let mut stack = vec![first];
        while let Some(state) = stack.pop() {
            let mut hasher = DefaultHasher::new();
            state.hash(&mut hasher);
            if !self.seen.insert(hasher.finish()) {
                continue;
            }
            if let Err(violation) = self.nothing_is_missed(&state) {
                return (self.seen.len(), Some(violation));
            }
            for step in self.steps(&state) {
                match step {
                    Ok(next) => stack.push(next),
                    Err(violation) => return (self.seen.len(), Some(violation)),
                }
            }
        }
        (self.seen.len(), None)
    }
}

fn explore(
    bug: Bug,
    scripts: &[(u8, u8, bool)],
    settles: u8,
    fetches: u8,
) -> (usize, Option<String>) {
    let scripts = scripts
        .iter()
        .map(|&(key, rows, commits)| Script { key, rows, commits })
        .collect();
    Model {
        scripts,
        bug,
        start: Instant::now(),
        seen: HashSet::new(),
    }
    .explore(settles, fetches)
}

/// Two writers of one key and one of another; the long one draws first.
const MIXED: &[(u8, u8, bool)] = &[(1, 2, true), (2, 1, true), (1, 1, true)];
const ABORTS: &[(u8, u8, bool)] = &[(1, 1, true), (2, 1, false), (1, 1, true)];

#[test]
fn no_interleaving_misses_a_row_or_breaks_the_order_of_a_key() {
    for (scripts, settles, fetches) in [(MIXED, 1, 3), (MIXED, 2, 2), (ABORTS, 2, 2)] {
        let (states, violation) = explore(Bug::None, scripts, settles, fetches);
        assert_eq!(violation, None, "after {states} states");
        assert!(states > 100_000, "the model explored only {states} states");
    }
}

#[test]
fn each_planted_bug_is_found() {
    for bug in [
        Bug::ForwardOnly,
        Bug::NotListedMeansEnded,
        Bug::IgnoreEnded,
        Bug::ForgetAtOnce,
        Bug::TickAtEnd,
    ] {
        let found = [MIXED, ABORTS]
            .into_iter()
            .find_map(|scripts| explore(bug, scripts, 2, 3).1);
        assert!(found.is_some(), "{bug:?} survived");
    }
}
