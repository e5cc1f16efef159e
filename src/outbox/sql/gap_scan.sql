-- Reads a page of the rows of each lane at or below the watermark. There should be none.
-- $1 lanes, $2 ids to start after, $3 watermarks, $4 rows per lane.
select m.lane, m.id, m.event_id
from unnest($1::smallint[], $2::bigint[], $3::bigint[]) as u (lane, after, mark)
cross join lateral (
  select e.lane, e.id, e.event_id from @schema@.event as e where e.lane = u.lane and e.id > u.after and e.id <= u.mark order by e.id limit $4
) as m
