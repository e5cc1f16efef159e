//! The function `resume_sequence`: which rows get new ids, in which order, and what moves with
//! them.

use sqlx::PgConnection;

use crate::harness::postgres::{Database, execute, refused, value, values};

/// The size of a jump: the minimum while ids are behind the clock, and the exact size when they are
/// ahead of it.
const JUMP: i64 = 1 << 32;

/// Adds an event of each of these keys, separated by spaces.
async fn add(connection: &mut PgConnection, keys: &str) {
    for key in keys.split(' ') {
        execute(
            connection,
            &format!("select outbox.enqueue('file', '{key}', 'Uploaded', '{{}}')"),
        )
        .await;
    }
}

/// Keys of the waiting rows, in the order of their ids.
async fn keys(connection: &mut PgConnection) -> String {
    value::<Option<String>>(
        connection,
        "select string_agg(aggregate_id, ' ' order by id) from outbox.event",
    )
    .await
    .unwrap_or_default()
}

/// Calls the function as a relay that knows this id. Returns whether it resumed, and how many rows
/// it moved.
async fn resume(database: &Database, known: i64) -> (bool, i64) {
    let mut relay = database.connect_as(&database.relay).await;
    let sql = format!("select array[resumed::int, moved] from outbox.resume_sequence({known})");
    let answer: Vec<i64> = value(&mut relay, &sql).await;
    (answer[0] == 1, answer[1])
}

const POSITION: &str = "select position from outbox.sequence_state";
const INCARNATION: &str = "select incarnation::text from outbox.sequence_state";
/// Makes the database look like a copy from another cluster.
const ELSEWHERE: &str = "update outbox.origin set system_identifier = 1";

on_each_server! {
    async fn nothing_changes_while_ids_are_in_order(database: Database) {
        let database = database.migrated().await;
        let mut admin = database.as_admin().await;
        assert_eq!(resume(&database, 0).await, (false, 0));
        add(&mut admin, "a b c").await;
        let before: String = value(&mut admin, INCARNATION).await;
        execute(&mut admin, "update outbox.lane set mark = 2, high_id = 3").await;
        assert_eq!(resume(&database, 3).await, (false, 0));
        assert_eq!(value::<i64>(&mut admin, POSITION).await, 3);
        assert_eq!(value::<String>(&mut admin, INCARNATION).await, before);
        assert_eq!(
            value::<i64>(&mut admin, "select min(mark) from outbox.lane").await,
            2
        );
    }
}

on_each_server! {
    async fn after_a_truncate_all_rows_move_and_every_lane_is_read_from_its_start(
        database: Database,
    ) {
        let database = database.migrated().await;
        let mut admin = database.as_admin().await;
        add(&mut admin, "old old old old old").await;
        execute(
            &mut admin,
            "update outbox.lane set mark = 5, high_id = 2; truncate outbox.event \
            restart identity",
        )
        .await;
        add(&mut admin, "c a b c").await;
        assert_eq!(
            value::<Option<String>>(&mut admin, INCARNATION).await,
            None,
            "every fetch shows it"
        );

        assert_eq!(resume(&database, 5).await, (true, 4));
        assert_eq!(keys(&mut admin).await, "c a b c");
        assert!(value::<i64>(&mut admin, "select min(id) from outbox.event").await > JUMP);
        assert!(
            value::<bool>(
                &mut admin,
                "select position = (select max(id) from outbox.event) \
            from outbox.sequence_state"
            )
            .await
        );
        assert!(
            value::<bool>(
                &mut admin,
                "select bool_and(mark = 0 and high_id = position) \
            from outbox.lane, outbox.sequence_state"
            )
            .await
        );
        assert_eq!(resume(&database, 5).await, (false, 0), "once is enough");
        add(&mut admin, "d").await;
        assert_eq!(keys(&mut admin).await, "c a b c d");
    }
}

