//! How many relays, by what waits: facts, what is remembered and `now` in; a decision with its
//! reason, and what to remember, out. Pure.
//!
//! What is not known adds nothing and takes nothing away. Up goes at once, to the double at most,
//! and only when the last step has arrived and has helped; down goes to the most that was wanted
//! within the stabilisation window, and to no less than can carry what is published now.

#[cfg(test)]
mod simulation;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;

use k8s_openapi::jiff::{SignedDuration, Timestamp};

use crate::operator::{
    reason::Reason,
    reconcile::{plan::load::Load, validate::ScalingPolicy},
};

/// Within this part of the target nothing changes; a step that brought less than this did not help.
const TOLERANCE: f64 = 0.1;
/// At most one step up in this time.
const STEP_PAUSE: SignedDuration = SignedDuration::from_secs(15);
/// Relays report what they published over this span: earlier, a step cannot be judged.
const RATE_SPAN: SignedDuration = SignedDuration::from_secs(10);

/// What is so now.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct ScaleInputs {
    /// Relays that the Deployment is set to.
    pub count: i32,
    pub available: i32,
    /// Absent: some lane has nobody who reports.
    pub load: Option<Load>,
}

/// `from == to`: it stays.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Decision {
    pub from: i32,
    pub to: i32,
    pub why: Reason,
}

/// What one decision leaves to the next. May be lost: then it starts from the Deployment's count.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct ScalingMemory {
    /// The count that we left; another one was written by somebody else.
    pub count: Option<i32>,
    /// Counts that were enough, each with the last time when it was; falling, so that the first is
    /// the most.
    enough: VecDeque<(Timestamp, i32)>,
    /// The last step up, until it is known whether it helped.
    step: Option<Step>,
    /// What was published per second when a step up did not help.
    flat_at: Option<f64>,
    /// What one relay can publish per second, as far as it was seen: all of it when more were
    /// needed, else at least that much. Without it a steady load would be left to too few relays as
    /// soon as its backlog has gone.
    capacity: Option<f64>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
struct Step {
    at: Timestamp,
    /// When all of its relays were first seen available.
    arrived_at: Option<Timestamp>,
    published_before: f64,
}

/// One look. The caller remembers the second part when it has done what the first says.
pub(crate) fn decide(
    policy: &ScalingPolicy,
    facts: &ScaleInputs,
    before: &ScalingMemory,
    now: Timestamp,
) -> (Decision, ScalingMemory) {
    let mut memory = before.clone();
    let from = facts.count;
    let (to, why) = judge(policy, facts, &mut memory, now);
    memory.count = Some(to);
    (Decision { from, to, why }, memory)
}

fn judge(
    policy: &ScalingPolicy,
    facts: &ScaleInputs,
    memory: &mut ScalingMemory,
    now: Timestamp,
) -> (i32, Reason) {
    let count = facts.count.clamp(policy.min, policy.max);
    if memory.enough.is_empty() {
        memory.note(count, now);
    }
    if count != facts.count {
        memory.note(count, now);
        return (count, Reason::BoundsChanged);
    }
    let Some(load) = &facts.load else {
        memory.note(count, now);
        return (count, Reason::ReportsIncomplete);
    };
    let (wanted, pressure) = wanted(policy, count, load);
    memory.learn(f64::from(count), load.published_per_second);
    let enough = wanted
        .max(memory.carrying(load.published_per_second).min(count))
        .clamp(policy.min, policy.max);
    memory.note(
        if load.breaker_open {
            enough.min(count)
        } else {
            enough
        },
        now,
    );
    memory.forget_before(now, policy.stabilization);
    if wanted <= count {
        (memory.step, memory.flat_at) = (None, None);
        return down(count, enough, memory);
    }
    match memory.last_step(facts, load, now) {
        _ if load.breaker_open => (count, Reason::BreakerOpen),
        _ if count == policy.max => (count, Reason::AtMaximum),
        LastStep::OnItsWay => (count, Reason::WaitingForRelays),
        LastStep::DidNotHelp => (count, Reason::ThroughputFlat),
        LastStep::Helped => {
            memory.step = Some(Step {
                at: now,
                arrived_at: None,
                published_before: load.published_per_second,
            });
            memory.capacity = Some(load.published_per_second / f64::from(count));
            (enough.min(count.saturating_mul(2)), pressure)
        }
    }
}

/// What would bring rows and age to their targets, and which of them asks for it.
fn wanted(policy: &ScalingPolicy, count: i32, load: &Load) -> (i32, Reason) {
    let rows = load.rows as f64 / (f64::from(count) * f64::from(policy.rows_per_relay));
    let age = load.oldest_age.as_secs_f64() / policy.oldest_age.as_secs_f64();
    let (ratio, pressure) = if rows >= age {
        (rows, Reason::BacklogHigh)
    } else {
        (age, Reason::OldestHigh)
    };
    if (ratio - 1.0).abs() <= TOLERANCE {
        return (count, pressure);
    }
    // The conversion saturates: more than any maximum is as good as the maximum.
    ((f64::from(count) * ratio).ceil() as i32, pressure)
}

fn down(count: i32, wanted: i32, memory: &ScalingMemory) -> (i32, Reason) {
    let most = memory.enough.front().map_or(count, |(_, most)| *most);
    match () {
        () if most < count => (most, Reason::LoadLow),
        () if wanted < count => (count, Reason::Stabilizing),
        () => (count, Reason::WithinTargets),
    }
}

enum LastStep {
    OnItsWay,
    DidNotHelp,
    /// Or there was none.
    Helped,
}

impl ScalingMemory {
    /// A smaller count before this one can never again be the most.
    fn note(&mut self, enough: i32, now: Timestamp) {
        while self
            .enough
            .back()
            .is_some_and(|(_, before)| *before <= enough)
        {
            self.enough.pop_back();
        }
        self.enough.push_back((now, enough));
    }

    fn forget_before(&mut self, now: Timestamp, window: SignedDuration) {
        while self.enough.len() > 1
            && self
                .enough
                .front()
                .is_some_and(|(at, _)| now.duration_since(*at) >= window)
        {
            self.enough.pop_front();
        }
    }

    fn learn(&mut self, relays: f64, published_per_second: f64) {
        self.capacity = self
            .capacity
            .map(|known| known.max(published_per_second / relays));
    }

    /// Relays that can publish this much.
    fn carrying(&self, published_per_second: f64) -> i32 {
        self.capacity
            .filter(|capacity| *capacity > 0.0)
            .map_or(0, |capacity| {
                (published_per_second / capacity).ceil() as i32
            })
    }

    fn last_step(&mut self, facts: &ScaleInputs, load: &Load, now: Timestamp) -> LastStep {
        let more = |before: f64| load.published_per_second > before * (1.0 + TOLERANCE);
        if let Some(step) = &mut self.step {
            if step.arrived_at.is_none() && facts.available >= facts.count {
                step.arrived_at = Some(now);
            }
            let judged = step
                .arrived_at
                .is_some_and(|at| now.duration_since(at) >= RATE_SPAN);
            if !judged || now.duration_since(step.at) < STEP_PAUSE {
                return LastStep::OnItsWay;
            }
            self.flat_at = (!more(step.published_before)).then_some(load.published_per_second);
            self.step = None;
        }
        self.flat_at = self.flat_at.filter(|published| !more(*published));
        if self.flat_at.is_some() {
            LastStep::DidNotHelp
        } else {
            LastStep::Helped
        }
    }
}
