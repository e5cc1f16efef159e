//! The largest value of the last seconds. A constant amount of work per value. Pure.

use std::time::{Duration, Instant};

/// The largest value of two spans of time: the one that is not over, and the one before.
#[derive(Clone, Copy, Debug)]
pub struct RecentMax<T> {
    span: Duration,
    began: Instant,
    current: T,
    before: T,
}

impl<T: Copy + Default + Ord> RecentMax<T> {
    /// No value yet. A value is remembered for one span, and for two at most.
    #[must_use]
    pub fn new(span: Duration, now: Instant) -> Self {
        Self {
            span,
            began: now,
            current: T::default(),
            before: T::default(),
        }
    }

    /// Adds a value.
    pub fn observe(&mut self, value: T, now: Instant) {
        self.forget_old(now);
        self.current = self.current.max(value);
    }

    /// Begins another span if this one is over.
    pub fn forget_old(&mut self, now: Instant) {
        if now.saturating_duration_since(self.began) >= self.span {
            *self = Self {
                before: self.current,
                ..Self::new(self.span, now)
            };
        }
    }

    /// The largest value that is remembered.
    #[must_use]
    pub fn get(&self) -> T {
        self.current.max(self.before)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_forgotten_after_two_spans() {
        let start = Instant::now();
        let mut largest = RecentMax::new(Duration::from_secs(5), start);
        for (second, value, expected) in [
            (0, 7, 7),
            (4, 9, 9),
            (5, 1, 9),
            (9, 2, 9),
            (10, 1, 2),
            (15, 1, 1),
        ] {
            largest.observe(value, start + Duration::from_secs(second));
            assert_eq!(largest.get(), expected, "after {second} s");
        }
    }
}
