//! A relay without an operator: `run --manifest` migrates, and is reachable from its first moment.

use std::{
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use sqlx::PgConnection;

use crate::harness::{
    postgres::{Database, execute, value},
    relay::until,
    server::{free_port, get},
};

/// A relay that reads a manifest. It is killed when this is dropped.
pub(crate) struct Run {
    child: Child,
    port: u16,
}

impl Run {
    pub(crate) async fn start(manifest: &Path) -> Self {
        let port = free_port().await;
        let child = Command::new(env!("CARGO_BIN_EXE_outbox-relay"))
            .args(["run", "--listen", &format!("127.0.0.1:{port}")])
            .arg("--manifest")
            .arg(manifest)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("the relay's program");
        Self { child, port }
    }

    /// Waits until `/readyz` answers with a text that contains `expected`.
    async fn answers(&self, expected: &str) {
        until(&format!("'{expected}' from /readyz"), async || {
            let answer = get(self.port, "/readyz").await?;
            answer.contains(expected).then_some(())
        })
        .await;
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// A database of the same server and owner that does not exist yet, and a manifest for it.
struct Later<'a> {
    of: &'a Database,
    name: String,
}

impl<'a> Later<'a> {
    fn new(of: &'a Database) -> Self {
        let name = format!("{}_later", of.name);
        Self { of, name }
    }

    fn manifest(&self) -> PathBuf {
        let manifest = self.of.manifest("");
        let text = std::fs::read_to_string(&manifest)
            .expect("written")
            .replace(
                &format!("name: {},", self.of.name),
                &format!("name: {},", self.name),
            );
        std::fs::write(&manifest, text).expect("written");
        manifest
    }

    async fn create(&self, admin: &mut PgConnection) {
        let owner = &self.of.owner;
        execute(
            admin,
            &format!("create database {} owner {owner}", self.name),
        )
        .await;
    }

    async fn drop(&self, admin: &mut PgConnection) {
        execute(admin, &format!("drop database {} with (force)", self.name)).await;
    }
}

on_each_server! {
    async fn a_run_from_a_manifest_says_why_it_waits_until_the_database_is_there(
        database: Database
    ) {
        let (later, mut admin) = (Later::new(&database), database.as_admin().await);
        let run = Run::start(&later.manifest()).await;
        run.answers("DatabaseMissing").await;
        later.create(&mut admin).await;
        run.answers("ok").await;
        later.drop(&mut admin).await;
    }
}

on_each_server! {
    async fn a_run_from_a_manifest_migrates_a_database_that_was_made_anew(database: Database) {
        let (later, mut admin) = (Later::new(&database), database.as_admin().await);
        later.create(&mut admin).await;
        let run = Run::start(&later.manifest()).await;
        run.answers("ok").await;
        later.drop(&mut admin).await;
        run.answers("DatabaseMissing").await;
        later.create(&mut admin).await;
        run.answers("ok").await;
        later.drop(&mut admin).await;
    }
}

on_each_server! {
    async fn a_run_from_a_manifest_says_that_its_migration_cannot_be_applied(database: Database) {
        let mut admin = database.as_admin().await;
        let before = value::<i64>(&mut admin, "select count(*) from pg_namespace").await;
        let manifest = database.manifest("");
        let text = std::fs::read_to_string(&manifest).expect("written").replace(
            &format!("username: {},", database.owner),
            &format!("username: {},", database.producer),
        );
        std::fs::write(&manifest, text).expect("written");
        let run = Run::start(&manifest).await;
        run.answers("InsufficientPrivilege").await;
        let after = value::<i64>(&mut admin, "select count(*) from pg_namespace").await;
        assert_eq!(after, before);
    }
}
