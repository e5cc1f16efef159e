-- Reads the parked keys of these lanes, and all parked topics (with a null key), from one snapshot.
-- $1 lanes.
select p.topic, p.key, p.lane, p.attempts, p.head_id, p.head_event_id, p.class from @schema@.parked_key as p where p.lane = any($1::smallint[])
union all
select t.topic, null, null, null, null, null, null from @schema@.parked_topic as t
order by 1, 2
