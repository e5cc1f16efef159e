//! `pg_current_snapshot()`: the transactions that a statement could see. Pure.

/// The transactions whose changes a statement could see.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    /// No transaction with this id or a higher one had completed. They are never listed.
    xmax: u64,
    /// Ids of the transactions below `xmax` that were running, ascending.
    running: Vec<u64>,
}

/// The text is not a snapshot. It holds the first 64 characters of the text.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("'{0}' is not a pg_snapshot")]
pub struct ParseSnapshotError(String);

impl Snapshot {
    /// Builds a snapshot from its parts. `running` may be in any order.
    #[must_use]
    pub fn new(xmax: u64, mut running: Vec<u64>) -> Self {
        running.sort_unstable();
        Self { xmax, running }
    }

    /// Reads PostgreSQL's text form, `xmin:xmax:xip,xip`.
    ///
    /// # Errors
    /// Returns an error when the text does not have this form.
    pub fn parse(text: &str) -> Result<Self, ParseSnapshotError> {
        Self::parse_parts(text).ok_or_else(|| ParseSnapshotError(text.chars().take(64).collect()))
    }

    fn parse_parts(text: &str) -> Option<Self> {
        let (xmax, running) = xmax_and_running(text)?;
        Some(Self::new(xmax.parse().ok()?, parse_xids(running)?))
    }

    /// No transaction with this id or a higher one had completed when the snapshot was taken.
    #[must_use]
    pub fn xmax(&self) -> u64 {
        self.xmax
    }

    /// Ids of the transactions below [`Self::xmax`] that were running, ascending.
    #[must_use]
    pub fn running(&self) -> &[u64] {
        &self.running
    }

    /// Whether a transaction had certainly ended.
    ///
    /// Not being listed as running proves nothing for a transaction at or above [`Self::xmax`].
    #[must_use]
    pub fn has_ended(&self, xid: u64) -> bool {
        xid < self.xmax && self.running.binary_search(&xid).is_err()
    }
}

/// The two parts after `xmin` in PostgreSQL's text form.
fn xmax_and_running(text: &str) -> Option<(&str, &str)> {
    let (_, after_xmin) = text.split_once(':')?;
    after_xmin.split_once(':')
}

fn parse_xids(list: &str) -> Option<Vec<u64>> {
    list.split(',')
        .filter(|xid| !xid.is_empty())
        .map(|xid| xid.parse().ok())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_snapshot_is_read_as_postgresql_writes_it() {
        assert_eq!(Snapshot::parse("279:279:"), Ok(Snapshot::new(279, vec![])));
        assert_eq!(
            Snapshot::parse("279:281:279,280"),
            Ok(Snapshot::new(281, vec![279, 280]))
        );
        for text in ["", "1:2", "1:2:3:4", "a:b:", "1:2:x"] {
            assert!(Snapshot::parse(text).is_err(), "{text}");
        }
    }
}
