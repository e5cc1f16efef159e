-- Types and ids of dead letters, for the log. $1 event ids, $2 ids: parallel lists.
select
  d.event_id, d.id, d.destination as topic, d.class, @schema@.readable_text(d.event_type) as event_type,
  @schema@.readable_text(left(d.headers ->> 'correlation_id', 256)) as correlation_id,
  @schema@.readable_text(left(d.headers ->> 'traceparent', 256)) as traceparent
from @schema@.dead_letter as d
join unnest($1::uuid[], $2::bigint[]) as u (event_id, id) on d.event_id = u.event_id and d.id = u.id
order by d.id
