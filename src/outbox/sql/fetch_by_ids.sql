-- Reads those of the given rows that still exist, in the columns of fetch.sql.
-- $1 lanes, $2 ids, $3 event ids: parallel lists.
-- `limit 1` limits nothing, because (lane, id) is unique. It keeps the planner from swapping the
-- sides of the join and reading the whole table.
select
  null as snapshot, m.lane, m.id, m.event_id, m.aggregate_type, m.aggregate_id, m.event_type, m.topic, m.event_key, m.payload, m.headers,
  m.created_at, tidsend(m.place) as place
from unnest($1::smallint[], $2::bigint[], $3::uuid[]) as u (lane, id, event_id)
cross join lateral (select e.*, e.ctid as place from @schema@.event as e where e.lane = u.lane and e.id = u.id limit 1) as m
where m.event_id = u.event_id
order by m.lane, m.id
