//! `spec.database` and `spec.migration`: the PostgreSQL side of a manifest.

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::api::{
    address::HOST_PATTERN,
    adopt::AdoptedTable,
    references::{SecretKey, Tls, UserCredentials},
};

/// Defines a database connection: six fields with three rules, then the struct's own fields. Not a
/// flattened struct, because serde loses the path of a field with an error in it.
macro_rules! connection {
    (
        $(#[$attribute:meta])*
        pub struct $name:ident {
            credentials: $credentials:literal,
            $($own_fields:tt)*
        }
    ) => {
        #[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
        #[serde(rename_all = "camelCase")]
        #[x_kube(validation = (
            "has(self.urlSecretRef) != has(self.host)",
            "set exactly one of urlSecretRef and host"
        ))]
        #[x_kube(validation = (
            "!has(self.host) || (has(self.name) && has(self.credentialsSecretRef))",
            "host needs name and credentialsSecretRef"
        ))]
        #[x_kube(validation = (
            "!has(self.urlSecretRef) || (!has(self.name) && !has(self.credentialsSecretRef))",
            "urlSecretRef carries name and credentials: remove name and credentialsSecretRef"
        ))]
        $(#[$attribute])*
        pub struct $name {
            /// Host name or IP address of the server. An IPv6 address may be in brackets.
            #[serde(default, skip_serializing_if = "Option::is_none")]
            #[schemars(length(min = 1, max = 253), regex(pattern = HOST_PATTERN))]
            pub host: Option<String>,
            /// TCP port of the server. Used with host. Default: 5432.
            #[serde(default = "default_port")]
            #[schemars(range(min = 1, max = 65535))]
            pub port: i32,
            /// Name of the database.
            #[serde(default, skip_serializing_if = "Option::is_none")]
            #[schemars(length(min = 1, max = 63))]
            pub name: Option<String>,
            #[doc = $credentials]
            #[serde(default, skip_serializing_if = "Option::is_none")]
            pub credentials_secret_ref: Option<UserCredentials>,
            /// Key of a Secret that contains a complete URL,
            /// `postgres://user:password@host:port/name`.
            #[serde(default, skip_serializing_if = "Option::is_none")]
            pub url_secret_ref: Option<SecretKey>,
            /// TLS to the server.
            #[serde(default)]
            pub tls: Tls,
            $($own_fields)*
        }
    };
}

connection! {
    /// Database of the outbox table. Set either `urlSecretRef`, or `host` with `name` and
    /// `credentialsSecretRef`.
    #[x_kube(validation = (
        "!self.schema.startsWith('pg_')",
        "schema must not start with pg_: such names are PostgreSQL's own"
    ))]
    #[x_kube(validation = (
        "self.schema == oldSelf.schema",
        "schema is immutable: rows would stay behind in the old one"
    ))]
    pub struct Database {
        credentials: "User name and password of the relay.",
        /// Schema of the outbox tables. Immutable. Default: outbox.
        #[serde(default = "default_schema")]
        #[schemars(length(max = 63), regex(pattern = r"^[a-z_][a-z0-9_]{0,62}$"))]
        pub schema: String,
        /// Maximum number of connections of each relay pod, 3 to 16. With fewer than 5, or behind a
        /// pooler, an idle relay polls: it has no connection for the doorbell. Default: 5.
        #[serde(default = "default_max_connections")]
        #[schemars(range(min = 3, max = 16))]
        pub max_connections: i32,
        /// Whether host and port are those of a connection pooler in transaction mode, such as
        /// PgBouncer. The pooler should have 3 connections to the server for each relay pod: with
        /// fewer, a long read can delay the renewal of a lease. The migration uses the pooler, too,
        /// unless `migration.database` is a direct endpoint. Default: false.
        #[serde(default)]
        pub pooler: bool,
    }
}

connection! {
    /// Direct endpoint, with credentials that may create the schema. Only the migration uses it.
    pub struct DatabaseConnection {
        credentials: "User name and password of the owner of the schema.",
    }
}

impl Database {
    /// Connection without the other fields. The migration uses it if `migration.database` is
    /// absent.
    #[must_use]
    pub fn connection(&self) -> DatabaseConnection {
        DatabaseConnection {
            host: self.host.clone(),
            port: self.port,
            name: self.name.clone(),
            credentials_secret_ref: self.credentials_secret_ref.clone(),
            url_secret_ref: self.url_secret_ref.clone(),
            tls: self.tls.clone(),
        }
    }
}

/// Default of `port`.
pub(crate) fn default_port() -> i32 {
    5432
}

fn default_schema() -> String {
    "outbox".to_owned()
}

fn default_max_connections() -> i32 {
    5
}

/// Whether the operator may change the database.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum MigrationPolicy {
    /// Create and upgrade the schema.
    #[default]
    Apply,
    /// Change nothing, and only check that the schema is the one that this version needs.
    Verify,
    /// Run no migration. Relays wait until the schema is the one that they need.
    Never,
}

/// `spec.migration`: who creates the outbox tables, with which rights, and for which roles.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Migration {
    /// Whether the operator may change the database. Apply: create and upgrade the schema. Verify:
    /// only check it. Never: run no migration. Default: Apply.
    #[serde(default)]
    pub policy: MigrationPolicy,
    /// Direct endpoint and owner credentials. If absent, the migration uses those of
    /// `spec.database`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub database: Option<DatabaseConnection>,
    /// Roles that get rights on the schema.
    #[serde(default)]
    pub grants: Grants,
    /// Owner that the schema is taken over from, as `<cluster>/<namespace>/<name>`; `outbox-relay
    /// owner show` prints it. Stop the relays of that owner first. If the schema has a different
    /// owner, it is not taken over. If absent, a schema of another OutboxRelay is never changed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(
        length(min = 5, max = 380),
        regex(pattern = r"^[^/\s]+/[^/\s]+/[^/\s]+$")
    )]
    pub take_over_from: Option<String>,
    /// Outbox tables that services have already, at most 16. New rows of these tables are
    /// published. Default: none.
    #[serde(default)]
    #[schemars(length(max = 16))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["table".into()]))]
    pub adopt: Vec<AdoptedTable>,
}

/// Existing roles that get rights on the schema. The relay's own user gets its rights
/// automatically.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Grants {
    /// Roles of services that write rows, at most 32. Default: none.
    #[serde(default)]
    #[schemars(length(max = 32), inner(length(min = 1, max = 63)))]
    pub producers: Vec<String>,
    /// Additional roles that may run a relay, at most 32. Default: none.
    #[serde(default)]
    #[schemars(length(max = 32), inner(length(min = 1, max = 63)))]
    pub relays: Vec<String>,
}
