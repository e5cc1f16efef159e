-- Types and ids of the rejected rows for which keys are parked, for the log. $1 event ids, $2 ids:
-- parallel lists.
select
  e.event_id, e.id, k.topic, k.class, @schema@.readable_text(e.event_type) as event_type,
  @schema@.readable_text(left(e.headers ->> 'correlation_id', 256)) as correlation_id,
  @schema@.readable_text(left(e.headers ->> 'traceparent', 256)) as traceparent
from @schema@.parked_key as k
join unnest($1::uuid[], $2::bigint[]) as u (event_id, id) on k.head_event_id = u.event_id and k.head_id = u.id
join @schema@.event as e on e.lane = k.lane and e.id = k.head_id and e.event_id = k.head_event_id
order by e.id
