//! How much of the window one topic may take, so that a topic whose records are not acknowledged
//! leaves room for the others. Facts in, [`Room`] out. Pure.
//!
//! A relay with one topic shares with no other, so nothing is limited there but by the window.

use crate::relay::core::{in_flight::Budget, unacknowledged::Unacknowledged};

/// A topic may have this part of the free window with the producers, and of a lane, before it has
/// used up its share.
const TOPIC_SHARE_DIVISOR: usize = 4;
/// Rows that are always within a topic's share, so that small windows still make progress.
const TOPIC_SHARE_MIN_ROWS: usize = 64;
/// Bytes that are always within a topic's share.
const TOPIC_SHARE_MIN_BYTES: usize = 64 << 10;
/// While more rows wait than fit, a fetch waits until this part of the window is free: many small
/// fetches cost more (8 % of the rate at which a backlog is drained, with a quarter).
const FETCH_MIN_WINDOW_DIVISOR: usize = 2;
/// A topic is held to its share once its oldest row has been unacknowledged for this part of
/// `slowAfter`. A topic that is faster may take everything.
pub(super) const SHARE_APPLIES_AFTER_DIVISOR: u32 = 4;

/// Rows, and their bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Amount {
    pub(super) rows: usize,
    pub(super) bytes: usize,
}

impl Amount {
    /// What is left of it when `taken` is taken.
    pub(super) fn without(self, taken: Self) -> Self {
        Self {
            rows: self.rows.saturating_sub(taken.rows),
            bytes: self.bytes.saturating_sub(taken.bytes),
        }
    }

    /// The smaller number of each.
    pub(super) fn min(self, other: Self) -> Self {
        Self {
            rows: self.rows.min(other.rows),
            bytes: self.bytes.min(other.bytes),
        }
    }
}

/// What the next fetch may bring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Room {
    /// Rows of all lanes.
    pub(super) rows: usize,
    /// Bytes of all rows.
    pub(super) bytes: usize,
}

/// How full the window is.
#[derive(Clone, Copy, Debug)]
pub(super) struct Window {
    /// Most that may be with the producers.
    pub(super) limit: Amount,
    /// What a fetch may add to what is in flight and to what the producers have.
    pub(super) free: Amount,
    /// What paused topics have with the producers.
    pub(super) paused: Amount,
    /// Rows that the breaker lets through.
    pub(super) breaker_rows: usize,
    /// More rows wait than the last fetch could return.
    pub(super) more_waits: bool,
}

impl Window {
    /// Whether a fetch would be too small to be worth its cost.
    fn is_crowded(&self, available: Amount) -> bool {
        self.more_waits && self.free.rows < available.rows / FETCH_MIN_WINDOW_DIVISOR
    }
}

/// Shares of the topics of one relay.
#[derive(Clone, Copy, Debug)]
pub(super) struct FairShare {
    budget: Budget,
    has_other_topics: bool,
}

impl FairShare {
    /// Shares of `topics` declared topics in a window of this size.
    pub(super) fn new(budget: Budget, topics: usize) -> Self {
        Self {
            budget,
            has_other_topics: topics > 1,
        }
    }

    /// Whether a topic has used up its share: a part of `available`, which is what other paused
    /// topics leave of the limit, or a part of one lane. So any number of paused topics leaves
    /// something to the others.
    pub(super) fn is_used_up(&self, topic: &Unacknowledged, available: Amount) -> bool {
        let lane_share = share_of_rows(self.budget.rows_per_lane);
        self.has_other_topics
            && (topic.rows() >= share_of_rows(available.rows)
                || topic.bytes() >= share_of_bytes(available.bytes)
                || topic.rows() >= lane_share && topic.rows_in_fullest_lane() >= lane_share)
    }

    /// What the next fetch may bring. Nothing while one of the `active` topics has used up its
    /// share, since that topic could take all of it: soon its records are acknowledged, or it is
    /// paused.
    pub(super) fn room<'a>(
        &self,
        window: &Window,
        active: impl IntoIterator<Item = &'a Unacknowledged>,
    ) -> Room {
        let available = window.limit.without(window.paused);
        let mut active = active.into_iter();
        let is_blocked =
            window.is_crowded(available) || active.any(|topic| self.is_used_up(topic, available));
        let rows = if is_blocked {
            0
        } else {
            window.free.rows.min(window.breaker_rows)
        };
        Room {
            rows: self.capped(rows, share_of_rows(available.rows)),
            bytes: self.capped(window.free.bytes, share_of_bytes(self.budget.bytes)),
        }
    }

    /// Rows that the next fetch may bring of a lane that has room for `free` more.
    pub(super) fn lane_rows(&self, free: usize) -> usize {
        self.capped(free, share_of_rows(self.budget.rows_per_lane))
    }

    fn capped(&self, amount: usize, share: usize) -> usize {
        if self.has_other_topics {
            amount.min(share)
        } else {
            amount
        }
    }
}

fn share_of_rows(rows: usize) -> usize {
    share(rows, TOPIC_SHARE_MIN_ROWS)
}

fn share_of_bytes(bytes: usize) -> usize {
    share(bytes, TOPIC_SHARE_MIN_BYTES)
}

/// A part of `amount`, at least `min`, unless that is more than half of it: a topic that is not
/// acknowledged must leave something to the others in a small window, too.
fn share(amount: usize, min: usize) -> usize {
    (amount / TOPIC_SHARE_DIVISOR)
        .max(min.min(amount / 2))
        .max(1)
}

#[cfg(test)]
mod tests;
