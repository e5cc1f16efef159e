//! Secrets that changed: new connections to the database, and a producer that is emptied before its
//! successor begins.

use std::time::Instant;

use crate::{
    outbox::connect::Connect,
    relay::{connect::new_store, credentials::Side, session::Session},
};

impl Session<'_> {
    /// Uses new secrets, which the server of their side has accepted before.
    pub(super) fn on_secrets_changed(&mut self, side: Side) {
        match side {
            Side::Database => self.replace_connections(),
            Side::Kafka => {
                self.process.metadata.request_now();
                self.replace_producers_for("its secrets changed");
            }
        }
    }

    /// Later statements use new connections. Statements under way keep theirs, which are closed
    /// with the last of them.
    fn replace_connections(&mut self) {
        let database = &self.process.options.settings.database;
        let secrets = self.process.credentials.database.borrow();
        if let Ok(connect) = Connect::relay(database, &secrets) {
            self.store = new_store(database, &connect);
        }
        drop(secrets);
        self.lose_bell(Instant::now());
    }

    /// Replaces producers that work: what is in flight is acknowledged first.
    pub(super) fn replace_producers_for(&mut self, why: &str) {
        tracing::info!(
            in_flight = self.core.in_flight().sent(),
            "the producer is replaced once its records in flight are acknowledged: {why}"
        );
        self.producers.replace_when_ready(Instant::now());
    }
}
