-- Writes the marks of the lanes that are still ours and says which these are: none when the outbox lives elsewhere, where our marks say nothing.
-- What has been drawn is written, too. `materialized`: an update locks what it joins, and a sequence cannot be locked.
-- $1 instance, $2 lanes, $3 epochs, $4 marks, $5 highest ids, $6 incarnation.
with s as materialized (select incarnation, position from @schema@.sequence_state)
update @schema@.lane as l
set mark = greatest(l.mark, u.mark), high_id = greatest(l.high_id, u.high_id, s.position)
from unnest($2::smallint[], $3::bigint[], $4::bigint[], $5::bigint[]) as u (lane, epoch, mark, high_id), s
where l.lane = u.lane and l.owner = $1 and l.epoch = u.epoch and s.incarnation = $6
returning l.lane
