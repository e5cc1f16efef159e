//! Triggers on adopted tables.

use crate::harness::{
    adopted::{Generation, OutboxRow, events, with_event_outbox},
    postgres::{Database, execute, value},
};

#[tokio::test]
async fn returning_shows_only_a_time_of_publication() {
    for generation in Generation::BOTH {
        let database = Database::create(15).await;
        with_event_outbox(&database, generation).await;
        let mut service = database.connect_as(&database.producer).await;
        let row = OutboxRow::numbered(generation, 1);
        let returned: String = value(
            &mut service,
            &format!(
                "{} returning to_jsonb(event_outbox)::text",
                row.insert_into("event_outbox")
            ),
        )
        .await;
        println!("{returned}");
        execute(&mut service, "select 1").await;
        let mut admin = database.as_admin().await;
        println!("{:?}", events(&mut admin).await);
    }
}
