//! The SQL of docs/setup.md, run as it stands: the roles are enough, and nothing stays behind.

use std::mem::swap;

use crate::harness::postgres::{Database, execute, value};

/// The page's blocks of SQL, for this database: roles, removal of the schema, removal of the roles.
fn blocks(database: &Database) -> [String; 3] {
    let page = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/setup.md"))
        .expect("a page");
    let blocks = page
        .split("```sql\n")
        .skip(1)
        .map(|rest| rest.split("```").next().expect("an end").to_owned());
    let here = |sql: String| {
        let sql = sql
            .replace("essay_lifecycle_", &format!("{}_page_", database.name))
            .replace("essay_lifecycle", &database.name);
        sql.replace("'...'", &format!("'{}'", database.password()))
    };
    blocks
        .map(here)
        .collect::<Vec<_>>()
        .try_into()
        .expect("three blocks")
}

on_each_server! {
    async fn roles_of_the_page_are_enough_and_its_removal_leaves_nothing(database: Database) {
        let mut database = database;
        let [roles, remove_schema, remove_roles] = blocks(&database);
        let mut admin = database.as_admin().await;
        // No right of everybody's is what makes it work.
        let closed = "revoke all on database {0} from public; grant connect on database {0} to {1}";
        execute(
            &mut admin,
            &closed
                .replace("{0}", &database.name)
                .replace("{1}", &database.producer),
        )
        .await;
        execute(&mut admin, &roles).await;
        let (mut owner, mut relay) = (
            format!("{}_page_outbox", database.name),
            format!("{}_page_relay", database.name),
        );
        swap(&mut database.owner, &mut owner);
        swap(&mut database.relay, &mut relay);
        database.write_secrets(&database.relay, database.password());

        assert_eq!(database.migrate(&database.settings()).await.problem, None);
        execute(
            &mut admin,
            &format!(
                "revoke create on database {} from {}",
                database.name, database.owner
            ),
        )
        .await;
        assert_eq!(
            database.migrate(&database.settings()).await.problem,
            None,
            "create is needed once"
        );
        execute(
            &mut database.connect_as(&database.producer).await,
            "select outbox.enqueue('file', 'f1', 'Uploaded', '{}')",
        )
        .await;
        let mut as_relay = database.connect_as(&database.relay).await;
        assert_eq!(
            value::<i64>(&mut as_relay, "select count(*) from outbox.event").await,
            1
        );
        assert!(
            value::<bool>(
                &mut as_relay,
                "select pg_has_role('pg_read_all_stats', 'usage')"
            )
            .await
        );
        drop(as_relay);

        execute(
            &mut database.connect_as(&database.owner).await,
            &remove_schema,
        )
        .await;
        execute(&mut admin, &remove_roles).await;
        let left = format!(
            "select count(*) from pg_roles where rolname in ('{}', '{}')",
            database.owner, database.relay
        );
        assert_eq!(value::<i64>(&mut admin, &left).await, 0);
        let schemas = "select count(*) from pg_namespace where nspname = 'outbox'";
        assert_eq!(value::<i64>(&mut admin, schemas).await, 0);
        // Its own roles go with it.
        swap(&mut database.owner, &mut owner);
        swap(&mut database.relay, &mut relay);
    }
}