on_each_server! {
    async fn in_another_cluster_earlier_rows_keep_their_ids_and_others_move_behind_them(
        database: Database,
    ) {
        let database = database.migrated().await;
        let mut admin = database.as_admin().await;
        add(&mut admin, "a b c d").await;
        execute(
            &mut admin,
            "update outbox.lane set high_id = 2 where lane = 7",
        )
        .await;
        execute(&mut admin, ELSEWHERE).await;
        let before: Vec<String> = values(
            &mut admin,
            "select event_id::text from outbox.event \
            order by id",
        )
        .await;

        assert_eq!(resume(&database, 0).await, (true, 2));
        let ids: Vec<i64> = values(&mut admin, "select id from outbox.event order by id").await;
        let position: i64 = value(&mut admin, POSITION).await;
        assert_eq!(ids, [1, 2, position - 1, position]);
        assert!(position > 4 + JUMP);
        assert_eq!(
            values::<String>(
                &mut admin,
                "select event_id::text from outbox.event order by \
            id"
            )
            .await,
            before
        );
    }
}

on_each_server! {
    async fn the_highest_id_of_a_relay_counts_even_if_the_database_does_not_know_it(
        database: Database,
    ) {
        let database = database.migrated().await;
        let mut admin = database.as_admin().await;
        add(&mut admin, "a").await;
        let ahead_of_the_clock = 1 << 60;
        assert_eq!(resume(&database, ahead_of_the_clock).await, (true, 1));
        assert_eq!(
            value::<i64>(&mut admin, POSITION).await,
            ahead_of_the_clock + JUMP + 1
        );
    }
}

on_each_server! {
    async fn rows_above_a_sequence_that_was_set_back_stay_before_those_that_came_later(
        database: Database,
    ) {
        let database = database.migrated().await;
        let mut admin = database.as_admin().await;
        add(&mut admin, "x x x k1 x k2").await;
        execute(
            &mut admin,
            "delete from outbox.event where aggregate_id = 'x'; select \
            setval('outbox.event_id_seq', 1)",
        )
        .await;
        add(&mut admin, "k3 k4").await;
        assert_eq!(
            keys(&mut admin).await,
            "k3 k4 k1 k2",
            "by id, which says nothing now"
        );
        assert_eq!(resume(&database, 0).await, (true, 4));
        assert_eq!(keys(&mut admin).await, "k1 k2 k3 k4");
    }
}

on_each_server! {
    async fn a_parked_key_still_waits_for_its_rejected_row(database: Database) {
        let database = database.migrated().await;
        let mut admin = database.as_admin().await;
        add(&mut admin, "poison poison").await;
        execute(
            &mut admin,
            "select outbox.park_key('files', 'poison', lane, id, event_id, \
            'RecordRejected') from outbox.event where id = 1",
        )
        .await;
        execute(&mut admin, ELSEWHERE).await;
        assert_eq!(resume(&database, 0).await, (true, 2));
        let refused = "select array_agg(e.id order by e.id) from outbox.parked_key as p join \
            outbox.event as e on (e.lane, e.id, e.event_id) = (p.lane, p.head_id, p.head_event_id)";
        let position: i64 = value(&mut admin, POSITION).await;
        assert_eq!(value::<Vec<i64>>(&mut admin, refused).await, [position - 1]);
        assert!(value::<bool>(&mut admin, "select outbox.skip_parked('files', 'poison')").await);
        assert_eq!(
            value::<Vec<i64>>(&mut admin, "select array_agg(id) from outbox.event").await,
            [position]
        );
        add(&mut admin, "poison").await;
        assert!(
            value::<i64>(
                &mut admin,
                "select outbox.requeue(event_id) from outbox.dead_letter"
            )
            .await
                > position + 1
        );
    }
}

/// A resume that a restore undoes later.
const LOST_RESUME: &str = "begin; select outbox.resume_sequence(anyway => true)";

