//! Secrets that changed: new connections to the database, and a producer that is emptied before its successor begins.

use super::*;
use crate::relay::{credentials::Side, open::store};

/// Longest wait for what is in flight when the producer is replaced; what is left then may come twice.
const FLUSH_MAX: Duration = Duration::from_secs(5);

impl Session<'_> {
    pub(super) fn secrets_changed(&mut self, side: Side) {
        match side {
            Side::Database => self.log_in_again(),
            Side::Kafka => {
                self.watch.ask_now();
                let by = Instant::now() + FLUSH_MAX;
                self.trial_by = self.trial.as_ref().map(|_| by);
                tracing::info!(in_flight = self.core.window().sent(), "the producer is replaced, once what is in flight is acknowledged");
                self.flush_producer(by);
            }
        }
    }

    /// Statements under way go on with their connections, which are closed with the last of them; later ones have new ones.
    fn log_in_again(&mut self) {
        let database = &self.options.settings.database;
        if let Ok(connect) = Connect::relay(database, &self.credentials.database.borrow()) {
            self.store = store(database, &connect);
        }
    }
}
