-- Reads those of the given rows that still exist, in the columns of fetch.sql. A row that is larger
-- than its limit comes without payload and headers.
-- $1 lanes, $2 ids, $3 event ids, $4 limits in bytes: parallel lists.
-- `limit 1` limits nothing, because (lane, id) is unique. It keeps the planner from swapping the
-- sides of the join and reading the whole table.
select null as snapshot, @columns(m, u.bytes_max)@
from unnest($1::smallint[], $2::bigint[], $3::uuid[], $4::bigint[]) as u (lane, id, event_id, bytes_max)
cross join lateral (
  select e.*, e.ctid as place, @bytes(e)@ as bytes
  from @schema@.event as e where e.lane = u.lane and e.id = u.id limit 1
) as m
where m.event_id = u.event_id
order by m.lane, m.id
