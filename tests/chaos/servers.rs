//! What a run starts: PostgreSQL, PgBouncer, three brokers, relays; each on a host of its own.

pub(crate) mod kafka;
pub(crate) mod net;
pub(crate) mod postgres;
pub(crate) mod process;
pub(crate) mod proxy;
pub(crate) mod relays;

/// Servers refuse to run as root: `nobody` and its group.
const NOBODY: [&str; 4] = [
    "--reuid=65534",
    "--regid=65534",
    "--clear-groups",
    "--inh-caps=-all",
];
