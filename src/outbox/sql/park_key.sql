-- Parks the keys of rejected rows.
-- $1 topics, $2 keys, $3 lanes, $4 ids, $5 event_ids, $6 classes: parallel lists.
select @schema@.park_key(u.topic, u.key, u.lane, u.id, u.event_id, u.class)
from unnest($1::text[], $2::text[], $3::smallint[], $4::bigint[], $5::uuid[], $6::text[]) as u (topic, key, lane, id, event_id, class)
