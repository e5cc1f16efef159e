//! The outbox table: connecting, its schema, its statements. The only place that imports sqlx.

pub mod connect;
pub mod error;
pub mod migrate;
pub mod schema;
