-- Fetches like fetch.sql, but only rows of active topics and keys. It reads a limited number of
-- rows of each lane, so that many excluded rows slow every fetch down a little instead of one fetch
-- a lot. A lane that reached this limit returns a row without event_id: the id up to which it was
-- read.
-- $1 lanes, $2 positions, $3 rows per lane, $4 payload bytes per lane; $5 active topics; $6 event
-- type -> topic, $7 aggregate type -> topic, $8 excluded keys as {"<topic>\u001f<key>": 0}; $9 rows
-- to read per lane; $10 all declared topics, when rows of other topics are wanted too.
with filter as materialized (
  select
    $5::text[] as topics, $6::text::jsonb as by_event_type, $7::text::jsonb as by_aggregate_type, $8::text::jsonb as resting_keys,
    $10::text[] as declared
)
select
  pg_current_snapshot()::text as snapshot, null::smallint as lane, s.position as id, s.incarnation as event_id, null as aggregate_type,
  null as aggregate_id, null as event_type, null as topic, null as event_key, null::bytea as payload, null as headers,
  clock_timestamp() as created_at, null::bytea as place, null::bigint as bytes, null as fault
from (select from @schema@.event limit 0) as locked_first right join @schema@.sequence_state as s on true
union all
select null, u.lane, looked.id, null, null, null, null, null, null, null, null, null, null, null, null
from unnest($1::smallint[], $2::bigint[]) as u (lane, low)
cross join lateral (
  select max(page.id) as id, count(*) as rows
  from (select e.id from @schema@.event as e where e.lane = u.lane and e.id > u.low order by e.id limit $9) as page
) as looked
where looked.rows = $9
union all
select null, @columns(m, 65536)@
from unnest($1::smallint[], $2::bigint[], $3::int[], $4::bigint[]) as u (lane, low, rows_max, bytes_max)
cross join filter
cross join lateral (
  select sized.*, sum(least(sized.bytes, 65536)) over (order by sized.id rows between unbounded preceding and 1 preceding) as bytes_before
  from (
    select page.*, @bytes(page)@ as bytes
    from (select e.*, e.ctid as place from @schema@.event as e where e.lane = u.lane and e.id > u.low order by e.id limit $9) as page
    cross join lateral (
      select coalesce(
        page.topic, filter.by_event_type ->> @text(page, event_type)@, filter.by_aggregate_type ->> @text(page, aggregate_type)@
      ) as name
    ) as destination
    where
      destination.name = any (filter.topics)
      and not jsonb_exists(filter.resting_keys, destination.name || e'\x1f' || @key(page)@)
      or filter.declared is not null and coalesce(destination.name <> all (filter.declared), true)
    order by page.id
    limit u.rows_max
  ) as sized
) as m
where coalesce(m.bytes_before, 0) < u.bytes_max
