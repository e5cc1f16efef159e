//! Administration of rejected rows: skipping and requeueing. And the upgrade of a schema of level
//! 1, which lacks the functions for it.

use std::time::Duration;

use outbox_relay::outbox::{Lane, schema::LEVEL};
use sqlx::PgConnection;

use crate::{
    harness::postgres::{Database, execute, refused, value, values},
    parking,
};

/// Creates five rows of key f1 and five of f2 with ids 1 to 10 in turn. The relay has parked f1
/// behind its first row.
async fn parked(database: &Database) -> PgConnection {
    let mut owner = database.connect_as(&database.owner).await;
    execute(
        &mut owner,
        "select outbox.enqueue('file', 'f' || 2 - i % 2, 'E' || i, '{}') \
        from generate_series(1, 10) i",
    )
    .await;
    let mut relay = database.connect_as(&database.relay).await;
    execute(
        &mut relay,
        "select outbox.park_key('files', 'f1', lane, id, event_id, \
        'RecordRejected') from outbox.event where id = 1",
    )
    .await;
    owner
}

const WAITING: &str = "select event_type from outbox.event where aggregate_id = 'f1' order by id";

on_each_server! {
    async fn skipping_removes_the_rejected_row_and_unblocks_its_key(database: Database) {
        let database = database.migrated().await;
        let mut owner = parked(&database).await;
        let skip = "select outbox.skip_parked('files', 'f1')";
        assert_eq!(
            value::<Option<bool>>(&mut owner, "select outbox.skip_parked('essays', 'f1')").await,
            None
        );
        assert_eq!(value::<Option<bool>>(&mut owner, skip).await, Some(true));
        assert_eq!(
            values::<String>(&mut owner, WAITING).await,
            ["E3", "E5", "E7", "E9"]
        );
        let letter = "select format('%s %s %s %s', id, destination, class, attempts) \
            from outbox.dead_letter";
        assert_eq!(
            values::<String>(&mut owner, letter).await,
            ["1 files RecordRejected 1"]
        );
        assert_eq!(
            value::<i64>(&mut owner, "select count(*) from outbox.parked_key").await,
            0
        );
        assert_eq!(value::<Option<bool>>(&mut owner, skip).await, None);
    }
}

on_each_server! {
    async fn skipping_a_missing_row_unblocks_its_key(database: Database) {
        let database = database.migrated().await;
        let mut owner = parked(&database).await;
        execute(&mut owner, "delete from outbox.event where id = 1").await;
        assert_eq!(
            value::<Option<bool>>(&mut owner, "select outbox.skip_parked('files', 'f1')").await,
            Some(false)
        );
        assert_eq!(
            values::<String>(&mut owner, WAITING).await,
            ["E3", "E5", "E7", "E9"]
        );
        assert_eq!(
            value::<i64>(
                &mut owner,
                "select (select count(*) from outbox.parked_key) + \
            (select count(*) from outbox.dead_letter)"
            )
            .await,
            0
        );
    }
}

on_each_server! {
    async fn a_key_parked_by_hand_has_no_row_to_skip(database: Database) {
        let database = database.migrated().await;
        let mut owner = database.connect_as(&database.owner).await;
        execute(
            &mut owner,
            "insert into outbox.parked_key (topic, key, lane, class) \
            values ('files', 'f1', 3, 'ParkedByHand')",
        )
        .await;
        assert_eq!(
            refused(&mut owner, "select outbox.skip_parked('files', 'f1')").await,
            "55000"
        );
        assert_eq!(
            value::<i64>(&mut owner, "select count(*) from outbox.parked_key").await,
            1
        );
    }
}

on_each_server! {
    async fn a_requeued_row_is_the_last_of_its_key_with_the_same_event(database: Database) {
        let database = database.migrated().await;
        let mut owner = parked(&database).await;
        let columns = "select format('%s %s %s %s %s %s %s %s', event_id, aggregate_type, \
            aggregate_id, event_type, topic is null, payload, headers, created_at)";
        let before = value::<String>(
            &mut owner,
            &format!(
                "{columns} from outbox.event where id = \
            1"
            ),
        )
        .await;
        execute(&mut owner, "select outbox.skip_parked('files', 'f1')").await;
        let event_id =
            value::<String>(&mut owner, "select event_id::text from outbox.dead_letter").await;
        let requeue = format!("select outbox.requeue('{event_id}')");
        assert_eq!(value::<Option<i64>>(&mut owner, &requeue).await, Some(11));
        assert_eq!(
            values::<String>(&mut owner, WAITING).await,
            ["E3", "E5", "E7", "E9", "E1"]
        );
        assert_eq!(
            value::<String>(
                &mut owner,
                &format!(
                    "{columns} from outbox.event where id = \
            11"
                )
            )
            .await,
            before
        );
        assert_eq!(
            value::<i64>(&mut owner, "select count(*) from outbox.dead_letter").await,
            0
        );
        assert_eq!(value::<Option<i64>>(&mut owner, &requeue).await, None);
    }
}

on_each_server! {
    async fn only_dead_letters_are_requeued(database: Database) {
        let database = database.migrated().await;
        let mut owner = parked(&database).await;
        let waiting = "select count(*) from outbox.event e, outbox.requeue(e.event_id) as new_id \
            where new_id is not null";
        assert_eq!(value::<i64>(&mut owner, waiting).await, 0);
        assert_eq!(
            value::<i64>(&mut owner, "select max(id) from outbox.event").await,
            10
        );
    }
}

/// Creates ten rows and makes all of them dead letters.
async fn all_dead_lettered(database: &Database) -> PgConnection {
    let mut owner = parked(database).await;
    execute(
        &mut owner,
        "select outbox.bury(lane, id, event_id, 'files', 'RecordRejected', 1) from outbox.event",
    )
    .await;
    owner
}

