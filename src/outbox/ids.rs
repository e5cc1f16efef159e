//! Lanes, ids and identities of rows. Pure.

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

    /// Index of the lane in an array of all lanes.
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

/// Id of a row, which the sequence draws. As a position it means "up to this row".
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, sqlx::Type)]
#[sqlx(transparent)]
pub struct RowId(i64);

impl RowId {
    /// The position below every row: the sequence begins with 1.
    pub const ZERO: Self = Self(0);
    /// The position above every row.
    pub const MAX: Self = Self(i64::MAX);

    /// The id with this number.
    #[must_use]
    pub const fn new(number: i64) -> Self {
        Self(number)
    }

    /// Number of the id.
    #[must_use]
    pub const fn get(self) -> i64 {
        self.0
    }

    /// The position just below this row.
    #[must_use]
    pub const fn before(self) -> Self {
        Self(self.0 - 1)
    }

    /// The lowest id above this position.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }
}

impl fmt::Debug for RowId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Display for RowId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Identity of a row. After a restore the sequence may draw an id again, for another event; so the
/// event_id is part of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RowIdentity {
    pub lane: Lane,
    pub id: RowId,
    pub event_id: Uuid,
}
