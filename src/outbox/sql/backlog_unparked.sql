-- Counts like backlog.sql, but leaves out the rows of parked topics and keys, which wait for a
-- person. It reads no more rows than the cap, so that many parked rows cost no more than many
-- waiting ones. With more parked rows than that, the count is too small, and `capped` is true.
-- A parked key is found by the digest that key_digest() computes.
-- $1 lanes, $2 watermarks, $3 cap; $4 parked topics; $5 event type -> topic, $6 aggregate type ->
-- topic.
with filter as materialized (
  select $4::text[] as topics, $5::text::jsonb as by_event_type, $6::text::jsonb as by_aggregate_type
),
looked as materialized (
  select m.created_at, m.topic, m.event_type, m.aggregate_type, m.key
  from unnest($1::smallint[], $2::bigint[]) as u (lane, mark)
  cross join lateral (
    select e.created_at, e.topic, @text(e, event_type)@ as event_type, @text(e, aggregate_type)@ as aggregate_type, @key(e)@ as key
    from @schema@.event as e
    where e.lane = u.lane and e.id > u.mark
    order by e.id
    limit $3
  ) as m
  limit $3
),
judged as (
  select
    looked.created_at,
    destination.name = any (filter.topics) or exists (
      select from @schema@.parked_key as p
      where p.topic = destination.name and p.key_digest = sha256(convert_to(looked.key, 'UTF8'))
    ) as is_parked
  from looked
  cross join filter
  cross join lateral (
    select coalesce(looked.topic, filter.by_event_type ->> looked.event_type, filter.by_aggregate_type ->> looked.aggregate_type) as name
  ) as destination
)
select
  count(*) filter (where is_parked is not true) as depth,
  (
    extract(epoch from min(
      least(greatest(created_at, timestamptz '0001-01-01 00:00:00+00'), timestamptz '9999-12-31 23:59:59.999999+00')
    ) filter (where is_parked is not true)) * 1000000
  )::bigint as oldest,
  count(*) >= $3 as capped
from judged
