//! Two arrows share this crate. Operator: `OutboxRelay` object -> desired objects -> status. Relay: outbox row -> record -> report -> settled row.
//! The halves meet only in [`settings`] (operator writes, relay reads) and [`report`] (relay writes, operator reads).

pub mod api;
pub mod operator;
pub mod report;
pub mod settings;
