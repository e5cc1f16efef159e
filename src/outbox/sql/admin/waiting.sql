-- Counts the waiting rows, parked ones included, up to $1 + 1. Also reads when the oldest of the
-- first rows of the lanes was written, and its age in seconds. Times that RFC 3339 cannot hold, such
-- as -infinity, count as the nearest one that it can.
select
  (select count(*) from (select from @schema@.event limit $1 + 1) as counted) as rows,
  to_char(oldest.at at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"') as oldest_at,
  extract(epoch from clock_timestamp() - oldest.at)::float8 as oldest_seconds
from (
  select min(least(greatest(first.created_at, timestamptz '0001-01-01 00:00:00+00'), timestamptz '9999-12-31 23:59:59.999999+00')) as at
  from @schema@.lane as l
  cross join lateral (select e.created_at from @schema@.event as e where e.lane = l.lane order by e.id limit 1) as first
) as oldest
