//! Lanes and identities of rows. Pure.

use std::fmt;

use uuid::Uuid;

use crate::report::LANES;

/// One of the 64 lanes. Its number is below [`LANES`].
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Lane(u8);

impl Lane {
    /// The lane with number 0. Its owner reports the numbers of the whole table.
    pub const FIRST: Self = Self(0);

    /// The lane with this number.
    ///
    /// # Panics
    /// Panics when the number is not below [`LANES`].
    #[must_use]
    pub const fn new(number: u8) -> Self {
        assert!((number as usize) < LANES, "no such lane");
        Self(number)
    }

    /// The lane with the number that a `smallint` column holds; `None` if there is no such lane.
    #[must_use]
    pub fn from_column(number: i16) -> Option<Self> {
        let number = u8::try_from(number).ok()?;
        (usize::from(number) < LANES).then_some(Self(number))
    }

    /// All lanes, by number.
    pub fn all() -> impl Iterator<Item = Self> {
        (0..LANES as u8).map(Self)
    }

    /// Its index in an array of all lanes.
    #[must_use]
    pub const fn index(self) -> usize {
        self.0 as usize
    }
}

/// The value of a `smallint` column.
impl From<Lane> for i16 {
    fn from(lane: Lane) -> Self {
        Self::from(lane.0)
    }
}

impl fmt::Debug for Lane {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Display for Lane {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Identity of a row. After a restore the sequence may draw an id again, for another event; so the
/// event_id is part of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RowIdentity {
    pub lane: Lane,
    pub id: i64,
    pub event_id: Uuid,
}
