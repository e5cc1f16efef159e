//! A database for a test on one of the rig's servers. It has an owner, a relay user and a producer
//! that no other test uses.

use std::{
    net::SocketAddr,
    path::PathBuf,
    sync::atomic::{AtomicU32, Ordering},
};

use outbox_relay::{
    outbox::{
        Connections, Pools, READER_OPTIONS, Store,
        connect::Connect,
        migrate::{LOCK_WAIT, migrate},
    },
    report::MigrationReport,
    secrets::Secrets,
    settings::{
        BreakerSettings, DatabaseSettings, Endpoint, KafkaSettings, MigrationDatabase,
        MigrationPolicy, MigrationSettings, OnPoison, Owner, RecordHeaders, RelaySettings,
        SchemaName, TlsMode, TlsSettings, TopicSettings,
    },
};
use sqlx::{
    AssertSqlSafe, ConnectOptions, Connection, PgConnection, PgPool, Postgres,
    postgres::PgConnectOptions, raw_sql,
};

use super::{kafka::KafkaVersion, rig::rig};

/// Declares one test for each of these server versions. Each gets a new database.
macro_rules! on_servers {
    (
        [$($test:ident: $version:literal),+]
        $(#[$attribute:meta])*
        async fn $name:ident($database:ident: $type:ident $(,)?) $body:block
    ) => {
        $(#[$attribute])*
        mod $name {
            #[allow(unused_imports, reason = "not each test needs all of its file")]
            use super::*;

            async fn check($database: $type) $body

            $(
                #[tokio::test]
                async fn $test() {
                    let database = $crate::harness::postgres::Database::create($version).await;
                    Box::pin(check(database)).await;
                }
            )+
        }
    };
}

/// Declares one test per server version. Each gets a new database.
macro_rules! on_each_server {
    ($($test:tt)*) => {
        on_servers! { [on_15: 15, on_16: 16, on_17: 17, on_18: 18] $($test)* }
    };
}

/// Declares one test for the oldest server version and one for the newest. Each gets a new database.
macro_rules! on_oldest_and_newest_server {
    ($($test:tt)*) => {
        on_servers! { [on_15: 15, on_18: 18] $($test)* }
    };
}

const PASSWORD: &str = "not-secret";
static NEXT: AtomicU32 = AtomicU32::new(0);

/// A database, empty at first. It is dropped with its roles when this is dropped.
pub(crate) struct Database {
    pub(crate) name: String,
    pub(crate) owner: String,
    pub(crate) relay: String,
    pub(crate) producer: String,
    admin: PgConnectOptions,
    folder: PathBuf,
}

impl Database {
    /// Creates a database on the rig's server of this version.
    pub(crate) async fn create(version: u32) -> Self {
        let url = rig(&format!("RIG_POSTGRES_URL_{version}"));
        Self::create_on(url.parse().expect("the rig's URL")).await
    }

    /// Creates a database in this encoding on the rig's server of this version.
    pub(crate) async fn create_in(version: u32, encoding: &str) -> Self {
        let url = rig(&format!("RIG_POSTGRES_URL_{version}"));
        let options = format!("template template0 encoding '{encoding}' locale 'C'");
        Self::create_with(url.parse().expect("the rig's URL"), &options).await
    }

    /// Creates a database on the server of this superuser.
    pub(crate) async fn create_on(admin: PgConnectOptions) -> Self {
        Self::create_with(admin, "").await
    }

    async fn create_with(admin: PgConnectOptions, options: &str) -> Self {
        let name = format!(
            "it_{}_{}",
            std::process::id(),
            NEXT.fetch_add(1, Ordering::Relaxed)
        );
        let role = |of: &str| format!("{name}_{of}");
        let (owner, relay, producer) = (role("owner"), role("relay"), role("producer"));
        let folder = std::env::temp_dir().join(&name);
        let database = Self {
            name,
            owner,
            relay,
            producer,
            admin: admin.disable_statement_logging(),
            folder,
        };
        database.create_on_server(options).await;
        database.write_secrets(&database.relay, PASSWORD);
        database
    }

    /// Directs new connections to the server of this superuser, which has a copy of the database.
    pub(crate) fn moved_to(mut self, admin: PgConnectOptions) -> Self {
        self.admin = admin.disable_statement_logging();
        self
    }

    /// Creates the schema in the database.
    pub(crate) async fn migrated(self) -> Self {
        let report = self.migrate(&self.settings()).await;
        assert_eq!(report.problem, None);
        self
    }

    async fn create_on_server(&self, options: &str) {
        let mut connection = self.admin.connect().await.expect("the rig's server");
        for role in [&self.owner, &self.relay, &self.producer] {
            execute(
                &mut connection,
                &format!("create role {role} login password '{PASSWORD}'"),
            )
            .await;
        }
        execute(
            &mut connection,
            &format!(
                "create database {} owner {} {options}",
                self.name, self.owner
            ),
        )
        .await;
    }

    /// Writes the secret files of relay and migration, with this user and password for the relay.
    pub(crate) fn write_secrets(&self, user: &str, password: &str) {
        let files = [
            ("database/username", user),
            ("database/password", password),
            ("migration/username", &self.owner),
            ("migration/password", PASSWORD),
        ];
        for (file, content) in files {
            self.write_secret(file, content);
        }
    }

    pub(crate) fn write_secret(&self, file: &str, content: &str) {
        let path = self.folder.join(file);
        std::fs::create_dir_all(path.parent().expect("a folder")).expect("created");
        std::fs::write(path, content).expect("written");
    }

    pub(crate) fn remove_secret(&self, file: &str) {
        std::fs::remove_file(self.folder.join(file)).expect("it was there");
    }

    pub(crate) fn secrets(&self) -> Secrets {
        Secrets::folder(&self.folder)
    }

    /// The password of the three roles.
    pub(crate) fn password(&self) -> &'static str {
        PASSWORD
    }

    /// The folder of the secret files.
    pub(crate) fn secrets_folder(&self) -> &std::path::Path {
        &self.folder
    }

    /// A pool of the producer's connections for concurrent writers.
    pub(crate) fn producer_pool(&self, connections: u32) -> PgPool {
        let options = self
            .admin
            .clone()
            .username(&self.producer)
            .password(PASSWORD)
            .database(&self.name);
        sqlx::postgres::PgPoolOptions::new()
            .max_connections(connections)
            .connect_lazy_with(options)
    }

    pub(crate) fn address(&self) -> SocketAddr {
        format!("127.0.0.1:{}", self.admin.get_port())
            .parse()
            .expect("an address")
    }

    /// Makes the relay's user need a certificate of its name: the rig requires that from members of
    /// role `certonly`.
    pub(crate) async fn needs_a_certificate(&self, admin: &mut PgConnection) {
        let rules: i64 = value(
            admin,
            "select count(*) from pg_hba_file_rules where '+certonly' = any (user_name)",
        )
        .await;
        assert!(
            rules > 0,
            "this server is older than the rig's rules: tests/rig/rig down postgres, then up"
        );
        let created = raw_sql("create role certonly").execute(&mut *admin).await;
        let code = created.err().and_then(|error| {
            error
                .as_database_error()?
                .code()
                .map(|code| code.into_owned())
        });
        assert!(
            matches!(code.as_deref(), None | Some("42710" | "23505")),
            "{code:?}"
        );
        execute(
            admin,
            &format!(
                "grant certonly to {}; alter role {} password null",
                self.relay, self.relay
            ),
        )
        .await;
    }

    fn endpoint(&self) -> Endpoint {
        self.endpoint_at(self.admin.get_port())
    }

    /// The endpoint of the database behind another port.
    pub(crate) fn endpoint_at(&self, port: u16) -> Endpoint {
        Endpoint::Host {
            host: "127.0.0.1".to_owned(),
            port,
            name: self.name.clone(),
        }
    }

    /// Options of the server's superuser for this database.
    pub(crate) fn admin_options(&self) -> PgConnectOptions {
        self.admin.clone().database(&self.name)
    }

    /// Settings that publish to these topics on the rig's broker.
    pub(crate) fn publishing(&self, topics: Vec<TopicSettings>) -> RelaySettings {
        self.publishing_to(KafkaVersion::V4_3, topics)
    }

    /// Settings that publish to these topics on the rig's broker of this version.
    pub(crate) fn publishing_to(
        &self,
        kafka: KafkaVersion,
        topics: Vec<TopicSettings>,
    ) -> RelaySettings {
        let mut settings = self.settings();
        settings.kafka.bootstrap_servers = vec![kafka.servers()];
        settings.topics = topics;
        settings
    }

    /// Settings without TLS: the relay logs in as [`Self::relay`], the migration as
    /// [`Self::owner`].
    pub(crate) fn settings(&self) -> RelaySettings {
        let tls = TlsSettings {
            mode: TlsMode::Disable,
            ca: false,
            client_certificate: false,
        };
        let schema = SchemaName::try_from("outbox".to_owned()).expect("a name");
        let topic = TopicSettings {
            name: "files".to_owned(),
            event_types: vec!["Uploaded".to_owned()],
            aggregate_types: Vec::new(),
            on_poison: OnPoison::default(),
        };
        RelaySettings {
            owner: Owner {
                cluster: "test".to_owned(),
                namespace: "essays".to_owned(),
                name: "file-service".to_owned(),
            },
            database: DatabaseSettings {
                endpoint: self.endpoint(),
                tls: tls.clone(),
                schema,
                max_connections: 5,
                pooler: false,
            },
            migration: MigrationSettings {
                policy: MigrationPolicy::Apply,
                database: Some(MigrationDatabase {
                    endpoint: self.endpoint(),
                    tls: tls.clone(),
                }),
                producers: vec![self.producer.clone()],
                relays: Vec::new(),
                take_over_from: None,
                adopt: Vec::new(),
            },
            kafka: KafkaSettings {
                bootstrap_servers: vec!["127.0.0.1:1".to_owned()],
                tls,
                sasl: None,
                properties: [].into(),
            },
            record_headers: RecordHeaders::Standard,
            topics: vec![topic],
            batch_size: 1000,
            poll_interval_ms: 50,
            breaker: BreakerSettings::default(),
        }
    }

    pub(crate) async fn migrate(&self, settings: &RelaySettings) -> MigrationReport {
        migrate(settings, &self.secrets(), LOCK_WAIT).await
    }

    /// A pool of connections with a relay's options.
    pub(crate) fn relay_pool(
        &self,
        settings: &'static [(&'static str, &'static str)],
    ) -> Connections {
        let connect =
            Connect::relay(&self.settings().database, &self.secrets()).expect("good secrets");
        Connections::new(&connect, 4, settings)
    }

    /// The relay's statements on connections with its options.
    pub(crate) fn store(&self) -> Store {
        let lease = self.relay_pool(&[]);
        let (reader, settler) = (
            self.relay_pool(READER_OPTIONS),
            self.relay_pool(READER_OPTIONS),
        );
        Store::new(
            Pools {
                reader,
                settler,
                lease,
            },
            &self.settings().database.schema,
        )
    }

    /// Writes [`Self::settings`] as a manifest with its Secrets. `extra` is added to `spec`.
    pub(crate) fn manifest(&self, extra: &str) -> PathBuf {
        let (name, port, owner, relay, producer) = (
            &self.name,
            self.admin.get_port(),
            &self.owner,
            &self.relay,
            &self.producer,
        );
        let text = format!(
            "
apiVersion: outboxrelay.dev/v1alpha1
kind: OutboxRelay
metadata: {{ name: file-service, namespace: essays }}
spec:
  database: &direct
    {{ host: 127.0.0.1, port: {port}, name: {name}, credentialsSecretRef: {{ name: relay }}, \
    tls: {{ mode: disable }} }}
  migration:
    database: {{ <<: *direct, credentialsSecretRef: {{ name: owner }} }}
    grants: {{ producers: [ {producer} ] }}
  kafka: {{ bootstrapServers: [ '127.0.0.1:1' ], tls: {{ mode: disable }} }}
  topics: [ {{ name: files, eventTypes: [ Uploaded ] }} ]
{extra}
---
{{ apiVersion: v1, kind: Secret, metadata: {{ name: relay }}, stringData: {{ username: {relay}, \
password: {PASSWORD} }} }}
---
{{ apiVersion: v1, kind: Secret, metadata: {{ name: owner }}, stringData: {{ username: {owner}, \
password: {PASSWORD} }} }}
"
        );
        self.write_secret("manifest.yaml", &text);
        self.folder.join("manifest.yaml")
    }

    /// A connection as the server's superuser.
    pub(crate) async fn as_admin(&self) -> PgConnection {
        self.open(self.admin.clone()).await
    }

    /// A connection as one of the three roles.
    pub(crate) async fn connect_as(&self, role: &str) -> PgConnection {
        self.open(self.admin.clone().username(role).password(PASSWORD))
            .await
    }

    async fn open(&self, options: PgConnectOptions) -> PgConnection {
        options
            .database(&self.name)
            .connect()
            .await
            .expect("the test's database")
    }

    /// Drops the database and its roles. `drop` is synchronous and the client is not, so it uses a
    /// thread with its own runtime.
    fn drop_on_server(&self) {
        let (admin, name) = (self.admin.clone(), self.name.clone());
        let roles = [
            self.owner.clone(),
            self.relay.clone(),
            self.producer.clone(),
        ];
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .expect("a runtime");
            runtime.block_on(async {
                let mut connection = admin.connect().await.expect("the rig's server");
                execute(
                    &mut connection,
                    &format!("drop database {name} with (force)"),
                )
                .await;
                for role in roles {
                    execute(&mut connection, &format!("drop role {role}")).await;
                }
                connection.close().await.ok();
            });
        });
        if thread.join().is_err() {
            eprintln!("database {} and its roles were left behind", self.name);
        }
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        self.drop_on_server();
        std::fs::remove_dir_all(&self.folder).ok();
    }
}

