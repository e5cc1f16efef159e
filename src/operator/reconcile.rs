//! One OutboxRelay, from what is observed to what is written.

pub(crate) mod apply;
pub(crate) mod build;
pub(crate) mod cache;
pub(crate) mod events;
pub(crate) mod observe;
pub(crate) mod plan;
pub(crate) mod status;
pub(crate) mod upgrade_queue;
pub(crate) mod validate;
