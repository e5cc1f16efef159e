//! Each obstacle to a migration is reported with a class and a next step until its cause is fixed.

use outbox_relay::{
    report::ProblemClass,
    settings::{Endpoint, MigrationDatabase, RelaySettings},
};

use crate::harness::{
    listeners::closed_port,
    postgres::{Database, execute},
};

fn migration_endpoint(settings: &mut RelaySettings) -> &mut Endpoint {
    let MigrationDatabase { endpoint, .. } =
        settings.migration.database.as_mut().expect("of its own");
    endpoint
}

async fn class(database: &Database, settings: &RelaySettings) -> ProblemClass {
    let problem = database.migrate(settings).await.problem.expect("a problem");
    assert!(
        !problem.message.contains("not-secret") && !problem.message.contains("wrong-password"),
        "{problem:?}"
    );
    problem.class
}

on_each_server! {
    async fn the_right_password_resolves_the_problem_of_a_wrong_one(database: Database) {
        database.write_secret("migration/password", "wrong-password");
        assert_eq!(
            class(&database, &database.settings()).await,
            ProblemClass::AuthenticationFailed
        );
        database.write_secrets(&database.relay, "not-secret");
        assert_eq!(database.migrate(&database.settings()).await.problem, None);
    }
}

on_each_server! {
    async fn an_unknown_user_is_refused_like_a_wrong_password(database: Database) {
        database.write_secret("migration/username", "nobody_of_that_name");
        assert_eq!(
            class(&database, &database.settings()).await,
            ProblemClass::AuthenticationFailed
        );
    }
}

on_each_server! {
    async fn a_missing_database_is_reported_by_name(database: Database) {
        let mut settings = database.settings();
        let Endpoint::Host { name, .. } = migration_endpoint(&mut settings) else {
            panic!("a host")
        };
        *name = "no_such_database".to_owned();
        let problem = database
            .migrate(&settings)
            .await
            .problem
            .expect("a problem");
        assert_eq!(problem.class, ProblemClass::DatabaseMissing);
        assert!(
            problem.message.contains("'no_such_database'"),
            "{problem:?}"
        );
    }
}

on_each_server! {
    async fn a_port_where_nothing_listens_is_unreachable(database: Database) {
        let mut settings = database.settings();
        let Endpoint::Host { port, .. } = migration_endpoint(&mut settings) else {
            panic!("a host")
        };
        *port = closed_port().await;
        assert_eq!(class(&database, &settings).await, ProblemClass::Unreachable);
    }
}

on_each_server! {
    async fn a_missing_secret_is_reported_by_name(database: Database) {
        database.remove_secret("migration/password");
        let problem = database
            .migrate(&database.settings())
            .await
            .problem
            .expect("a problem");
        assert_eq!(problem.class, ProblemClass::SecretMissing);
        assert!(
            problem.message.contains("'migration/password'"),
            "{problem:?}"
        );
    }
}

on_each_server! {
    async fn a_missing_right_to_create_a_schema_is_reported_with_the_grant(database: Database) {
        database.write_secret("migration/username", &database.relay);
        let problem = database
            .migrate(&database.settings())
            .await
            .problem
            .expect("a problem");
        assert_eq!(problem.class, ProblemClass::InsufficientPrivilege);
        assert!(
            problem.message.contains("grant it create on the database"),
            "{problem:?}"
        );
    }
}

on_each_server! {
    async fn a_schema_made_by_an_administrator_needs_no_right_on_the_database(database: Database) {
        let mut admin = database.as_admin().await;
        execute(
            &mut admin,
            &format!("create schema outbox authorization {}", database.relay),
        )
        .await;
        database.write_secret("migration/username", &database.relay);
        assert_eq!(database.migrate(&database.settings()).await.problem, None);
    }
}

on_each_server! {
    async fn a_schema_that_holds_other_tables_is_left_alone(database: Database) {
        let mut owner = database.connect_as(&database.owner).await;
        execute(
            &mut owner,
            "create schema outbox; create table outbox.event (id int)",
        )
        .await;
        assert_eq!(
            class(&database, &database.settings()).await,
            ProblemClass::InvalidSettings
        );
        execute(
            &mut owner,
            "drop table outbox.event; create table outbox.schema_migrations \
            (version text)",
        )
        .await;
        assert_eq!(
            class(&database, &database.settings()).await,
            ProblemClass::InvalidSettings
        );
    }
}

on_each_server! {
    async fn a_schema_where_everybody_may_create_is_refused(database: Database) {
        let mut owner = database.connect_as(&database.owner).await;
        execute(
            &mut owner,
            "create schema outbox; grant create on schema outbox to public",
        )
        .await;
        let problem = database
            .migrate(&database.settings())
            .await
            .problem
            .expect("a problem");
        assert_eq!(problem.class, ProblemClass::InvalidSettings);
        assert!(
            problem
                .message
                .contains("revoke create on schema outbox from public"),
            "{problem:?}"
        );
    }
}

on_each_server! {
    async fn a_role_called_public_is_not_everybody(database: Database) {
        let mut settings = database.settings();
        settings.migration.producers.push("public".to_owned());
        assert_eq!(class(&database, &settings).await, ProblemClass::RoleMissing);
    }
}

on_each_server! {
    async fn a_locked_table_is_a_lock_timeout_and_not_a_hang(database: Database) {
        let database = database.migrated().await;
        let mut other = database.as_admin().await;
        execute(
            &mut other,
            "begin; lock table outbox.owner in access exclusive mode",
        )
        .await;
        let start = std::time::Instant::now();
        assert_eq!(
            class(&database, &database.settings()).await,
            ProblemClass::LockTimeout
        );
        assert!(start.elapsed().as_secs() < 10, "{:?}", start.elapsed());
        execute(&mut other, "rollback").await;
        assert_eq!(database.migrate(&database.settings()).await.problem, None);
    }
}
