//! Secrets that changed: new connections to the database, and a producer that is emptied before its
//! successor begins.

use super::*;
use crate::relay::{connect::new_store, credentials::Side};

impl Session<'_> {
    pub(super) fn secrets_changed(&mut self, side: Side) {
        match side {
            Side::Database => self.log_in_again(),
            Side::Kafka => {
                self.watch.request_now();
                self.replace_politely("its secrets have changed");
            }
        }
    }

    /// Statements under way go on with their connections, which are closed with the last of them;
    /// later ones have new ones.
    fn log_in_again(&mut self) {
        let database = &self.options.settings.database;
        if let Ok(connect) = Connect::relay(database, &self.credentials.database.borrow()) {
            self.store = new_store(database, &connect);
        }
    }
}
