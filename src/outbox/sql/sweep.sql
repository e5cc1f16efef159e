-- Rows at or below the mark, which should not exist. $1 lanes, $2 marks.
select m.lane, m.id, m.event_id
from unnest($1::smallint[], $2::bigint[]) as u (lane, mark)
cross join lateral (
  select e.lane, e.id, e.event_id from @schema@.event as e where e.lane = u.lane and e.id <= u.mark order by e.id limit 100
) as m
