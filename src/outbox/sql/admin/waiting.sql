-- Rows that wait, parked ones included, counted up to $1 + 1; when the oldest first rows of the lanes were written, and how many seconds ago.
select
  (select count(*) from (select from @schema@.event limit $1 + 1) as counted) as rows,
  to_char(min(first.created_at) at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"') as oldest_at,
  extract(epoch from clock_timestamp() - min(first.created_at))::float8 as oldest_seconds
from @schema@.lane as l
cross join lateral (select e.created_at from @schema@.event as e where e.lane = l.lane order by e.id limit 1) as first
