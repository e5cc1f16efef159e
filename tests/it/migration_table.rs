//! Properties of table `event` that the relay's order and speed depend on.

use crate::harness::postgres::{Database, execute, value, values};

async fn plan(connection: &mut sqlx::PgConnection, sql: &str) -> String {
    values::<String>(connection, &format!("explain (verbose, costs off) {sql}"))
        .await
        .join("\n")
}

on_each_server! {
    async fn a_transaction_has_its_xid_before_it_draws_an_id(database: Database) {
        let database = database.migrated().await;
        let mut admin = database.as_admin().await;
        let columns = "insert into outbox.event (aggregate_type, aggregate_id, event_type)";
        for rows in [
            "values ('a', 'b', 'c')",
            "values ('a', 'b', 'c'), ('d', 'e', 'f')",
            "select 'a', i::text, 'c' from generate_series(1, 10) i",
            "select 'a', i::text, 'c' from generate_series(1, 10) i order by i desc",
        ] {
            let plan = plan(&mut admin, &format!("{columns} {rows}")).await;
            let (xact, id) = (plan.find("pg_current_xact_id()"), plan.find("nextval("));
            assert!(xact.is_some() && xact < id, "{plan}");
        }
    }
}

on_each_server! {
    async fn lane_and_id_are_the_only_index(database: Database) {
        let database = database.migrated().await;
        let mut admin = database.as_admin().await;
        let indexes = "select indexdef from pg_indexes where schemaname = 'outbox' and tablename \
            = 'event'";
        assert_eq!(
            values::<String>(&mut admin, indexes).await,
            ["CREATE UNIQUE INDEX event_pkey \
            ON outbox.event USING btree (lane, id)"]
        );
    }
}

