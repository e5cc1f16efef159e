//! The relay.
pub mod core;
pub mod lanes;
pub mod marks;
pub mod routes;
pub mod stops;
pub mod window;
