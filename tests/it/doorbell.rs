//! The doorbell in SQL: who rings, when, and on which channel. A session of the relay's role stands
//! for a relay that sleeps.

use sqlx::{
    PgConnection,
    postgres::{PgListener, PgPoolOptions},
};

use crate::harness::{
    adopted::{Generation, with_event_outbox},
    postgres::{Database, execute, refused, value},
};

/// Statement that locks all lanes of table `event` of a schema as a relay does.
fn sleep(schema: &str) -> String {
    format!(
        "do $$ begin
           if (select bool_and(pg_try_advisory_lock('{schema}.event'::regclass::oid::int, lane))
               from generate_series(0, 63) as lane) is not true
           then raise exception 'a lane is locked' using errcode = 'lock_not_available'; end if;
         end $$"
    )
}

const WAKE: &str = "select pg_advisory_unlock_all()";

/// Everything that a service can do to add a row of key `a`, one statement each.
const WRITES: [&str; 4] = [
    "select outbox.enqueue('t', 'a', 'E', '{}')",
    r#"select outbox.enqueue_many('[{"aggregate_type": "t", "aggregate_id": "a", "event_type": "E"}]')"#,
    "insert into outbox.event (aggregate_type, aggregate_id, event_type) values ('t', 'a', 'E')",
    "insert into outbox.event (aggregate_type, aggregate_id, event_type)
     select 't', 'a', 'E' from generate_series(1, 1000)",
];

/// What a relay hears.
struct Ears(PgListener);

impl Ears {
    async fn on(database: &Database, schema: &str) -> Self {
        let mut admin = database.as_admin().await;
        let channel = format!("select 'outbox_' || '{schema}.event'::regclass::oid");
        let channel: String = value(&mut admin, &channel).await;
        let pool = PgPoolOptions::new().max_connections(1);
        let pool = pool.connect_lazy_with(database.admin_options());
        let mut listener = PgListener::connect_with(&pool).await.expect("connected");
        listener.listen(&channel).await.expect("listens");
        Self(listener)
    }

    /// Lanes of the rings that have arrived. A ring of this connection itself comes last.
    async fn rings(&mut self) -> Vec<String> {
        let channel: String = sqlx::query_scalar("select pg_listening_channels()")
            .fetch_one(&mut self.0)
            .await
            .expect("a channel");
        sqlx::query("select pg_notify($1, 'end')")
            .bind(&channel)
            .execute(&mut self.0)
            .await
            .expect("rung");
        let mut rings = Vec::new();
        loop {
            let ring = self.0.recv().await.expect("a ring");
            if ring.payload() == "end" {
                return rings;
            }
            rings.push(ring.payload().to_owned());
        }
    }
}

async fn lane_of(connection: &mut PgConnection, key: &str) -> String {
    let lane = format!("select (hashtextextended('{key}' collate \"C\", 0) & 63)::smallint::text");
    value(connection, &lane).await
}

/// A database, a relay's session that sleeps on all lanes, a writer, and the rings.
async fn sleeping(database: Database) -> (Database, PgConnection, PgConnection, Ears) {
    let database = database.migrated().await;
    let (relay, writer, ears) = fall_asleep(&database).await;
    (database, relay, writer, ears)
}

async fn fall_asleep(database: &Database) -> (PgConnection, PgConnection, Ears) {
    let mut relay = database.connect_as(&database.relay).await;
    execute(&mut relay, &sleep("outbox")).await;
    let writer = database.connect_as(&database.producer).await;
    let ears = Ears::on(database, "outbox").await;
    (relay, writer, ears)
}

on_each_server! {
    async fn each_way_to_write_rings_once_for_a_transaction_and_a_lane(database: Database) {
        let (_database, mut relay, mut writer, mut ears) = sleeping(database).await;
        let lane = lane_of(&mut writer, "a").await;
        for write in WRITES {
            execute(&mut writer, &format!("begin; {write}; {write}; commit")).await;
            assert_eq!(ears.rings().await, [lane.as_str()], "{write}");
        }
        execute(&mut relay, WAKE).await;
        for write in WRITES {
            execute(&mut writer, write).await;
            assert_eq!(ears.rings().await, [""; 0], "{write}: nobody sleeps");
        }
    }
}

