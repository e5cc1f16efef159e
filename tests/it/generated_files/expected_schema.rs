//! What the migrations make is the same on each server, and is what relays compare with.

use outbox_relay::{
    outbox::{SchemaFact, expected_facts, fetch_facts, migrate::script, write_expectations},
    settings::SchemaName,
};
use sqlx::{AssertSqlSafe, query_as};

use super::compare;
use crate::harness::postgres::{Database, execute};

/// Name of the schema. No name in the migrations contains it.
const SCHEMA: &str = "made_anew";

/// Makes the schema from the migrations alone: a migration would repair what it does not expect.
async fn facts_of_the_migrations(database: &Database) -> Vec<SchemaFact> {
    let mut settings = database.settings();
    let schema = SchemaName::try_from(SCHEMA.to_owned()).expect("a name");
    settings.database.schema = schema.clone();
    let sql = script(&settings, &database.secrets())
        .await
        .expect("a script");
    execute(&mut database.connect_as(&database.owner).await, &sql).await;
    let facts = fetch_facts(&database.relay_pool(&[]), &schema)
        .await
        .expect("facts");
    let about_the_server = ["server", "level"];
    facts
        .into_iter()
        .filter(|fact| !about_the_server.contains(&fact.name.as_str()))
        .collect()
}

/// Names of the things that the migrations made, and statements that make them again.
async fn repairs(database: &Database) -> Vec<(String, String)> {
    let mut admin = database.as_admin().await;
    execute(
        &mut admin,
        "set quote_all_identifiers = off; set search_path = pg_catalog",
    )
    .await;
    let sql = include_str!("repairs.sql").replace("@schema@", SCHEMA);
    let repairs: Vec<(String, String)> = query_as(AssertSqlSafe(sql))
        .fetch_all(&mut admin)
        .await
        .expect("repairs");
    let placed = |(name, sql): (String, String)| (name, sql.replace(SCHEMA, "@schema@"));
    repairs.into_iter().map(placed).collect()
}

#[tokio::test]
async fn the_expected_schema_is_what_the_migrations_make() {
    let database = Database::create(15).await;
    let facts = facts_of_the_migrations(&database).await;
    let repairs = repairs(&database).await;
    for fact in &facts {
        assert!(!fact.fact.contains('\n'), "a fact has one line: {fact:?}");
        assert!(
            repairs.iter().any(|(name, _)| *name == fact.name),
            "{fact:?}"
        );
    }
    assert_eq!(facts.len(), repairs.len());
    compare(
        "src/outbox/sql/expected_schema.sql",
        &write_expectations(&facts, &repairs),
    );
}

on_each_server! {
    async fn the_expected_schema_is_the_same_on_each_server(database: Database) {
        let facts = facts_of_the_migrations(&database).await;
        for fact in &facts {
            let expected = expected_facts().into_iter().find(|of| of.name == fact.name);
            assert_eq!(expected.map(|of| of.fact.to_owned()).as_ref(), Some(&fact.fact), "{}", fact.name);
        }
        assert_eq!(facts.len(), expected_facts().len());
    }
}
