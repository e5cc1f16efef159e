//! `outbox-relay migrate` on real servers: what it creates, and that it can run at any time.

use outbox_relay::{
    outbox::{
        migrate::{self, LOCK_WAIT, migrate},
        schema::{LEVEL, check_schema},
    },
    report::{MigrationReport, ProblemClass},
    settings::MigrationPolicy,
};

use crate::harness::postgres::{Database, execute, refused, value};

on_each_server! {
    async fn an_empty_database_gets_the_schema(database: Database) {
        let report = database.migrate(&database.settings()).await;
        assert_eq!(
            (report.problem, report.schema_version, report.applied),
            (None, Some(LEVEL), (1..=LEVEL).collect())
        );
        let settings = database.settings();
        let level = check_schema(
            &database.relay_pool(&[]),
            &settings.database.schema,
            &settings.owner,
        )
        .await;
        assert_eq!(level.expect("a relay may work on it"), LEVEL);
        let mut admin = database.as_admin().await;
        assert_eq!(
            value::<i64>(&mut admin, "select count(*) from outbox.lane").await,
            64
        );
        assert_eq!(
            value::<Option<String>>(
                &mut admin,
                "select to_regclass('public._sqlx_migrations')::text"
            )
            .await,
            None
        );
    }
}

on_each_server! {
    async fn a_second_run_applies_nothing(database: Database) {
        let database = database.migrated().await;
        let report = database.migrate(&database.settings()).await;
        assert_eq!(
            (report.problem, report.schema_version, report.applied),
            (None, Some(LEVEL), vec![])
        );
    }
}

on_each_server! {
    async fn one_of_concurrent_runs_migrates_and_the_others_have_nothing_to_do(database: Database) {
        let settings = database.settings();
        let reports = futures::future::join_all((0..4).map(|_| database.migrate(&settings))).await;
        assert!(
            reports.iter().all(|report| report.problem.is_none()),
            "{reports:?}"
        );
        assert_eq!(
            reports
                .iter()
                .filter(|report| report.applied.iter().copied().eq(1..=LEVEL))
                .count(),
            1,
            "{reports:?}"
        );
    }
}

on_each_server! {
    async fn a_server_without_lz4_is_reported_and_migrated(database: Database) {
        let mut admin = database.as_admin().await;
        let lz4 = value::<i64>(
            &mut admin,
            "select count(*) from pg_settings where name = \
            'default_toast_compression' and 'lz4' = any (enumvals)",
        )
        .await;
        let report = database.migrate(&database.settings()).await;
        assert_eq!(
            report.notes.iter().any(|note| note.contains("lz4")),
            lz4 == 0,
            "{report:?}"
        );
        execute(
            &mut admin,
            "select outbox.enqueue('file', 'f1', 'Uploaded', \
            convert_to(repeat('x', 100000), 'UTF8'))",
        )
        .await;
        assert_eq!(
            value::<i32>(&mut admin, "select payload_bytes from outbox.pending").await,
            100_000
        );
    }
}

on_each_server! {
    async fn a_migration_that_fails_leaves_nothing_behind(database: Database) {
        let mut settings = database.settings();
        settings
            .migration
            .producers
            .push("nobody_of_that_name".to_owned());
        let problem = database
            .migrate(&settings)
            .await
            .problem
            .expect("a missing role");
        assert_eq!(problem.class, ProblemClass::RoleMissing);
        assert!(
            problem.message.contains("'nobody_of_that_name'"),
            "{problem:?}"
        );
        let mut admin = database.as_admin().await;
        assert_eq!(
            value::<i64>(
                &mut admin,
                "select count(*) from pg_namespace where nspname = \
            'outbox'"
            )
            .await,
            0
        );
    }
}

on_each_server! {
    async fn a_newer_schema_is_accepted_if_it_supports_this_version(database: Database) {
        let database = database.migrated().await;
        let settings = database.settings();
        let mut admin = database.as_admin().await;
        let newer = "insert into outbox.schema_migrations (version, description, success, \
            checksum, execution_time) values (99, 'later', true, '', 0)";
        execute(&mut admin, newer).await;
        let report = database.migrate(&settings).await;
        assert_eq!((report.problem, report.schema_version), (None, Some(99)));
        let level = check_schema(
            &database.relay_pool(&[]),
            &settings.database.schema,
            &settings.owner,
        )
        .await;
        assert_eq!(level.expect("a relay may work on it"), 99);

        execute(
            &mut admin,
            &format!(
                "update outbox.schema_migrations set compatible_from = {} \
            where version = 99",
                LEVEL + 1
            ),
        )
        .await;
        assert_eq!(
            database
                .migrate(&settings)
                .await
                .problem
                .expect("too new")
                .class,
            ProblemClass::NewerSchema
        );
        let error = check_schema(
            &database.relay_pool(&[]),
            &settings.database.schema,
            &settings.owner,
        )
        .await;
        assert_eq!(
            error.expect_err("too new").problem().class,
            ProblemClass::NewerSchema
        );
    }
}

