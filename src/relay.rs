//! The relay.
pub mod lanes;
pub mod marks;
pub mod routes;
pub mod window;
