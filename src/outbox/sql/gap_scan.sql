-- Rows at or below the mark, which should not exist, a page of each lane. $1 lanes, $2 behind these ids, $3 marks, $4 rows of a lane.
select m.lane, m.id, m.event_id
from unnest($1::smallint[], $2::bigint[], $3::bigint[]) as u (lane, after, mark)
cross join lateral (
  select e.lane, e.id, e.event_id from @schema@.event as e where e.lane = u.lane and e.id > u.after and e.id <= u.mark order by e.id limit $4
) as m
