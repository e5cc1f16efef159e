-- Writes the marks of the lanes that are still ours and says which these are. $1 instance, $2 lanes, $3 epochs, $4 marks, $5 highest ids.
update @schema@.lane as l
set mark = greatest(l.mark, u.mark), high_id = greatest(l.high_id, u.high_id)
from unnest($2::smallint[], $3::bigint[], $4::bigint[], $5::bigint[]) as u (lane, epoch, mark, high_id)
where l.lane = u.lane and l.owner = $1 and l.epoch = u.epoch
returning l.lane