on_each_server! {
    async fn a_key_has_one_lane_however_it_is_written(database: Database) {
        let database = database.migrated().await;
        let mut admin = database.as_admin().await;
        execute(&mut admin, "
          select outbox.enqueue('file', 'f1', 'Uploaded', '{}');
          select outbox.enqueue('essay', 'other', 'Uploaded', '{}', event_key => 'f1');
          select outbox.enqueue_many(
            '[{\"aggregate_type\": \"a\", \"aggregate_id\": \"f1\", \"event_type\": \"b\"}]');
          insert into outbox.event (aggregate_type, aggregate_id, event_type) values ('a', 'f1', \
          'b')").await;
        assert_eq!(
            value::<i64>(&mut admin, "select count(distinct lane) from outbox.event").await,
            1
        );
        let spread = "select count(*) from (select distinct (hashtextextended(('key' || i) \
            collate \"C\", 0) & 63) from generate_series(1, 2000) i) l";
        assert_eq!(value::<i64>(&mut admin, spread).await, 64);
    }
}

/// How relays settle.
const BY_CTID: &str = "outbox.settle(lanes, ids, event_ids, places)";
/// How relays settled before the function had ctids.
const BY_INDEX: &str = "outbox.settle(lanes, ids, event_ids)";

/// Settles 1,000 of 50,000 rows on a connection that has settled before. Returns the rows that were
/// read by index or by a sequential scan.
async fn rows_read_by_settling(database: &Database, settle: &str) -> i64 {
    let mut admin = database.as_admin().await;
    let mut relay = database.connect_as(&database.relay).await;
    execute(&mut relay, "begin").await;
    // PostgreSQL uses a generic plan after five calls.
    for _ in 0..8 {
        let arguments = "(values (array[1::smallint], array[1::bigint], array[gen_random_uuid()], \
            '{\"(0,1)\"}'::tid[]))";
        execute(
            &mut relay,
            &format!("select {settle} from {arguments} as head (lanes, ids, event_ids, places)"),
        )
        .await;
    }
    let rows = "insert into outbox.event (aggregate_type, aggregate_id, event_type) select 'a', \
        i::text, 'c' from generate_series(1, 50000) i";
    execute(&mut admin, rows).await;
    let read = "select seq_tup_read + idx_tup_fetch from pg_stat_xact_user_tables where relid = \
        'outbox.event'::regclass";
    let head = "create temporary table head as
      select array_agg(lane) lanes, array_agg(id) ids, array_agg(event_id) event_ids, \
      array_agg(place) places
      from (select *, ctid as place from outbox.event order by lane, id limit 1000) first";
    execute(&mut relay, head).await;
    let before = value::<i64>(&mut relay, read).await;
    assert_eq!(
        value::<i64>(&mut relay, &format!("select settled from head, {settle}")).await,
        1000
    );
    value::<i64>(&mut relay, read).await - before
}

on_each_server! {
    async fn settling_reads_only_its_rows_on_a_table_that_was_never_analysed(database: Database) {
        let database = database.migrated().await;
        execute(
            &mut database.as_admin().await,
            "alter table outbox.event set (autovacuum_enabled \
            = off)",
        )
        .await;
        assert_eq!(rows_read_by_settling(&database, BY_INDEX).await, 1000);
        assert_eq!(
            rows_read_by_settling(&database, BY_CTID).await,
            0,
            "it knows where they lie"
        );
    }
}

on_each_server! {
    /// The statistics of a drained queue show an empty table. A planner may then choose to scan all
    /// of it.
    async fn settling_reads_only_its_rows_on_a_queue_that_was_empty_when_vacuumed(
        database: Database,
    ) {
        let database = database.migrated().await;
        let mut admin = database.as_admin().await;
        let drained = [
            "alter table outbox.event set (autovacuum_enabled = off)",
            "insert into outbox.event (aggregate_type, aggregate_id, event_type) select 'a', \
             i::text, 'c' from generate_series(1, 20000) i",
            "delete from outbox.event",
            "vacuum analyze outbox.event",
        ];
        for statement in drained {
            execute(&mut admin, statement).await;
        }
        assert_eq!(rows_read_by_settling(&database, BY_INDEX).await, 1000);
        assert_eq!(
            rows_read_by_settling(&database, BY_CTID).await,
            0,
            "it knows where they lie"
        );
    }
}

on_each_server! {
    async fn settling_keeps_a_row_of_the_same_id_with_another_event(database: Database) {
        let database = database.migrated().await;
        let mut admin = database.as_admin().await;
        execute(
            &mut admin,
            "select outbox.enqueue('file', 'f1', 'Uploaded', '{}')",
        )
        .await;
        for places in ["", ", array[e.ctid]"] {
            let settle = format!(
                "select settled from outbox.event e, outbox.settle(array[e.lane], \
                    array[e.id], array[gen_random_uuid()]{places})"
            );
            assert_eq!(value::<i64>(&mut admin, &settle).await, 0);
        }
        let tick = "select (tick = pg_current_xact_id())::int
          from outbox.event e, outbox.settle(array[e.lane], array[e.id], array[e.event_id], \
          array[e.ctid])";
        assert_eq!(value::<i32>(&mut admin, tick).await, 1);
        assert_eq!(
            value::<i64>(&mut admin, "select count(*) from outbox.event").await,
            0
        );
    }
}

on_each_server! {
    async fn settling_finds_moved_rows_and_keeps_rows_at_their_old_ctids(database: Database) {
        let database = database.migrated().await;
        let mut admin = database.as_admin().await;
        execute(&mut admin, "
          select outbox.enqueue('file', 'f' || i, 'Uploaded', '{}') from generate_series(1, 3) i;
          create temporary table head as
            select array_agg(lane) lanes, array_agg(id) ids, array_agg(event_id) event_ids, \
            array_agg(ctid) places
            from outbox.event;
          update outbox.event set event_type = 'Seen' where aggregate_id = 'f1';
          delete from outbox.event where aggregate_id = 'f3'").await;
        // Another row gets the third one's ctid.
        execute(&mut admin, "vacuum outbox.event").await;
        execute(
            &mut admin,
            "select outbox.enqueue('file', 'f4', 'Uploaded', '{}')",
        )
        .await;
        let in_the_place = "select count(*) from head, outbox.event e where e.ctid = any (places) \
            and e.aggregate_id = 'f4'";
        assert_eq!(value::<i64>(&mut admin, in_the_place).await, 1);
        assert_eq!(
            value::<i64>(&mut admin, &format!("select settled from head, {BY_CTID}")).await,
            2
        );
        assert_eq!(
            values::<String>(
                &mut admin,
                "select aggregate_id from outbox.event order by 1"
            )
            .await,
            ["f4"]
        );
    }
}

on_each_server! {
    async fn pending_shows_text_and_hides_what_is_none(database: Database) {
        let database = database.migrated().await;
        let mut relay = database.connect_as(&database.relay).await;
        let mut producer = database.connect_as(&database.producer).await;
        execute(&mut producer, r"
          select outbox.enqueue('file', 'f1', 'Uploaded', convert_to('{name: Aufsatz für Ä}',
            'UTF8'));
          select outbox.enqueue('file', 'f2', 'Uploaded', '\xff00fe');
          select outbox.enqueue('file', 'f3', 'Uploaded', '\x6100');
          select outbox.enqueue('file', 'f4', 'Removed', null)").await;
        let shown = "select format('%s %s %s', key, coalesce(payload_text, '-'), \
            coalesce(payload_bytes::text, '-')) from outbox.pending order by outbox_seq";
        let shown = values::<String>(&mut relay, shown).await;
        assert_eq!(
            shown,
            ["f1 {name: Aufsatz für Ä} 23", "f2 - 3", "f3 - 2", "f4 - -"]
        );
    }
}
