-- Counts the waiting rows, parked ones included, up to $1 + 1. Also reads when the oldest of the
-- first rows of the lanes was written, and its age in seconds.
select
  (select count(*) from (select from @schema@.event limit $1 + 1) as counted) as rows,
  to_char(min(first.created_at) at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"') as oldest_at,
  extract(epoch from clock_timestamp() - min(first.created_at))::float8 as oldest_seconds
from @schema@.lane as l
cross join lateral (select e.created_at from @schema@.event as e where e.lane = l.lane order by e.id limit 1) as first
