-- Skips the rejected row of a parked key. Returns no row when the key is parked for another row by
-- now, or for none. $1 topic, $2 key, $3 id and $4 event_id of the row.
select @schema@.skip_parked(p.topic, p.key)
from @schema@.parked_key as p
where p.topic = $1 and p.key_digest = @schema@.key_digest($2) and p.head_id = $3 and p.head_event_id = $4