/// Runs statements of any text, which only tests may do.
#[track_caller]
pub(crate) fn execute(connection: &mut PgConnection, sql: &str) -> impl Future<Output = ()> {
    let place = std::panic::Location::caller();
    let text = AssertSqlSafe(sql.to_owned());
    async move {
        raw_sql(text)
            .execute(connection)
            .await
            .unwrap_or_else(|error| panic!("{place}: {error}"));
    }
}

/// Reads one value of one row.
pub(crate) async fn value<T>(connection: &mut PgConnection, sql: &str) -> T
where
    T: Send + Unpin + for<'r> sqlx::Decode<'r, Postgres> + sqlx::Type<Postgres>,
{
    let query = sqlx::query_scalar(AssertSqlSafe(sql.to_owned()));
    query
        .fetch_one(connection)
        .await
        .unwrap_or_else(|error| panic!("{sql}: {error}"))
}

/// Reads one column of all rows.
pub(crate) async fn values<T>(connection: &mut PgConnection, sql: &str) -> Vec<T>
where
    T: Send + Unpin + for<'r> sqlx::Decode<'r, Postgres> + sqlx::Type<Postgres>,
{
    let query = sqlx::query_scalar(AssertSqlSafe(sql.to_owned()));
    query
        .fetch_all(connection)
        .await
        .unwrap_or_else(|error| panic!("{sql}: {error}"))
}

/// Runs a statement that must fail. Returns its SQLSTATE.
pub(crate) async fn refused(connection: &mut PgConnection, sql: &str) -> String {
    let error = raw_sql(AssertSqlSafe(sql.to_owned()))
        .execute(connection)
        .await
        .expect_err(sql);
    let code = error
        .as_database_error()
        .and_then(|error| error.code().map(|code| code.into_owned()));
    code.unwrap_or_else(|| panic!("{sql}: {error}"))
}
