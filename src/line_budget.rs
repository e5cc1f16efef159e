//! How many log lines of one class are written: at first each, and then only their number. Pure.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

/// Lines of one class that are written within a [`SPAN`].
pub(crate) const LINES_MAX: u32 = 50;
/// Time for which lines are counted, from the first one on.
const SPAN: Duration = Duration::from_mins(1);

/// Lines of each class within their current minute.
#[derive(Debug)]
pub(crate) struct LineBudget<C>(BTreeMap<C, Minute>);

#[derive(Debug)]
struct Minute {
    began: Instant,
    written: u32,
    left_out: u64,
}

/// What happens to a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Line {
    Write,
    /// Too many of its class were written in this minute.
    LeaveOut,
}

impl<C> Default for LineBudget<C> {
    fn default() -> Self {
        Self(BTreeMap::new())
    }
}

impl<C: Ord + Clone> LineBudget<C> {
    /// Counts a line of a class.
    pub(crate) fn count(&mut self, class: C, now: Instant) -> Line {
        let minute = self.0.entry(class).or_insert(Minute {
            began: now,
            written: 0,
            left_out: 0,
        });
        if minute.written < LINES_MAX {
            minute.written += 1;
            return Line::Write;
        }
        minute.left_out += 1;
        Line::LeaveOut
    }

    /// Ends the minutes that are over. Returns how many lines were left out in each, if any were.
    pub(crate) fn end_minutes(&mut self, now: Instant) -> Vec<(C, u64)> {
        self.end(|minute| now.saturating_duration_since(minute.began) >= SPAN)
    }

    /// Ends all minutes, because no line follows. Returns as [`Self::end_minutes`].
    pub(crate) fn end_all(&mut self) -> Vec<(C, u64)> {
        self.end(|_| true)
    }

    fn end(&mut self, is_over: impl Fn(&Minute) -> bool) -> Vec<(C, u64)> {
        let mut left_out = Vec::new();
        self.0.retain(|class, minute| {
            if !is_over(minute) {
                return true;
            }
            if minute.left_out > 0 {
                left_out.push((class.clone(), minute.left_out));
            }
            false
        });
        left_out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fifty_lines_of_a_class_are_written_in_a_minute_and_then_their_number() {
        let (start, mut budget) = (Instant::now(), LineBudget::default());
        let at = |seconds| start + Duration::from_secs(seconds);
        let written = |budget: &mut LineBudget<_>, class, lines, now| {
            let lines = (0..lines).map(|_| budget.count(class, now));
            lines.filter(|line| *line == Line::Write).count()
        };
        assert_eq!(written(&mut budget, 'a', 120, at(0)), 50);
        assert_eq!(written(&mut budget, 'a', 9, at(59)), 0);
        assert_eq!(
            written(&mut budget, 'b', 9, at(30)),
            9,
            "each class on its own"
        );
        assert_eq!(budget.end_minutes(at(59)), []);
        assert_eq!(budget.end_minutes(at(60)), [('a', 79)]);
        assert_eq!(written(&mut budget, 'a', 51, at(61)), 50, "a new minute");
        assert_eq!(budget.end_minutes(at(95)), [], "b left nothing out");
        assert_eq!(budget.end_all(), [('a', 1)]);
        assert_eq!(budget.end_all(), []);
    }
}
