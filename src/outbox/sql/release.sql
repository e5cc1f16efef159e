-- Releases lanes without rows in flight, unless the outbox has another incarnation by now.
-- $1 instance, $2 lanes, $3 epochs, $4 watermarks, $5 highest ids, $6 incarnation.
with s as materialized (select incarnation, position from @schema@.sequence_state)
update @schema@.lane as l
set owner = null, mark = greatest(l.mark, u.mark), high_id = greatest(l.high_id, u.high_id, s.position)
from unnest($2::smallint[], $3::bigint[], $4::bigint[], $5::bigint[]) as u (lane, epoch, mark, high_id), s
where l.lane = u.lane and l.owner = $1 and l.epoch = u.epoch and s.incarnation = $6
returning l.lane
