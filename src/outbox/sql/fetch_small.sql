-- Fetches like fetch.sql, but does not add up bytes, which takes about 1 us per row: for rows that
-- are known to be small. The client stops reading when they are not.
-- $1 lanes, $2 positions, $3 rows per lane.
select
  pg_current_snapshot()::text as snapshot, null::smallint as lane, s.position as id, s.incarnation as event_id, null as aggregate_type,
  null as aggregate_id, null as event_type, null as topic, null as event_key, null::bytea as payload, null as headers,
  clock_timestamp() as created_at, null::bytea as place, null::bigint as bytes, null as fault
from (select from @schema@.event limit 0) as locked_first right join @schema@.sequence_state as s on true
union all
select null, @columns(m, 65536)@
from unnest($1::smallint[], $2::bigint[], $3::int[]) as u (lane, low, rows_max)
cross join lateral (
  select e.*, e.ctid as place, @bytes(e)@ as bytes
  from @schema@.event as e where e.lane = u.lane and e.id > u.low
  order by e.id
  limit u.rows_max
) as m
