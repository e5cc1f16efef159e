//! How many relays, by the load: load, memory and `now` in; a decision with its reason, and the
//! next memory, out. Pure.
//!
//! Unknown load neither adds nor removes relays. Scaling up is immediate, to the double at most,
//! and only when the last step has arrived and has helped. Scaling down goes to the largest number
//! that was wanted within the stabilisation window, and never below what can carry the current
//! rate.

#[cfg(test)]
mod simulation;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;

use k8s_openapi::jiff::{SignedDuration, Timestamp};

use crate::{
    operator::{
        reason::Reason,
        reconcile::{plan::load::Load, validate::ScalingPolicy},
    },
    report,
};

/// Deviation from the target, as a part of it, within which nothing changes. A step that raised
/// throughput by less than this part did not help.
const TOLERANCE: f64 = 0.1;
/// Shortest time between two steps up.
const STEP_PAUSE: SignedDuration = SignedDuration::from_secs(15);
/// Time span of the rate that relays report: a step cannot be judged before it has passed.
const RATE_SPAN: SignedDuration =
    SignedDuration::from_secs(report::RATE_SPAN.as_secs().cast_signed());

/// What a decision is made from.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct ScaleInputs {
    /// Number of relays that the Deployment is set to.
    pub count: i32,
    pub available: i32,
    /// Absent if a lane has no relay that reports.
    pub load: Option<Load>,
}

/// How many relays there should be, and why. Nothing changes if `from == to`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Decision {
    pub from: i32,
    pub to: i32,
    pub reason: Reason,
}

/// What one decision leaves to the next. If it is lost, the next decision starts from the
/// Deployment's number of replicas.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct ScalingMemory {
    /// Number of replicas that the operator left; another one was set by somebody else.
    pub count: Option<i32>,
    /// Numbers of relays that were sufficient, each with the time when it was last. They decrease,
    /// so the first is the largest.
    sufficient: VecDeque<(Timestamp, i32)>,
    /// The last step up, until it is known whether it helped.
    step: Option<Step>,
    /// Records per second when a step up did not help.
    flat_at_rate: Option<f64>,
    /// Records per second that one relay can publish, as far as it was seen: the exact number if
    /// more relays were needed, else a lower bound. Without it, a steady load would be left to too
    /// few relays as soon as its backlog is gone.
    capacity: Option<f64>,
}

/// A step up.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Step {
    at: Timestamp,
    /// When all of its relays were first seen available.
    arrived_at: Option<Timestamp>,
    /// Records per second before the step.
    published_before: f64,
}

impl Step {
    /// Records when all relays are available.
    fn record_arrival(&mut self, inputs: &ScaleInputs, now: Timestamp) {
        if self.arrived_at.is_none() && inputs.available >= inputs.count {
            self.arrived_at = Some(now);
        }
    }

    /// Returns whether the rate of all relays is known by now: it is an average over
    /// [`RATE_SPAN`].
    fn is_measured(&self, now: Timestamp) -> bool {
        let has_rate = self
            .arrived_at
            .is_some_and(|at| now.duration_since(at) >= RATE_SPAN);
        has_rate && now.duration_since(self.at) >= STEP_PAUSE
    }
}

/// Returns whether a rate is higher than one before it, by more than the tolerance.
fn is_more(rate: f64, before: f64) -> bool {
    rate > before * (1.0 + TOLERANCE)
}

/// Decides once. The caller keeps the memory if it has carried out the decision.
pub(crate) fn decide(
    policy: &ScalingPolicy,
    inputs: &ScaleInputs,
    before: &ScalingMemory,
    now: Timestamp,
) -> (Decision, ScalingMemory) {
    let mut memory = before.clone();
    let from = inputs.count;
    let (to, reason) = decide_replicas(policy, inputs, &mut memory, now);
    memory.count = Some(to);
    (Decision { from, to, reason }, memory)
}

fn decide_replicas(
    policy: &ScalingPolicy,
    inputs: &ScaleInputs,
    memory: &mut ScalingMemory,
    now: Timestamp,
) -> (i32, Reason) {
    let count = inputs.count.clamp(policy.min, policy.max);
    if memory.sufficient.is_empty() {
        memory.record_sufficient(count, now);
    }
    if count != inputs.count {
        memory.record_sufficient(count, now);
        return (count, Reason::BoundsChanged);
    }
    match &inputs.load {
        Some(load) => decide_by_load(policy, inputs, load, memory, now),
        None => {
            memory.record_sufficient(count, now);
            (count, Reason::ReportsIncomplete)
        }
    }
}

fn decide_by_load(
    policy: &ScalingPolicy,
    inputs: &ScaleInputs,
    load: &Load,
    memory: &mut ScalingMemory,
    now: Timestamp,
) -> (i32, Reason) {
    let count = inputs.count;
    let (wanted, pressure) = wanted(policy, count, load);
    memory.update_capacity(f64::from(count), load.published_per_second);
    let carrying = memory.relays_to_carry(load.published_per_second).min(count);
    let sufficient = wanted.max(carrying).clamp(policy.min, policy.max);
    memory.record_sufficient(sufficient_to_record(sufficient, count, load), now);
    memory.forget_before(now, policy.stabilization);
    if wanted <= count {
        (memory.step, memory.flat_at_rate) = (None, None);
        return scale_down(count, sufficient, memory);
    }
    let last_step = memory.last_step(inputs, load, now);
    if let Some(obstacle) = obstacle(policy, count, load, last_step) {
        return (count, obstacle);
    }
    memory.begin_step(count, load.published_per_second, now);
    (sufficient.min(count.saturating_mul(2)), pressure)
}

