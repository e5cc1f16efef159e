//! Two halves share this crate:
//! - operator: `OutboxRelay` object -> desired objects -> status
//! - relay: outbox row -> record -> delivery report -> settled row
//!
//! The halves meet only in [`settings`] (the operator writes, the relay reads) and [`report`] (the
//! relay writes, the operator reads).

pub mod api;
pub mod cli;
pub mod doctor;
pub mod event_labels;
pub mod failpoints;
#[cfg(test)]
#[path = "../tests/it/contract/golden.rs"]
mod golden;
pub mod kafka;
mod line_budget;
pub mod listen;
pub mod manifest;
pub mod operator;
pub mod outbox;
pub mod relay;
pub mod report;
pub mod secrets;
pub mod settings;
pub mod stop_signal;
pub mod telemetry;
mod visible_text;
