//! Two arrows share this crate. Operator: `OutboxRelay` object -> desired objects -> status. Relay:
//! outbox row -> record -> report -> settled row. The halves meet only in [`settings`] (operator
//! writes, relay reads) and [`report`] (relay writes, operator reads).

pub mod api;
pub mod cli;
pub mod failpoints;
#[cfg(test)]
#[path = "../tests/it/contract/golden.rs"]
mod golden;
pub mod kafka;
pub mod listen;
pub mod manifest;
pub mod operator;
pub mod outbox;
pub mod relay;
pub mod report;
pub mod secrets;
pub mod settings;
pub mod telemetry;
