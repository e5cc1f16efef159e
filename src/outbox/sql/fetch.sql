-- Reads the rows above the position of each lane, in the order of ids, and the snapshot that saw
-- them: one statement, so one snapshot. The snapshot comes once, in a row of its own. In every row
-- it would be most of the answer (65 MB instead of 11 with 1,000 listed transactions). That row
-- also has the position of the sequence as id, the incarnation as event_id (null when the database
-- is not the one in which the sequence was last checked), and the database's clock as created_at.
-- $1 lanes, $2 positions, $3 rows per lane, $4 payload bytes per lane. A lane returns at least one
-- row, however large.
select
  pg_current_snapshot()::text as snapshot, null::smallint as lane, s.position as id, s.incarnation as event_id, null as aggregate_type,
  null as aggregate_id, null as event_type, null as topic, null as event_key, null::bytea as payload, null::jsonb as headers,
  clock_timestamp() as created_at, null::bytea as place
from @schema@.sequence_state as s
union all
select
  null, m.lane, m.id, m.event_id, m.aggregate_type, m.aggregate_id, m.event_type, m.topic, m.event_key, m.payload, m.headers,
  m.created_at, tidsend(m.place)
from unnest($1::smallint[], $2::bigint[], $3::int[], $4::bigint[]) as u (lane, low, rows_max, bytes_max)
cross join lateral (
  select
    e.*, e.ctid as place,
    sum(coalesce(octet_length(e.payload), 0)) over (order by e.id rows between unbounded preceding and 1 preceding) as bytes_before
  from @schema@.event as e
  where e.lane = u.lane and e.id > u.low
  order by e.id
  limit u.rows_max
) as m
where coalesce(m.bytes_before, 0) < u.bytes_max
