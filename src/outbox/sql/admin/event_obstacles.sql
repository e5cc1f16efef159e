-- What a waiting row is behind. Returns no row if it is gone. $1 lane, $2 id, $3 the topic that it
-- goes to (null: none is declared for it), $4 maximum number of rows before it that are counted.
select
  (select p.class from @schema@.parked_topic as p where p.topic = $3) as topic_class,
  k.class as key_class, k.head_id, k.head_event_id::text as head_event_id,
  l.high_id, r.pod, r.breaker, before.rows
from @schema@.event as e
join @schema@.lane as l on l.lane = e.lane
left join @schema@.relay as r on r.instance = l.owner and r.lease_until > clock_timestamp()
left join @schema@.parked_key as k on k.topic = $3 and k.key = coalesce(e.event_key, e.aggregate_id)
cross join lateral (
  select count(*) as rows
  from (
    select
    from @schema@.event as b
    where b.lane = e.lane and b.id < e.id and coalesce(b.event_key, b.aggregate_id) = coalesce(e.event_key, e.aggregate_id)
    limit $4
  ) as counted
) as before
where e.lane = $1 and e.id = $2
