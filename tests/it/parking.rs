//! The relay's statements for rejected rows: they park keys, move rows to the dead letters, and
//! fetch rows by lane, id and event id.

use outbox_relay::{
    outbox::{
        BacklogPlan, Depth, Lane, LaneBacklog, OutboxRow, Parked, ParkedKey, ParkedRow, ParkedRows,
        RowId, RowIdentity, Store, WantedRow, row_sql::TextReading, schema::row_statement,
    },
    report::ProblemClass,
};
use sqlx::PgConnection;
use uuid::Uuid;

use crate::harness::postgres::{Database, execute, refused, value, values};

/// The waiting row with this id, as if Kafka had rejected it.
async fn refused_row(admin: &mut PgConnection, id: i64) -> ParkedRow {
    let name = format!("from outbox.event where id = {id}");
    ParkedRow {
        topic: "files".to_owned(),
        key: value(
            admin,
            &format!("select coalesce(event_key, aggregate_id) {name}"),
        )
        .await,
        lane: Lane::from_column(value(admin, &format!("select lane {name}")).await)
            .expect("a lane"),
        id: RowId::new(id),
        event_id: value(admin, &format!("select event_id {name}")).await,
        class: ProblemClass::RecordRejected,
    }
}

/// All lanes except this one.
fn lanes_but(lane: Lane) -> Vec<Lane> {
    Lane::all().filter(|other| *other != lane).collect()
}

async fn keys(store: &Store, lanes: &[Lane]) -> Vec<ParkedKey> {
    parked(store, lanes).await.keys
}

/// What is parked in these lanes.
pub(crate) async fn parked(store: &Store, lanes: &[Lane]) -> Parked {
    let reading = store.parked(lanes, None).await.expect("read");
    *reading.changed.expect("nothing is known yet")
}

const ADD: &str = "select outbox.enqueue('file', 'f1', 'Uploaded', '{}')";

on_each_server! {
    async fn a_key_is_parked_once_and_its_failures_are_counted(database: Database) {
        let database = database.migrated().await;
        let (store, mut admin) = (database.store(), database.as_admin().await);
        execute(&mut admin, ADD).await;
        let row = refused_row(&mut admin, 1).await;
        store.park_key(&row).await.expect("parked");
        let first = "select first_failed_at::text from outbox.parked_key";
        let first_failed_at = value::<String>(&mut admin, first).await;
        store
            .park_key(&ParkedRow {
                class: ProblemClass::KafkaError,
                ..row.clone()
            })
            .await
            .expect("parked again");

        let expected = ParkedKey {
            topic: "files".to_owned(),
            key: "f1".to_owned(),
            lane: row.lane,
            attempts: 2,
            head: Some((row.id, row.event_id)),
            class: ProblemClass::KafkaError,
        };
        assert_eq!(keys(&store, &[row.lane]).await, [expected]);
        assert_eq!(keys(&store, &lanes_but(row.lane)).await, []);
        assert_eq!(value::<String>(&mut admin, first).await, first_failed_at);
        let head = "select format('%s %s %s', head_id, head_event_id, class) \
            from outbox.parked_key";
        assert_eq!(
            value::<String>(&mut admin, head).await,
            format!("1 {} KafkaError", row.event_id)
        );
        assert_eq!(
            value::<i64>(&mut admin, "select count(*) from outbox.event").await,
            1
        );
    }
}

on_each_server! {
    async fn one_key_of_two_topics_is_parked_in_one_of_them(database: Database) {
        let database = database.migrated().await;
        let (store, mut admin) = (database.store(), database.as_admin().await);
        execute(&mut admin, ADD).await;
        let row = refused_row(&mut admin, 1).await;
        store.park_key(&row).await.expect("parked");
        store
            .park_key(&ParkedRow {
                topic: "essays".to_owned(),
                ..row.clone()
            })
            .await
            .expect("parked");
        let topics: Vec<String> = keys(&store, &[row.lane])
            .await
            .into_iter()
            .map(|key| key.topic)
            .collect();
        assert_eq!(topics, ["essays", "files"]);
    }
}

on_each_server! {
    async fn a_missing_row_parks_nothing(database: Database) {
        let database = database.migrated().await;
        let (store, mut admin) = (database.store(), database.as_admin().await);
        execute(&mut admin, ADD).await;
        let row = refused_row(&mut admin, 1).await;
        store
            .park_key(&ParkedRow {
                event_id: Uuid::new_v4(),
                ..row.clone()
            })
            .await
            .expect("no error");
        execute(&mut admin, "delete from outbox.event").await;
        store.park_key(&row).await.expect("no error");
        assert_eq!(keys(&store, &[row.lane]).await, []);
    }
}