on_each_server! {
    async fn ids_of_a_resume_that_a_restore_undid_are_not_reused(database: Database) {
        let database = database.migrated().await;
        let mut admin = database.as_admin().await;
        add(&mut admin, "a b c").await;
        execute(&mut admin, ELSEWHERE).await;
        execute(&mut admin, LOST_RESUME).await;
        let lost: i64 = value(&mut admin, "select max(id) from outbox.event").await;
        // Simulates a restored backup: nothing records the resume.
        execute(
            &mut admin,
            "rollback; select setval('outbox.event_id_seq', 3)",
        )
        .await;
        assert_eq!(resume(&database, 0).await, (true, 3));
        assert!(value::<i64>(&mut admin, "select min(id) from outbox.event").await > lost);
    }
}

on_each_server! {
    async fn a_resume_that_fails_at_its_end_hides_nothing_from_the_next_one(database: Database) {
        let database = database.migrated().await;
        let mut admin = database.as_admin().await;
        add(&mut admin, "x x x x x").await;
        execute(
            &mut admin,
            "delete from outbox.event; update outbox.lane set high_id = 5; select \
            setval('outbox.event_id_seq', 1)",
        )
        .await;
        add(&mut admin, "a b").await;
        execute(&mut admin, LOST_RESUME).await;
        execute(&mut admin, "rollback").await;
        assert_eq!(
            value::<i64>(&mut admin, POSITION).await,
            3,
            "the sequence is part of the \
            transaction"
        );
        assert_eq!(resume(&database, 0).await, (true, 2));
    }
}

on_each_server! {
    async fn after_a_truncate_and_a_failover_rows_with_reused_ids_move(database: Database) {
        let database = database.migrated().await;
        let mut admin = database.as_admin().await;
        add(&mut admin, "old old old").await;
        execute(
            &mut admin,
            "update outbox.lane set high_id = 3; truncate outbox.event restart \
            identity",
        )
        .await;
        add(&mut admin, "a b c d").await;
        execute(&mut admin, "update outbox.origin set timeline = 'before'").await;
        assert_eq!(
            resume(&database, 0).await,
            (true, 4),
            "1, 2 and 3 were used, though the \
            sequence stands above them by now"
        );
        assert_eq!(keys(&mut admin).await, "a b c d");
    }
}

on_each_server! {
    async fn only_one_of_two_concurrent_calls_resumes(database: Database) {
        let database = database.migrated().await;
        let mut admin = database.as_admin().await;
        add(&mut admin, "a b").await;
        execute(&mut admin, ELSEWHERE).await;
        // Both have checked the sequence and wait for the lock.
        let mut writer = database.as_admin().await;
        execute(
            &mut writer,
            "begin; lock table outbox.event in row exclusive mode",
        )
        .await;
        let calls = tokio::spawn({
            async move {
                (
                    tokio::join!(resume(&database, 2), resume(&database, 2)),
                    database,
                )
            }
        });
        let waiting = "select count(*) from pg_locks where relation in ('outbox.event'::regclass, \
            'outbox.parked_key'::regclass) and not granted";
        for _ in 0..500 {
            if value::<i64>(&mut admin, waiting).await == 2 {
                break;
            }
            tokio::time::sleep(std::time::Duration::from_millis(2)).await;
        }
        assert_eq!(value::<i64>(&mut admin, waiting).await, 2, "both wait");
        execute(&mut writer, "commit").await;
        let ((first, second), _database) = calls.await.expect("no deadlock");
        assert_eq!(
            [first, second]
                .iter()
                .filter(|(resumed, _)| *resumed)
                .count(),
            1,
            "{first:?}, {second:?}"
        );
    }
}

on_each_server! {
    async fn a_writer_that_does_not_end_is_not_waited_for(database: Database) {
        let database = database.migrated().await;
        let mut writer = database.as_admin().await;
        execute(&mut writer, "begin").await;
        add(&mut writer, "a").await;
        let mut admin = database.as_admin().await;
        execute(&mut admin, ELSEWHERE).await;
        let mut relay = database.connect_as(&database.relay).await;
        assert_eq!(
            refused(&mut relay, "select outbox.resume_sequence()").await,
            "55P03"
        );
        assert!(
            value::<i64>(&mut admin, POSITION).await < JUMP,
            "nothing was changed"
        );
        execute(&mut writer, "commit").await;
        assert_eq!(resume(&database, 0).await, (true, 1));
    }
}
