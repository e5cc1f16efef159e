-- Adopted tables: outbox tables that services have already. A trigger on such a table turns each
-- row that a service inserts into a row of `event`; the migration writes trigger and function from
-- `migration.adopt`. The code of the service does not change.
--
-- A row of `event` names the row that it came from, so that adoption can be undone and so that the
-- purge never deletes the source of a row that Kafka rejected.
--
-- Relays of level 6 can go on beside it, so compatible_from stays.

alter table event add column source smallint, add column source_key jsonb;
comment on column event.source is 'Adopted table that the row came from, see adopted; null: enqueue() or a direct insert.';
comment on column event.source_key is 'Primary key of the row that it came from, as an object.';
alter table dead_letter add column source smallint, add column source_key jsonb;
comment on column dead_letter.source is 'Adopted table that the row came from, see adopted.';
comment on column dead_letter.source_key is 'Primary key of the row that it came from, as an object.';

create table adopted (
  source smallint primary key check (source > 0),
  table_schema text not null,
  table_name text not null,
  state text not null default 'Adopted' check (state in ('Draining', 'Adopted', 'Released')),
  definition text not null,
  published_column text,
  key_columns text[] not null,
  retain interval,
  purge_block bigint not null default 0,
  changed_at timestamptz not null default clock_timestamp(),
  unique (table_schema, table_name)
);
comment on table adopted is 'Outbox tables of services whose new rows become rows of event.';
comment on column adopted.state is 'Draining: adopt --drain moves its rows, it has no triggers yet. Released: taken out of the manifest.';
comment on column adopted.definition is 'Hash of what its triggers were made from. Another one: they are replaced.';
comment on column adopted.published_column is 'Column that the trigger sets in a new row; null: none.';
comment on column adopted.retain is 'Age from which its published rows are deleted; null: they stay.';
comment on column adopted.purge_block is 'Block of the table at which the next purge begins.';

create or replace function bury(
  lane smallint, id bigint, event_id uuid, destination text, class text, attempts int, first_failed_at timestamptz default clock_timestamp()
) returns boolean
language plpgsql volatile security definer
set search_path from current set enable_seqscan = off set enable_bitmapscan = off
as $$
#variable_conflict use_variable
begin
  with gone as (
    delete from event as e where e.lane = bury.lane and e.id = bury.id and e.event_id = bury.event_id returning e.*
  )
  insert into dead_letter as d (
    id, lane, event_id, aggregate_type, aggregate_id, event_type, topic, destination, event_key, payload, headers, created_at,
    class, attempts, first_failed_at, source, source_key
  )
  select
    gone.id, gone.lane, gone.event_id, gone.aggregate_type, gone.aggregate_id, gone.event_type, gone.topic, destination, gone.event_key,
    gone.payload, gone.headers, gone.created_at, class, attempts, first_failed_at, gone.source, gone.source_key
  from gone
  on conflict on constraint dead_letter_pkey do update
  set destination = excluded.destination, class = excluded.class, attempts = excluded.attempts, failed_at = excluded.failed_at;
  return found;
end $$;

-- A row that an expression of an adopted table could not convert holds a copy of its source row and
-- no event, so it is never published.
create or replace function requeue_many(event_ids uuid[], ids bigint[]) returns setof bigint
language plpgsql volatile security definer
set search_path from current set enable_seqscan = off set enable_hashjoin = off set enable_mergejoin = off
as $$
begin
  if exists (
    select from unnest(event_ids, ids) as u (event_id, id)
    join dead_letter as d on d.event_id = u.event_id and d.id = u.id
    where d.class = 'AdoptionFailed'
  ) then
    raise exception 'a row that could not be converted into an event cannot be requeued'
      using errcode = 'object_not_in_prerequisite_state',
        hint = 'Correct migration.adopt, insert the row into its table again, then discard the dead letter.';
  end if;
  perform pg_advisory_xact_lock(1868720753, bucket)
  from (
    select distinct (hashtextextended(coalesce(d.event_key, d.aggregate_id) collate "C", 0) & 4095)::int as bucket
    from unnest(event_ids, ids) as u (event_id, id)
    join dead_letter as d on d.event_id = u.event_id and d.id = u.id
    order by 1
  ) as buckets;
  return query
  with gone as (
    delete from dead_letter as d using unnest(event_ids, ids) as u (event_id, id)
    where d.event_id = u.event_id and d.id = u.id
    returning d.*
  ),
  added as (
    insert into event as e (
      event_id, aggregate_type, aggregate_id, event_type, topic, event_key, payload, headers, created_at, source, source_key
    )
    select
      event_id, aggregate_type, aggregate_id, event_type, topic, event_key, payload, headers, created_at, source, source_key
    from gone order by gone.id
    returning e.id
  )
  select added.id from added order by 1;
end $$;

create or replace function resume_sequence(
  known bigint default 0, anyway boolean default false,
  out resumed boolean, out elsewhere boolean, out was_at bigint, out highest bigint, out moved bigint
)
language plpgsql volatile security definer
set search_path from current set lock_timeout = '2s'
as $$
declare
  here sequence_state;
  home origin;
  remembered bigint;
  top bigint;
  unmoved bigint;
  above bigint;