on_each_server! {
    async fn a_key_of_a_megabyte_is_parked(database: Database) {
        let database = database.migrated().await;
        let (store, mut admin) = (database.store(), database.as_admin().await);
        // Hexadecimal digests do not compress enough to fit into an index entry.
        execute(
            &mut admin,
            "select outbox.enqueue('file', string_agg(md5(i::text), ''), \
            'Uploaded', '{}') from generate_series(1, 32768) i",
        )
        .await;
        let row = refused_row(&mut admin, 1).await;
        assert_eq!(row.key.len(), 1 << 20);
        store.park_key(&row).await.expect("parked");
        store.park_key(&row).await.expect("parked again");
        assert_eq!(keys(&store, &[row.lane]).await.len(), 1);
        assert!(store.dead_letter(&row, 2).await.expect("a dead letter"));
    }
}

on_each_server! {
    async fn topics_parked_by_hand_are_listed_for_every_lane(database: Database) {
        let database = database.migrated().await;
        let (store, mut admin) = (database.store(), database.as_admin().await);
        execute(
            &mut admin,
            "insert into outbox.parked_topic (topic) values ('files'), ('essays')",
        )
        .await;
        let parked = parked(&store, &[]).await;
        assert_eq!(
            (parked.topics, parked.keys),
            (vec!["essays".to_owned(), "files".to_owned()], vec![])
        );
    }
}

on_each_server! {
    /// With 100,000 parked keys, a list for each round of the lease would keep both sides busy.
    async fn what_is_parked_comes_again_only_when_it_has_changed(database: Database) {
        let database = database.migrated().await;
        let (store, mut admin) = (database.store(), database.as_admin().await);
        let lanes: Vec<_> = Lane::all().collect();
        let mut known = None;
        for (change, is_a_change) in [
            ("select 1", true),
            ("select 1", false),
            (ADD, false),
            ("insert into outbox.parked_topic (topic) values ('files')", true),
            ("insert into outbox.parked_key (topic, key, lane, class) select 'files', 'k' || n, \
              n % 64, 'ParkedByHand' from generate_series(1, 300) n", true),
            ("select 1", false),
            ("update outbox.parked_key set key = 'k0' where key = 'k7'", true),
            ("vacuum full outbox.parked_key", false),
            ("delete from outbox.parked_key where key = 'k8'", true),
            ("delete from outbox.parked_topic", true),
            ("select 1", false),
        ] {
            execute(&mut admin, change).await;
            let reading = store.parked(&lanes, known).await.expect("read");
            assert_eq!(reading.changed.is_some(), is_a_change, "{change}");
            known = Some(reading.digest);
        }
        assert_eq!(keys(&store, &lanes).await.len(), 299);
        assert_eq!(store.parked(&lanes, known).await.expect("read").listed, 299);
        let of_one_lane = store.parked(&lanes[..1], known).await.expect("read");
        assert_eq!(of_one_lane.listed, 4);
        assert_eq!(of_one_lane.changed.expect("another digest").keys.len(), 4);
    }
}

on_each_server! {
    async fn the_backlog_leaves_out_rows_of_parked_keys_and_topics(database: Database) {
        let database = database.migrated().await;
        let (store, mut admin) = (database.store(), database.as_admin().await);
        let lane = |lane| LaneBacklog { lane, above: RowId::new(0) };
        let mut plan = BacklogPlan {
            lanes: Lane::all().map(lane).collect(),
            parked: None,
        };
        let nothing = Depth { rows: 0, capped: false, oldest_us: None };
        for parked in [None, Some(ParkedRows::default())] {
            plan.parked = parked;
            assert_eq!(store.backlog(&plan, 100).await.expect("read"), nothing);
        }
        execute(&mut admin, "
          select outbox.enqueue('file', 'f1', 'Uploaded', '{}'),
            outbox.enqueue('file', 'f2', 'Uploaded', '{}'),
            outbox.enqueue('file', 'f3', 'Uploaded', '{}', event_key => 'f1'),
            outbox.enqueue('file', 'f1', 'Removed', '{}'),
            outbox.enqueue('essay', 'f1', 'x', '{}', topic => 'files'),
            outbox.enqueue('essay', 'e1', 'x', '{}', topic => 'essays'),
            outbox.enqueue('unknown', 'f1', 'x', '{}');
          insert into outbox.parked_key (topic, key, lane, class) values ('files', 'f1', 0, 'x')
        ").await;
        let mut parked = ParkedRows {
            by_event_type: [("Removed".to_owned(), "removals".to_owned())].into(),
            by_aggregate_type: [("file".to_owned(), "files".to_owned())].into(),
            ..ParkedRows::default()
        };
        for (topics, rows) in [(&["none"], 4), (&["removals"], 3), (&["essays"], 3)] {
            parked.topics = topics.map(str::to_owned).into();
            plan.parked = Some(parked.clone());
            assert_eq!(store.backlog(&plan, 100).await.expect("read").rows, rows, "{topics:?}");
        }
    }
}

on_each_server! {
    async fn a_row_is_dead_lettered_completely_and_once(database: Database) {
        let database = database.migrated().await;
        let (store, mut admin) = (database.store(), database.as_admin().await);
        execute(&mut admin, r#"
          select outbox.enqueue('file', 'f1', 'Uploaded', '\x00ff', headers => '{"a": "b"}',
            event_key => 'k', topic => 'files');
          select outbox.enqueue('file', 'f2', 'Removed', null)"#).await;
        let columns = "select string_agg(format('%s %s %s %s %s %s %s %s %s %s %s', id, lane, \
            event_id, aggregate_type, aggregate_id,
          event_type, coalesce(topic, '-'), coalesce(event_key, '-'), coalesce(payload::text, \
          '-'), headers, created_at), ',' order by id)";
        let before = value::<String>(&mut admin, &format!("{columns} from outbox.event")).await;
        for id in [1, 2] {
            let row = refused_row(&mut admin, id).await;
            assert!(
                !store
                    .dead_letter(
                        &ParkedRow {
                            event_id: Uuid::new_v4(),
                            ..row.clone()
                        },
                        3
                    )
                    .await
                    .expect("no error")
            );
            assert!(store.dead_letter(&row, 3).await.expect("a dead letter"));
            assert!(!store.dead_letter(&row, 3).await.expect("no error"));
        }
        assert_eq!(
            value::<String>(&mut admin, &format!("{columns} from outbox.dead_letter")).await,
            before
        );
        let why = "select distinct format('%s %s %s', destination, class, attempts) \
            from outbox.dead_letter";
        assert_eq!(
            values::<String>(&mut admin, why).await,
            ["files RecordRejected 3"]
        );
        assert_eq!(
            value::<i64>(&mut admin, "select count(*) from outbox.event").await,
            0
        );
    }
}

