-- Counts the rows above the watermarks, up to a cap. Returns the count, when the oldest row was
-- written (microseconds since 1970), and whether the cap was reached. Times that RFC 3339 cannot
-- hold, such as -infinity, count as the nearest one that it can.
-- $1 lanes, $2 watermarks, $3 cap.
select
  counted.depth,
  (
    select (extract(epoch from min(least(greatest(m.created_at, timestamptz '0001-01-01 00:00:00+00'), timestamptz '9999-12-31 23:59:59.999999+00'))) * 1000000)::bigint
    from unnest($1::smallint[], $2::bigint[]) as u (lane, mark)
    cross join lateral (select e.created_at from @schema@.event as e where e.lane = u.lane and e.id > u.mark order by e.id limit 1) as m
  ) as oldest,
  counted.depth >= $3 as capped
from (
  select count(*) as depth
  from (
    select 1
    from unnest($1::smallint[], $2::bigint[]) as u (lane, mark)
    cross join lateral (select 1 from @schema@.event as e where e.lane = u.lane and e.id > u.mark order by e.id limit $3) as m
    limit $3
  ) as rows
) as counted