on_each_server! {
    async fn a_schema_of_another_relay_is_left_alone(database: Database) {
        let database = database.migrated().await;
        let mut settings = database.settings();
        settings.owner.cluster = "staging".to_owned();
        let problem = database.migrate(&settings).await.problem.expect("claimed");
        assert_eq!(problem.class, ProblemClass::SchemaClaimedByOther);
        assert!(
            problem.message.contains("'test/essays/file-service'"),
            "{problem:?}"
        );
        let error = check_schema(
            &database.relay_pool(&[]),
            &settings.database.schema,
            &settings.owner,
        )
        .await;
        assert_eq!(
            error.expect_err("claimed").problem().class,
            ProblemClass::SchemaClaimedByOther
        );
    }
}

on_each_server! {
    async fn two_outboxes_can_share_a_database(database: Database) {
        let database = database.migrated().await;
        let mut settings = database.settings();
        settings.owner.name = "essay-lifecycle-service".to_owned();
        settings.database.schema = "outbox_2".to_owned().try_into().expect("a name");
        let report = database.migrate(&settings).await;
        assert_eq!(
            (report.problem, report.applied),
            (None, (1..=LEVEL).collect())
        );
    }
}

on_each_server! {
    async fn verify_reports_what_is_missing_and_changes_nothing(database: Database) {
        let mut verify = database.settings();
        verify.migration.policy = MigrationPolicy::Verify;
        let problem = database.migrate(&verify).await.problem.expect("no schema");
        assert_eq!(problem.class, ProblemClass::SchemaNotReady);
        let mut admin = database.as_admin().await;
        assert_eq!(
            value::<i64>(
                &mut admin,
                "select count(*) from pg_namespace where nspname = \
            'outbox'"
            )
            .await,
            0
        );

        let database = database.migrated().await;
        assert_eq!(database.migrate(&verify).await.problem, None);
        execute(
            &mut admin,
            &format!(
                "revoke execute on function outbox.enqueue_many(jsonb) \
            from {}",
                database.producer
            ),
        )
        .await;
        let problem = database
            .migrate(&verify)
            .await
            .problem
            .expect("a right is missing");
        assert_eq!(problem.class, ProblemClass::InsufficientPrivilege);
        assert!(
            problem
                .message
                .contains(&format!("'{}' as producer", database.producer)),
            "{problem:?}"
        );
    }
}

on_each_server! {
    async fn off_does_nothing_and_reports_so(database: Database) {
        let mut settings = database.settings();
        settings.migration.policy = MigrationPolicy::Never;
        let report = database.migrate(&settings).await;
        assert_eq!(
            (report.problem, report.schema_version, report.notes.len()),
            (None, None, 1)
        );
    }
}

on_each_server! {
    async fn a_table_changed_by_hand_is_noted(database: Database) {
        let database = database.migrated().await;
        let mut admin = database.as_admin().await;
        execute(&mut admin, "create index slow on outbox.event (id)").await;
        let is_noted = |report: &MigrationReport| {
            report.notes.iter().any(|note| note.contains("index of event (id)"))
        };
        let report = database.migrate(&database.settings()).await;
        assert!(report.problem.is_none() && is_noted(&report), "{report:?}");
        execute(&mut admin, "drop index outbox.slow").await;
        assert!(!is_noted(&database.migrate(&database.settings()).await));
    }
}

on_each_server! {
    async fn a_waiting_migration_gives_up_at_its_time_limit(database: Database) {
        let mut other = database.as_admin().await;
        execute(
            &mut other,
            "begin; select pg_advisory_xact_lock(1868720754, hashtext('outbox'))",
        )
        .await;
        let report = migrate(
            &database.settings(),
            &database.secrets(),
            std::time::Duration::from_millis(300),
        )
        .await;
        assert_eq!(
            report.problem.expect("locked").class,
            ProblemClass::LockTimeout
        );
        execute(&mut other, "rollback").await;
        assert_eq!(
            migrate(&database.settings(), &database.secrets(), LOCK_WAIT)
                .await
                .problem,
            None
        );
    }
}