on_each_server! {
    async fn a_row_that_cannot_be_dead_lettered_stays_where_it_was(database: Database) {
        let database = database.migrated().await;
        let mut admin = database.as_admin().await;
        execute(&mut admin, ADD).await;
        let mut relay = database.connect_as(&database.relay).await;
        let bad_class = "select outbox.bury(lane, id, event_id, 'files', 'no class', 1) \
            from outbox.event";
        assert_eq!(refused(&mut relay, bad_class).await, "23514");
        assert_eq!(
            value::<i64>(&mut admin, "select count(*) from outbox.event").await,
            1
        );
        assert_eq!(
            value::<i64>(&mut admin, "select count(*) from outbox.dead_letter").await,
            0
        );
    }
}

on_each_server! {
    async fn a_row_that_a_restore_brought_back_is_dead_lettered_again(database: Database) {
        let database = database.migrated().await;
        let (store, mut admin) = (database.store(), database.as_admin().await);
        execute(&mut admin, ADD).await;
        execute(
            &mut admin,
            "create table public.backup as select * from outbox.event",
        )
        .await;
        let row = refused_row(&mut admin, 1).await;
        assert!(store.dead_letter(&row, 1).await.expect("a dead letter"));
        execute(&mut admin, "insert into outbox.event (xact, id, event_id, aggregate_type, \
            aggregate_id, event_type) overriding system value
          select xact, id, event_id, aggregate_type, aggregate_id, event_type \
          from public.backup").await;
        assert!(store.dead_letter(&row, 5).await.expect("a second dead letter"));
        assert_eq!(
            values::<i32>(&mut admin, "select attempts from outbox.dead_letter").await,
            [5]
        );
        assert_eq!(
            value::<i64>(&mut admin, "select count(*) from outbox.event").await,
            0
        );
    }
}

on_each_server! {
    async fn rows_are_fetched_by_name_in_the_order_of_lane_and_id(database: Database) {
        let database = database.migrated().await;
        let (store, mut admin) = (database.store(), database.as_admin().await);
        execute(
            &mut admin,
            "select outbox.enqueue('file', 'f' || i, 'Uploaded', '{}') \
            from generate_series(1, 200) i; delete from outbox.event where id = 7",
        )
        .await;
        let mut names = Vec::new();
        for id in [200, 3, 150, 4, 5] {
            names.push(refused_row(&mut admin, id).await);
        }
        names.push(ParkedRow {
            id: RowId::new(7),
            ..names[0].clone()
        });
        names[4].event_id = Uuid::new_v4();
        let identity = |row: &ParkedRow| RowIdentity {
            lane: row.lane,
            id: row.id,
            event_id: row.event_id,
        };
        let mut wanted: Vec<_> = names.iter().map(identity).collect();
        let named: Vec<_> = wanted.iter().copied().map(WantedRow::like_a_fetch).collect();
        let found = store.fetch_by_ids(&named).await.expect("fetched");
        wanted.truncate(4);
        wanted.sort_unstable();
        let identities: Vec<_> = found.iter().map(OutboxRow::identity).collect();
        assert_eq!(identities, wanted);
        assert_eq!(
            found
                .iter()
                .find(|row| row.id == RowId::new(150))
                .map(|row| row.key().to_owned()),
            Some("f150".to_owned())
        );
    }
}

on_each_server! {
    /// The statistics of a drained queue show an empty table. A planner may then choose to scan all
    /// of it.
    async fn naming_rows_reads_only_these(database: Database) {
        let database = database.migrated().await;
        let mut admin = database.as_admin().await;
        for statement in [
            "alter table outbox.event set (autovacuum_enabled = off)",
            "insert into outbox.event (aggregate_type, aggregate_id, event_type) select 'a', \
             i::text, 'c' from generate_series(1, 20000) i",
            "delete from outbox.event",
            "vacuum analyze outbox.event",
            "insert into outbox.event (aggregate_type, aggregate_id, event_type) select 'a', \
             i::text, 'c' from generate_series(1, 50000) i",
        ] {
            execute(&mut admin, statement).await;
        }
        let settings = "set plan_cache_mode = force_generic_plan; set enable_bitmapscan = off; \
            set enable_sort = off; set enable_seqscan = off";
        let mut relay = database.connect_as(&database.relay).await;
        execute(&mut relay, settings).await;
        let schema = "outbox".to_owned().try_into().expect("a name");
        let text = row_statement(
            include_str!("../../src/outbox/sql/fetch_by_ids.sql"),
            TextReading::Plain,
            &schema,
        );
        let text = text.as_str();
        execute(
            &mut relay,
            &format!("prepare named (smallint[], bigint[], uuid[], bigint[]) as {text}"),
        )
        .await;
        execute(&mut relay, "begin").await;
        let some = "create temporary table named_rows as select array_agg(lane) lanes, \
            array_agg(id) ids, array_agg(event_id) event_ids, array_agg(65536) limits
          from (select * from outbox.event order by lane, id limit 100) first";
        execute(&mut relay, some).await;
        let call = "select format('execute named (%L, %L, %L, %L)', lanes, ids, event_ids, limits) \
            from named_rows";
        let call = value::<String>(&mut relay, call).await;
        let read = "select seq_tup_read + idx_tup_fetch from pg_stat_xact_user_tables where relid \
            = 'outbox.event'::regclass";
        let before = value::<i64>(&mut relay, read).await;
        execute(&mut relay, &call).await;
        assert_eq!(value::<i64>(&mut relay, read).await - before, 100);
    }
}

on_each_server! {
    async fn table_statistics_count_parked_rows_and_report_an_old_transaction(database: Database) {
        let database = database.migrated().await;
        let (store, mut admin) = (database.store(), database.as_admin().await);
        execute(&mut admin, "select outbox.enqueue('file', 'f' || i, 'Uploaded', '{}') \
            from generate_series(1, 4) i;
          insert into outbox.parked_topic (topic) values ('a'), ('b'), ('c')").await;
        let rows = [
            refused_row(&mut admin, 1).await,
            refused_row(&mut admin, 2).await,
            refused_row(&mut admin, 3).await,
        ];
        store.dead_letter(&rows[0], 1).await.expect("a dead letter");
        store.park_key(&rows[1]).await.expect("parked");
        store.park_key(&rows[2]).await.expect("parked");
        let quiet = store.table_wide().await.expect("read");
        assert_eq!(
            (
                quiet.dead_letters,
                quiet.parked_keys,
                quiet.parked_topics,
                quiet.xmin_age_seconds
            ),
            (1, 2, 3, Some(0.0))
        );

        let mut holder = database.connect_as(&database.relay).await;
        execute(
            &mut holder,
            "begin isolation level repeatable read; select 1",
        )
        .await;
        let age = store
            .table_wide()
            .await
            .expect("read")
            .xmin_age_seconds
            .expect("a session of the same role is visible");
        assert!((0.0..600.0).contains(&age), "{age}");
        execute(&mut holder, "rollback").await;
        assert_eq!(
            store.table_wide().await.expect("read").xmin_age_seconds,
            Some(0.0)
        );

        // The session of another role, which the relay needs a right to see.
        let mut holder = database.connect_as(&database.producer).await;
        execute(
            &mut holder,
            "begin isolation level repeatable read; select 1",
        )
        .await;
        assert_eq!(
            store.table_wide().await.expect("read").xmin_age_seconds,
            Some(0.0)
        );
        execute(
            &mut admin,
            &format!("grant pg_read_all_stats to {}", database.relay),
        )
        .await;
        assert!(
            store
                .table_wide()
                .await
                .expect("read")
                .xmin_age_seconds
                .is_some()
        );
    }
}
