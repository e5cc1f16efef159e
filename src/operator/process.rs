//! The process around reconciliation: watches, leader election, API client, health, metrics.

pub(crate) mod api_client;
pub(crate) mod controller;
pub(crate) mod election;
pub(crate) mod fence;
pub(crate) mod health;
pub(crate) mod http;
pub mod install_check;
pub(crate) mod leader_lease;
pub(crate) mod metrics;
pub(crate) mod requeue_rate;
pub(crate) mod run;
pub(crate) mod watch_scope;

pub use run::{Options, RunError, run};