on_oldest_and_newest_server! {
    async fn requeueing_and_adopted_tables_ring(database: Database) {
        with_event_outbox(&database, Generation::WithTopic).await;
        let (_relay, mut service, mut ears) = fall_asleep(&database).await;
        let mut admin = database.as_admin().await;
        let lane = lane_of(&mut admin, "a").await;
        execute(&mut service, "insert into event_outbox (id, aggregate_id, aggregate_type, \
            event_type, event_data, topic) values (gen_random_uuid(), 'a', 't', 'E', '{}', \
            'files')").await;
        assert_eq!(ears.rings().await, [lane.as_str()], "an adopted table");
        let bury = "select outbox.bury(lane, id, event_id, 'files', 'RecordRejected', 1) from \
            outbox.event";
        execute(&mut admin, bury).await;
        assert_eq!(ears.rings().await, [""; 0], "a dead letter");
        execute(&mut admin, "select outbox.requeue(event_id) from outbox.dead_letter").await;
        assert_eq!(ears.rings().await, [lane.as_str()], "requeued");
    }
}

on_oldest_and_newest_server! {
    async fn no_relay_falls_asleep_while_a_writer_is_in_its_transaction(database: Database) {
        let (_database, mut relay, mut writer, mut ears) = sleeping(database).await;
        execute(&mut relay, WAKE).await;
        for write in WRITES {
            execute(&mut writer, "begin").await;
            execute(&mut writer, write).await;
            assert_eq!(refused(&mut relay, &sleep("outbox")).await, "55P03", "{write}");
            execute(&mut relay, WAKE).await;
            execute(&mut writer, "commit").await;
            execute(&mut relay, &sleep("outbox")).await;
            execute(&mut relay, WAKE).await;
        }
        assert_eq!(ears.rings().await, [""; 0]);
    }
}

on_oldest_and_newest_server! {
    async fn a_savepoint_that_is_rolled_back_takes_its_lock_and_its_ring_with_it(
        database: Database,
    ) {
        let (_database, mut relay, mut writer, mut ears) = sleeping(database).await;
        let lane = lane_of(&mut writer, "a").await;
        let undone = format!("savepoint s; {}; rollback to s", WRITES[0]);
        execute(&mut writer, &format!("begin; {undone}; commit")).await;
        assert_eq!(ears.rings().await, [""; 0], "no row");
        execute(&mut writer, &format!("begin; {undone}; {}; commit", WRITES[0])).await;
        assert_eq!(ears.rings().await, [lane.as_str()], "one row");

        // Nobody sleeps when the row is first inserted; the lock goes with the savepoint. Then a
        // relay falls asleep, and the row that is inserted again rings.
        execute(&mut relay, WAKE).await;
        execute(&mut writer, &format!("begin; {undone}")).await;
        execute(&mut relay, &sleep("outbox")).await;
        execute(&mut writer, &format!("{}; commit", WRITES[0])).await;
        assert_eq!(ears.rings().await, [lane.as_str()]);
    }
}

on_oldest_and_newest_server! {
    async fn two_outboxes_of_a_database_do_not_ring_each_other(database: Database) {
        let (database, _relay, mut writer, mut ears) = sleeping(database).await;
        let mut second = database.settings();
        second.database.schema = "second".to_owned().try_into().expect("a name");
        assert_eq!(database.migrate(&second).await.problem, None);
        let mut ears_of_second = Ears::on(&database, "second").await;
        let write = WRITES[0].replace("outbox.", "second.");
        execute(&mut writer, &write).await;
        assert_eq!(ears_of_second.rings().await, [""; 0], "nobody sleeps there");
        let mut relay = database.connect_as(&database.relay).await;
        execute(&mut relay, &sleep("second")).await;
        execute(&mut writer, &write).await;
        assert_eq!(ears_of_second.rings().await.len(), 1);
        assert_eq!(ears.rings().await, [""; 0]);
    }
}

on_oldest_and_newest_server! {
    /// Why no relay sleeps where transactions can be prepared. The rig's servers allow it.
    async fn a_prepared_transaction_keeps_the_lock_and_one_that_rang_cannot_be_prepared(
        database: Database,
    ) {
        let (_database, mut relay, mut writer, _ears) = sleeping(database).await;
        execute(&mut writer, &format!("begin; {}", WRITES[0])).await;
        assert_eq!(refused(&mut writer, "prepare transaction 'rang'").await, "0A000");
        execute(&mut relay, WAKE).await;
        let prepare = format!("begin; {}; prepare transaction 'quiet'", WRITES[0]);
        execute(&mut writer, &prepare).await;
        assert_eq!(refused(&mut relay, &sleep("outbox")).await, "55P03");
        execute(&mut relay, WAKE).await;
        execute(&mut writer, "commit prepared 'quiet'").await;
        execute(&mut relay, &sleep("outbox")).await;
    }
}