on_each_server! {
    async fn many_are_requeued_in_the_order_in_which_they_were_written(database: Database) {
        let database = database.migrated().await;
        let mut owner = all_dead_lettered(&database).await;
        let backwards = "select count(*) from (select array_agg(event_id order by id desc) e, \
            array_agg(id order by id desc) i from outbox.dead_letter) as d,
          outbox.requeue_many(d.e || gen_random_uuid() || d.e[1], d.i || 5::bigint || d.i[1])";
        assert_eq!(value::<i64>(&mut owner, backwards).await, 10);
        assert_eq!(
            values::<String>(&mut owner, WAITING).await,
            ["E1", "E3", "E5", "E7", "E9"]
        );
        assert_eq!(
            values::<i64>(&mut owner, "select id from outbox.event order by id").await,
            (11..=20).collect::<Vec<_>>()
        );
        assert_eq!(
            value::<i64>(&mut owner, "select count(*) from outbox.dead_letter").await,
            0
        );
    }
}

fn lock(call: &str, key: &str) -> String {
    format!("select {call}(hashtextextended('{key}' collate \"C\", 0))")
}

on_each_server! {
    /// Without the locks, a requeued row could draw its id before a later row and appear after it.
    async fn requeuing_locks_keys_like_enqueue_and_in_ascending_order(database: Database) {
        let database = database.migrated().await;
        let mut owner = all_dead_lettered(&database).await;
        let keys = "select key from unnest(array['f1', 'f2']) key order by hashtextextended(key \
            collate \"C\", 0)";
        let keys = values::<String>(&mut owner, keys).await;
        let mut writer = database.connect_as(&database.producer).await;
        execute(
            &mut writer,
            &format!(
                "begin; select outbox.enqueue('file', '{}', 'Later', \
            '{{}}')",
                keys[0]
            ),
        )
        .await;
        let requeuing = tokio::spawn(async move {
            let all = "select outbox.requeue_many(array_agg(event_id order by event_id), \
                array_agg(id order by event_id)) from outbox.dead_letter";
            values::<i64>(&mut owner, all).await
        });
        let mut observer = database.as_admin().await;
        let waiting = "select count(*) from pg_locks where locktype = 'advisory' and not granted \
            and database = (select oid from pg_database where datname = current_database())";
        for _ in 0..6000 {
            if value::<i64>(&mut observer, waiting).await == 1 {
                break;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        assert_eq!(
            value::<i64>(&mut observer, waiting).await,
            1,
            "it waits for the writer of the \
            lower key"
        );
        assert!(
            value::<bool>(&mut observer, &lock("pg_try_advisory_xact_lock", &keys[1])).await,
            "and does not hold the higher one meanwhile"
        );
        execute(&mut writer, "commit").await;
        assert_eq!(
            requeuing.await.expect("no deadlock"),
            (12..=21).collect::<Vec<_>>()
        );
        assert_eq!(
            value::<i64>(
                &mut observer,
                "select id from outbox.event where event_type = \
            'Later'"
            )
            .await,
            11
        );
    }
}

/// Downgrades the schema to level 1, as the first version created it.
const BACK_TO_LEVEL_1: &str = "
  drop trigger ring on outbox.event;
  drop function outbox.ring;
  drop function outbox.settle(smallint[], bigint[], uuid[], tid[]);
  drop function outbox.resume_sequence;
  drop view outbox.sequence_state;
  drop function outbox.readable_text, outbox.unreadable_column;
  drop function outbox.server_place, outbox.server_numbers;
  drop table outbox.origin;
  drop function outbox.park_key, outbox.bury, outbox.skip_parked, outbox.requeue, \
  outbox.requeue_many;
  drop table outbox.parked_key, outbox.parked_topic, outbox.dead_letter;
  drop function outbox.purge_adopted;
  drop table outbox.adopted;
  alter table outbox.event drop column source, drop column source_key;
  drop function outbox.key_digest;
  alter table outbox.relay drop column breaker;
  delete from outbox.schema_migrations where version > 1";

on_each_server! {
    async fn a_schema_of_level_1_is_upgraded_with_its_rows_and_its_roles(database: Database) {
        let database = database.migrated().await;
        let mut owner = database.connect_as(&database.owner).await;
        execute(&mut owner, BACK_TO_LEVEL_1).await;
        let mut producer = database.connect_as(&database.producer).await;
        execute(
            &mut producer,
            "select outbox.enqueue('file', 'f1', 'Uploaded', '{}')",
        )
        .await;
        let mut relay = database.connect_as(&database.relay).await;
        execute(
            &mut relay,
            "insert into outbox.relay (instance, pod, lease_until) \
            values (gen_random_uuid(), 'old', now())",
        )
        .await;

        let report = database.migrate(&database.settings()).await;
        assert_eq!(
            (report.problem, report.applied),
            (None, (2..=LEVEL).collect::<Vec<_>>())
        );
        // Relays of level 1 can still use the schema.
        assert_eq!(
            value::<i64>(
                &mut owner,
                "select max(compatible_from) \
            from outbox.schema_migrations"
            )
            .await,
            1
        );
        assert_eq!(
            value::<String>(
                &mut relay,
                "select breaker from outbox.relay where pod = \
            'old'"
            )
            .await,
            "Closed"
        );
        execute(
            &mut relay,
            "select outbox.park_key('files', 'f1', lane, id, event_id, \
            'RecordRejected') from outbox.event",
        )
        .await;
        assert_eq!(
            parking::parked(&database.store(), &Lane::all().collect::<Vec<_>>())
                .await
                .keys
                .len(),
            1
        );
    }
}