begin
  -- Looked at twice: only what is wrong under the lock, too, is wrong. The lock of parked_key comes first, as in skip_parked().
  for attempt in 1 .. 2 loop
    select coalesce(max(high_id), 0) into remembered from lane;
    select coalesce(max(highest_of_lane.id), 0) into top
    from lane as l
    cross join lateral (select e.id from event as e where e.lane = l.lane order by e.id desc limit 1) as highest_of_lane;
    select * into here from sequence_state;
    elsewhere := here.incarnation is null;
    was_at := here.position;
    highest := greatest(known, remembered, top);
    resumed := elsewhere or was_at < highest or anyway;
    moved := 0;
    if not resumed then
      return;
    end if;
    if attempt = 1 then
      lock table parked_key, event in share row exclusive mode;
    end if;
  end loop;

  select * into home from origin;
  unmoved := remembered;
  if was_at < greatest(remembered, top)
    or home.system_identifier = here.system_identifier and home.sequence_file <> here.sequence_file
  then
    unmoved := 0;
  end if;
  highest := greatest(highest, was_at);
  above := extract(epoch from clock_timestamp() - timestamptz '2026-01-01 00:00:00+00') * 4194304;
  if above <= highest then
    above := highest + 4294967296;
  end if;

  with gone as (
    delete from event where id > unmoved returning *
  ),
  renamed as (
    select gone.*, above + row_number() over (order by case when top > was_at then gone.created_at end, gone.id) as new_id from gone
  ),
  added as (
    insert into event (
      id, event_id, aggregate_type, aggregate_id, event_type, topic, event_key, payload, headers, created_at, source, source_key
    )
    overriding system value
    select
      new_id, event_id, aggregate_type, aggregate_id, event_type, topic, event_key, payload, headers, created_at, source, source_key
    from renamed
  ),
  heads as (
    update parked_key as p set head_id = renamed.new_id
    from renamed
    where p.lane = renamed.lane and p.head_id = renamed.id and p.head_event_id = renamed.event_id
  )
  select count(*) into moved from renamed;
  execute format('alter sequence event_id_seq restart with %s', above + moved + 1);

  -- Last, for renewals wait for it. A mark of before may skip what is here now.
  lock table lane in share row exclusive mode;
  update lane set mark = 0, high_id = above + moved;
  insert into origin as o (system_identifier, timeline, sequence_file)
  values (here.system_identifier, here.timeline, pg_relation_filepath('event_id_seq'::regclass))
  on conflict (only_row) do update
  set system_identifier = excluded.system_identifier, timeline = excluded.timeline, sequence_file = excluded.sequence_file,
    incarnation = excluded.incarnation, since = excluded.since;
end $$;

-- Deletes rows of adopted tables that are older than `retain`: a few blocks of each table in a
-- call, so it needs no index and reads no table as a whole. It begins again at the first block when
-- it has reached the last one.
--
-- It deletes no row that was published, as far as the table says, after the oldest row of its table
-- that still waits here, and no source of a dead letter: undoing the adoption needs those.
create function purge_adopted(blocks int default 256) returns bigint
language plpgsql volatile security definer set search_path from current set lock_timeout = '1s'
as $$
declare
  a adopted;
  relation regclass;
  last_block bigint;
  first tid;
  beyond tid;
  horizon timestamptz;
  deleted bigint;
  total bigint := 0;
begin
  for a in select * from adopted where state = 'Adopted' and retain is not null order by source for update skip locked loop
    relation := to_regclass(format('%I.%I', a.table_schema, a.table_name));
    continue when relation is null;
    -- Of a partitioned table each partition has its own blocks; another table is in no tree.
    select max(pg_relation_size(part)) / current_setting('block_size')::bigint into last_block
    from (select relation union select relid from pg_partition_tree(relation)) as parts (part);
    first := format('(%s,0)', a.purge_block)::tid;
    beyond := format('(%s,0)', least(a.purge_block + blocks, 4294967295))::tid;
    select least(clock_timestamp() - a.retain, min(waiting.created_at) - interval '1 hour') into horizon
    from lane as l
    cross join lateral (
      select e.created_at from event as e where e.lane = l.lane and e.source = a.source order by e.id limit 1
    ) as waiting;
    execute format(
      'delete from %1$s as t where t.ctid >= $1 and t.ctid < $2 and t.%2$I < $3
        and not exists (select from dead_letter as d where d.source = $4 and d.source_key = jsonb_build_object(%3$s))',
      relation, a.published_column, (select string_agg(format('%L, t.%I', k, k), ', ') from unnest(a.key_columns) as k)
    ) using first, beyond, horizon, a.source;
    get diagnostics deleted = row_count;
    total := total + deleted;
    update adopted set purge_block = case when a.purge_block + blocks > last_block then 0 else a.purge_block + blocks end
    where source = a.source;
  end loop;
  return total;
end $$;
comment on function purge_adopted is 'Deletes old published rows of adopted tables that have retain, in a few blocks of each; returns how many. For the relay.';
revoke all on function purge_adopted(int) from public;
