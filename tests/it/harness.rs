//! Shared by tests: addresses of the rig's servers, a database per test, servers with faults.

pub(crate) mod adopted;
pub(crate) mod api_proxy;
pub(crate) mod api_server;
pub(crate) mod brokers;
#[macro_use]
pub(crate) mod kafka;
#[macro_use]
pub(crate) mod postgres;
pub(crate) mod certificates;
pub(crate) mod dumps;
pub(crate) mod fake_api;
pub(crate) mod fake_clock;
pub(crate) mod gate;
pub(crate) mod kubernetes;
pub(crate) mod listeners;
pub(crate) mod on_call;
pub(crate) mod operator;
pub(crate) mod outbox;
pub(crate) mod own_outbox;
pub(crate) mod pgbouncer;
pub(crate) mod pods;
pub(crate) mod producer;
pub(crate) mod prometheus;
pub(crate) mod relay;
pub(crate) mod retrying_writers;
pub(crate) mod rig;
pub(crate) mod server;
pub(crate) mod writers;
