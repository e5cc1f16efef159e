-- Reads the rows above the position of each lane, in the order of ids, and the snapshot that saw
-- them: one statement, so one snapshot. The snapshot comes once, in a row of its own. In every row
-- it would be most of the answer (65 MB instead of 11 with 1,000 listed transactions). That row
-- also has the position of the sequence as id, the incarnation as event_id (null when the database
-- is not the one in which the sequence was last checked), and the database's clock as created_at.
-- A row that is larger than 64 KiB comes without payload and headers, only with its size.
-- $1 lanes, $2 positions, $3 rows per lane, $4 bytes per lane. A lane returns at least one row.
select
  pg_current_snapshot()::text as snapshot, null::smallint as lane, s.position as id, s.incarnation as event_id, null as aggregate_type,
  null as aggregate_id, null as event_type, null as topic, null as event_key, null::bytea as payload, null as headers,
  clock_timestamp() as created_at, null::bytea as place, null::bigint as bytes, null as fault
from (select from @schema@.event limit 0) as locked_first right join @schema@.sequence_state as s on true
union all
select null, @columns(m, 65536)@
from unnest($1::smallint[], $2::bigint[], $3::int[], $4::bigint[]) as u (lane, low, rows_max, bytes_max)
cross join lateral (
  select sized.*, sum(least(sized.bytes, 65536)) over (order by sized.id rows between unbounded preceding and 1 preceding) as bytes_before
  from (
    select e.*, e.ctid as place, @bytes(e)@ as bytes
    from @schema@.event as e
    where e.lane = u.lane and e.id > u.low
    order by e.id
    limit u.rows_max
  ) as sized
) as m
where coalesce(m.bytes_before, 0) < u.bytes_max
