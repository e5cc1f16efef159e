-- Finds an event among the waiting rows and the dead letters, by reading both tables. $1 event_id,
-- $2 maximum number. A created_at that RFC 3339 cannot hold is shown as the nearest time that it can.
select found.*
from (
  select
    false as dead, e.lane, e.id, e.topic, @schema@.readable_text(coalesce(e.event_key, e.aggregate_id)) as key,
    @schema@.readable_text(e.event_type) as event_type, @schema@.readable_text(e.aggregate_type) as aggregate_type,
    to_char(
      least(greatest(e.created_at, timestamptz '0001-01-01 00:00:00+00'), timestamptz '9999-12-31 23:59:59.999999+00') at time zone 'UTC',
      'YYYY-MM-DD"T"HH24:MI:SS"Z"'
    ) as created_at,
    null::text as class, null::int as attempts, null::text as failed_at
  from @schema@.event as e
  where e.event_id = $1
  union all
  select
    true, d.lane, d.id, d.destination, @schema@.readable_text(coalesce(d.event_key, d.aggregate_id)),
    @schema@.readable_text(d.event_type), @schema@.readable_text(d.aggregate_type),
    to_char(
      least(greatest(d.created_at, timestamptz '0001-01-01 00:00:00+00'), timestamptz '9999-12-31 23:59:59.999999+00') at time zone 'UTC',
      'YYYY-MM-DD"T"HH24:MI:SS"Z"'
    ),
    d.class, d.attempts, to_char(d.failed_at at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"')
  from @schema@.dead_letter as d
  where d.event_id = $1
) as found
order by found.id
limit $2
