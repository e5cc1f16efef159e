//! Indexes that must not be mixed up. Pure.

/// Index of a row in flight. It travels through the producer as the record's opaque pointer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Slot(usize);

impl Slot {
    /// The slot with this index.
    #[must_use]
    pub const fn new(index: usize) -> Self {
        Self(index)
    }

    /// The index of the slot: from 0, below the number of rows that may be in flight.
    #[must_use]
    pub const fn index(self) -> usize {
        self.0
    }
}

/// Index of a declared topic, in the order of `spec.topics`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TopicIndex(usize);

impl TopicIndex {
    /// The topic with this index.
    #[must_use]
    pub const fn new(index: usize) -> Self {
        Self(index)
    }

    /// The index of the topic: from 0, below the number of declared topics.
    #[must_use]
    pub const fn index(self) -> usize {
        self.0
    }
}
