//! `pg_current_snapshot()`: which transactions a statement could see. Pure.

/// What a statement could see.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    /// Every transaction at or above this was not completed, whether listed or not.
    xmax: u64,
    /// Running transactions below `xmax`, ascending.
    running: Vec<u64>,
}

/// The text is no snapshot.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("'{0}' is no pg_snapshot")]
pub struct ParseSnapshotError(String);

impl Snapshot {
    /// From its parts; `running` in any order.
    #[must_use]
    pub fn new(xmax: u64, mut running: Vec<u64>) -> Self {
        running.sort_unstable();
        Self { xmax, running }
    }

    /// Reads PostgreSQL's text form, `xmin:xmax:xip,xip`.
    ///
    /// # Errors
    /// When the text has another form.
    pub fn parse(text: &str) -> Result<Self, ParseSnapshotError> {
        let refuse = || ParseSnapshotError(text.chars().take(64).collect());
        let mut parts = text.split(':').skip(1);
        let (Some(xmax), Some(running), None) = (parts.next(), parts.next(), parts.next()) else {
            return Err(refuse());
        };
        let xmax = xmax.parse().map_err(|_| refuse())?;
        let running = running
            .split(',')
            .filter(|xid| !xid.is_empty())
            .map(str::parse)
            .collect::<Result<_, _>>()
            .map_err(|_| refuse())?;
        Ok(Self::new(xmax, running))
    }

    /// Every transaction at or above this was not completed when the snapshot was taken.
    #[must_use]
    pub fn xmax(&self) -> u64 {
        self.xmax
    }

    /// Transactions that were running below [`Self::xmax`], ascending.
    #[must_use]
    pub fn running(&self) -> &[u64] {
        &self.running
    }

    /// Whether a transaction had surely ended. One that is only not listed need not have: see
    /// [`Self::xmax`].
    #[must_use]
    pub fn has_ended(&self, xid: u64) -> bool {
        xid < self.xmax && self.running.binary_search(&xid).is_err()
    }
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
