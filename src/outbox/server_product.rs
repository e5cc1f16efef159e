//! Servers that speak the protocol of PostgreSQL and are none. Pure, but for asking.

use sqlx::{FromRow, PgConnection, query};

use crate::{
    outbox::Connections,
    report::{Problem, ProblemClass},
};

/// Asked before the search path is set. Each of these servers knows both functions.
const VERSION: &str =
    "select version(), current_setting('server_version_num')::int / 10000 as major";

/// Product that cannot hold an outbox.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "the server is {name}, which {lacks}: order of keys rests on that, so an outbox needs \
     PostgreSQL 15 or newer"
)]
pub struct UnsupportedProduct {
    name: &'static str,
    lacks: &'static str,
}

impl UnsupportedProduct {
    /// Converts the error for a report.
    #[must_use]
    pub fn problem(self) -> Problem {
        Problem::new(ProblemClass::DatabaseError, self.to_string())
    }
}

/// Version of the server.
#[derive(Clone, Debug, PartialEq, Eq, FromRow)]
pub(super) struct ServerVersion {
    /// Text that names the product.
    version: String,
    /// Major version of PostgreSQL that the server claims to be.
    pub(super) major: i32,
}

impl ServerVersion {
    /// Asks on a connection that may be in a transaction.
    ///
    /// # Errors
    /// Returns an error when the database fails.
    ///
    /// # Cancel safety
    /// It only reads, but the connection must not be used again when the future is dropped midway.
    pub(super) async fn read(connection: &mut PgConnection) -> Result<Self, sqlx::Error> {
        Self::from_row(&query(VERSION).fetch_one(connection).await?)
    }

    /// Checks that the product is PostgreSQL, or derived from its server.
    ///
    /// # Errors
    /// Returns an error for a product of which we know that it is not.
    pub(super) fn check_product(&self) -> Result<(), UnsupportedProduct> {
        let unsupported = |name, lacks| Err(UnsupportedProduct { name, lacks });
        if self.version.contains("CockroachDB") {
            return unsupported(
                "CockroachDB",
                "has no snapshots that list open transactions",
            );
        }
        if self.version.contains("-YB-") || self.version.contains("Yugabyte") {
            return unsupported("YugabyteDB", "draws ids and transaction ids on each node");
        }
        Ok(())
    }
}

/// Checks the product on a connection of the pool. A server that does not answer is judged by the
/// statements that follow.
///
/// # Errors
/// Returns an error for a product of which we know that it cannot hold an outbox.
///
/// # Cancel safety
/// Cancel safe: it only reads.
pub async fn check_product(connections: &Connections) -> Result<(), UnsupportedProduct> {
    let row = connections.row(query(VERSION)).await;
    match row.and_then(|row| ServerVersion::from_row(&row)) {
        Ok(version) => version.check_product(),
        Err(_) => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn products_that_only_speak_the_protocol_are_refused_by_name() {
        for (version, name) in [
            (
                "CockroachDB CCL v24.1.0 (x86_64-pc-linux-gnu)",
                Some("CockroachDB"),
            ),
            (
                "PostgreSQL 11.2-YB-2.20.1.0-b0 on x86_64",
                Some("YugabyteDB"),
            ),
            (
                "PostgreSQL 15.2-YB-2.25.0.0-b1 on aarch64",
                Some("YugabyteDB"),
            ),
            ("PostgreSQL 15.18 (Debian 15.18-0+deb12u1) on x86_64", None),
            (
                "PostgreSQL 16.4 on aarch64, compiled by aarch64 gcc, 64-bit",
                None,
            ),
            (
                "PostgreSQL 16.4 (EnterpriseDB Advanced Server 16.4.1) on x86_64",
                None,
            ),
        ] {
            let version = ServerVersion {
                version: version.to_owned(),
                major: 15,
            };
            let refused = version.check_product().err();
            assert_eq!(refused.map(|product| product.name), name, "{version:?}");
            if let Some(product) = refused {
                assert!(product.to_string().len() < 256);
            }
        }
    }
}
