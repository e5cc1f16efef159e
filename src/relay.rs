//! The relay.
pub mod marks;
