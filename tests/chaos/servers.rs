//! The servers of a run: PostgreSQL with PgBouncer, three brokers, relays. Each has its own host.

pub(crate) mod kafka;
pub(crate) mod net;
pub(crate) mod postgres;
pub(crate) mod process;
pub(crate) mod proxy;
pub(crate) mod relays;

/// Arguments of `setpriv` that run a server as user `nobody`. PostgreSQL and PgBouncer refuse to
/// run as root.
const AS_NOBODY: [&str; 4] = [
    "--reuid=65534",
    "--regid=65534",
    "--clear-groups",
    "--inh-caps=-all",
];
