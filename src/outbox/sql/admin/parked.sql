-- Lists parked keys and topics (with a null key), oldest first.
-- $1 topic, $2 key, $3 class, $4 minimum age in ms, $5 event_id of the rejected row (each null:
-- any), $6 maximum number (null: all).
select
  p.topic, p.key, p.lane, p.class, p.attempts, p.head_id, p.head_event_id,
  to_char(p.first_failed_at at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"') as first_failed_at,
  to_char(p.parked_at at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"') as parked_at
from (
  select topic, key, lane, class, attempts, head_id, head_event_id, first_failed_at, parked_at from @schema@.parked_key
  union all
  select topic, null, null, class, null, null, null, null, parked_at from @schema@.parked_topic
) as p
where
  ($1::text is null or p.topic = $1)
  and ($2::text is null or p.key = $2)
  and ($3::text is null or p.class = $3)
  and ($4::bigint is null or p.parked_at <= clock_timestamp() - $4 * interval '1 millisecond')
  and ($5::uuid is null or p.head_event_id = $5)
order by p.parked_at, p.topic, p.key
limit $6