/// Operators and relays run migrations in tasks.
#[test]
fn a_migration_can_move_between_threads() {
    fn send<T: Send>(_: &T) {}
    let settings: Option<outbox_relay::settings::RelaySettings> = None;
    if let Some(settings) = settings {
        send(&migrate(
            &settings,
            &outbox_relay::secrets::Secrets::folder("/"),
            LOCK_WAIT,
        ));
    }
}

on_each_server! {
    async fn a_dry_run_prints_what_an_administrator_can_run_instead(database: Database) {
        let settings = database.settings();
        let script = migrate::script(&settings, &database.secrets())
            .await
            .expect("a script");
        let mut owner = database.connect_as(&database.owner).await;
        let schemas = "select count(*) from pg_namespace where nspname = 'outbox'";
        assert_eq!(
            value::<i64>(&mut owner, schemas).await,
            0,
            "a dry run changes nothing"
        );
        execute(&mut owner, &script).await;
        // The script has the effect of a migration: that finds nothing to do and nothing missing.
        let mut verify = settings.clone();
        verify.migration.policy = MigrationPolicy::Verify;
        assert_eq!(database.migrate(&verify).await.problem, None);
        let report = database.migrate(&settings).await;
        assert_eq!((report.problem, report.applied), (None, vec![]));
        // The script also revokes the rights of a role that was removed from the manifest.
        let mut without = settings.clone();
        without.migration.producers.clear();
        let script = migrate::script(&without, &database.secrets())
            .await
            .expect("a script");
        assert!(!script.contains("create table"), "{script}");
        execute(&mut owner, &script).await;
        let mut producer = database.connect_as(&database.producer).await;
        assert_eq!(
            refused(
                &mut producer,
                "select outbox.enqueue('file', 'f1', 'Uploaded', '{}')"
            )
            .await,
            "42501"
        );
        assert_eq!(
            value::<i64>(&mut owner, "select count(*) from outbox.grantee").await,
            0
        );
    }
}

on_each_server! {
    async fn a_schema_is_taken_over_from_the_named_owner_alone_and_only_when_its_relays_have_gone(
        database: Database,
    ) {
        let database = database.migrated().await;
        let mut settings = database.settings();
        settings.owner.cluster = "another".to_owned();
        settings.migration.take_over_from =
            Some("test/essays/somebody-else".parse().expect("an owner"));
        let problem = database
            .migrate(&settings)
            .await
            .problem
            .expect("another one's");
        assert_eq!(problem.class, ProblemClass::SchemaClaimedByOther);
        let dry_run = async |settings: &outbox_relay::settings::RelaySettings| {
            migrate::script(settings, &database.secrets()).await
        };
        assert_eq!(
            dry_run(&settings).await.expect_err("another one's").class,
            ProblemClass::SchemaClaimedByOther
        );

        settings.migration.take_over_from = Some(database.settings().owner);
        let mut admin = database.as_admin().await;
        execute(
            &mut admin,
            "insert into outbox.relay values (gen_random_uuid(), 'p', now() + \
            interval '1 hour')",
        )
        .await;
        let problem = database
            .migrate(&settings)
            .await
            .problem
            .expect("one is at work");
        assert_eq!(problem.class, ProblemClass::SchemaClaimedByOther);
        assert!(
            problem.message.contains("suspend or delete it first"),
            "{}",
            problem.message
        );
        assert_eq!(
            dry_run(&settings).await.expect_err("one is at work"),
            problem
        );

        execute(&mut admin, "update outbox.relay set lease_until = now()").await;
        let mut by_script = settings.clone();
        by_script.owner.cluster = "by script".to_owned();
        let script = dry_run(&by_script).await.expect("a script");
        execute(&mut database.connect_as(&database.owner).await, &script).await;
        assert_eq!(
            value::<String>(&mut admin, "select cluster from outbox.owner").await,
            "by script"
        );
        settings.migration.take_over_from = Some(by_script.owner);
        assert_eq!(database.migrate(&settings).await.problem, None);
        assert_eq!(
            value::<String>(&mut admin, "select cluster from outbox.owner").await,
            "another"
        );
        assert_eq!(
            database.migrate(&settings).await.problem,
            None,
            "again, when it is ours \
            already"
        );
        let problem = database
            .migrate(&database.settings())
            .await
            .problem
            .expect("taken away");
        assert_eq!(problem.class, ProblemClass::SchemaClaimedByOther);
    }
}
