-- Reads numbers of the whole table. `xmin_age` is the age in seconds of the oldest transaction that
-- keeps vacuum from removing dead rows, as far as this role can see: its own sessions, prepared
-- transactions, and with pg_read_all_stats all sessions. Null: it sees no transaction.
-- Replication slots keep rows too, but have no age in seconds.
select
  (select count(*) from @schema@.dead_letter) as dead_letters,
  (select count(*) from @schema@.parked_key) as parked_keys,
  (select count(*) from @schema@.parked_topic) as parked_topics,
  (
    select extract(epoch from clock_timestamp() - min(since))::float8
    from (
      select a.xact_start as since
      from pg_stat_activity as a
      where a.pid <> pg_backend_pid() and a.datname = current_database() and (a.backend_xmin is not null or a.backend_xid is not null)
      union all
      select p.prepared from pg_prepared_xacts as p where p.database = current_database()
    ) as held
  ) as xmin_age,
  pg_stat_get_dead_tuples('@schema@.event'::regclass) as dead_tuples