/// Returns the number of relays to record as sufficient. While Kafka is unavailable, a growing
/// backlog is no evidence of the number of relays.
fn sufficient_to_record(sufficient: i32, count: i32, load: &Load) -> i32 {
    if load.breaker_open {
        sufficient.min(count)
    } else {
        sufficient
    }
}

/// Returns why no relay is added although the load asks for more.
fn obstacle(
    policy: &ScalingPolicy,
    count: i32,
    load: &Load,
    last_step: LastStep,
) -> Option<Reason> {
    match last_step {
        _ if load.breaker_open => Some(Reason::BreakerOpen),
        _ if count == policy.max => Some(Reason::AtMaximum),
        LastStep::UnderWay => Some(Reason::WaitingForRelays),
        LastStep::DidNotHelp => Some(Reason::ThroughputFlat),
        LastStep::Helped => None,
    }
}

/// Returns the number of relays that brings rows and age to their targets, and which of the two
/// asks for it.
fn wanted(policy: &ScalingPolicy, count: i32, load: &Load) -> (i32, Reason) {
    let (ratio, pressure) = pressure(policy, count, load);
    if (ratio - 1.0).abs() <= TOLERANCE {
        return (count, pressure);
    }
    // The conversion saturates: more than any maximum is as good as the maximum.
    ((f64::from(count) * ratio).ceil() as i32, pressure)
}

/// Returns the load as a part of its target, 1.0 if it is on target, and which target that is: the
/// one that asks for more relays.
fn pressure(policy: &ScalingPolicy, count: i32, load: &Load) -> (f64, Reason) {
    let rows = load.rows as f64 / (f64::from(count) * f64::from(policy.rows_per_relay));
    let age = load.oldest_age.as_secs_f64() / policy.oldest_age.as_secs_f64();
    if rows >= age {
        (rows, Reason::BacklogHigh)
    } else {
        (age, Reason::OldestHigh)
    }
}

fn scale_down(count: i32, sufficient: i32, memory: &ScalingMemory) -> (i32, Reason) {
    let largest = memory
        .sufficient
        .front()
        .map_or(count, |(_, number)| *number);
    if largest < count {
        (largest, Reason::LoadLow)
    } else if sufficient < count {
        (count, Reason::Stabilizing)
    } else {
        (count, Reason::WithinTargets)
    }
}

/// What is known about the last step up.
#[derive(Clone, Copy)]
enum LastStep {
    /// Relays of the step are starting, or their rate is not known yet.
    UnderWay,
    /// Throughput is as it was before the step.
    DidNotHelp,
    /// The step raised throughput, or there was none.
    Helped,
}

impl ScalingMemory {
    /// Records a number of relays that is sufficient now. Smaller numbers before it can never be
    /// the largest again.
    fn record_sufficient(&mut self, number: i32, now: Timestamp) {
        while let Some((_, before)) = self.sufficient.back()
            && *before <= number
        {
            self.sufficient.pop_back();
        }
        self.sufficient.push_back((now, number));
    }

    /// Drops numbers that were sufficient before the window, but for the last one.
    fn forget_before(&mut self, now: Timestamp, window: SignedDuration) {
        while self.sufficient.len() > 1
            && let Some((at, _)) = self.sufficient.front()
            && now.duration_since(*at) >= window
        {
            self.sufficient.pop_front();
        }
    }

    fn begin_step(&mut self, count: i32, published_per_second: f64, now: Timestamp) {
        self.step = Some(Step {
            at: now,
            arrived_at: None,
            published_before: published_per_second,
        });
        self.capacity = Some(published_per_second / f64::from(count));
    }

    /// Raises the capacity of one relay, if it is known, to what was seen now.
    fn update_capacity(&mut self, relays: f64, published_per_second: f64) {
        if let Some(capacity) = &mut self.capacity {
            *capacity = capacity.max(published_per_second / relays);
        }
    }

    /// Returns the number of relays that can publish at this rate; 0 while the capacity is unknown.
    fn relays_to_carry(&self, published_per_second: f64) -> i32 {
        match self.capacity {
            Some(capacity) if capacity > 0.0 => (published_per_second / capacity).ceil() as i32,
            _ => 0,
        }
    }

    fn last_step(&mut self, inputs: &ScaleInputs, load: &Load, now: Timestamp) -> LastStep {
        let rate = load.published_per_second;
        if let Some(step) = &mut self.step {
            step.record_arrival(inputs, now);
            if !step.is_measured(now) {
                return LastStep::UnderWay;
            }
            let helped = is_more(rate, step.published_before);
            self.flat_at_rate = (!helped).then_some(rate);
            self.step = None;
        }
        match self.flat_at_rate {
            Some(before) if !is_more(rate, before) => LastStep::DidNotHelp,
            _ => {
                self.flat_at_rate = None;
                LastStep::Helped
            }
        }
    }
}
