-- Why: the outbox itself. A row of `event` exists = it is not published yet; the relay deletes it when Kafka has it. So there is no cursor to
-- lose rows behind, no status column to update on the hot path, and nothing to clean up.
--
-- Names are unqualified: this runs with search_path = <schema>, pg_temp, and `set search_path from current` pins that very path to the
-- functions. pg_temp stands explicitly last: otherwise it would be searched first, and a caller's temporary table named `event` would
-- take the place of ours inside a function that runs as the owner.

-- Each applied migration is a row here; compatible_from is filled from its default. A later migration that older relays cannot work with
-- raises that default, and so the highest value of all rows is what counts.
alter table schema_migrations add column if not exists compatible_from bigint not null default 1;
comment on table schema_migrations is 'Migrations of the outbox; its level is the highest version.';
comment on column schema_migrations.compatible_from is 'Lowest schema level whose relays may still work on this schema; the highest value counts.';

create table event (
  -- First on purpose: defaults are evaluated in column order, so a transaction has its xid before it draws an id. The relay's reading
  -- position rests on that.
  xact xid8 not null default pg_current_xact_id(),
  -- Order inside a key. cache 1 (the default): ids are drawn in the order of the draws.
  id bigint generated always as identity,
  -- The unit of ownership: rows of one key share a lane for ever, and a lane has one relay at a time.
  lane smallint not null generated always as
    ((hashtextextended(coalesce(event_key, aggregate_id) collate "C", 0) & 63)::smallint) stored,
  event_id uuid not null default gen_random_uuid(),
  aggregate_type text not null,
  aggregate_id text not null,
  event_type text not null,
  topic text constraint topic_is_a_kafka_name check (topic ~ '^[a-zA-Z0-9._-]{1,249}$' and topic not in ('.', '..')),
  event_key text,
  payload bytea,
  headers jsonb not null default '{}' constraint headers_are_an_object check (jsonb_typeof(headers) = 'object'),
  created_at timestamptz not null default clock_timestamp(),
  -- The only index: any other one makes the planner walk it instead (50 to 95 ms a fetch instead of less than 1).
  constraint event_pkey primary key (lane, id)
) with (
  -- A queue is all dead rows: vacuum by count, at full speed, and never take the exclusive lock that truncation needs.
  autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 5000, autovacuum_vacuum_cost_delay = 0,
  autovacuum_vacuum_insert_scale_factor = 0.2, vacuum_truncate = off,
  toast.autovacuum_vacuum_scale_factor = 0, toast.autovacuum_vacuum_threshold = 5000,
  toast.autovacuum_vacuum_cost_delay = 0, toast.vacuum_truncate = off
);
comment on table event is 'Rows that wait to be published. Insert with enqueue(), or directly; never update, never delete by hand.';
comment on column event.topic is 'Kafka topic; null: the relay routes by event_type, then aggregate_type.';
comment on column event.event_key is 'Kafka key; null: the aggregate_id.';
comment on column event.payload is 'Record value, as it is; null: a tombstone.';
comment on column event.headers is 'Record headers: names and text values, for example correlation_id and traceparent.';

-- lz4 packs faster than the default; a server built without it keeps the default.
do $$
begin
  alter table event alter column payload set compression lz4;
exception when feature_not_supported then
  null;
end $$;

create table relay (
  instance uuid primary key,
  pod text not null,
  lease_until timestamptz not null
) with (fillfactor = 20, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 200);
comment on table relay is 'One row per running relay: its lease, on the clock of the database. Deleted when it stops.';

create table lane (
  lane smallint primary key check (lane between 0 and 63),
  owner uuid,
  epoch bigint not null default 0,
  mark bigint not null default 0,
  high_id bigint not null default 0
) with (fillfactor = 10, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 200);
comment on table lane is 'Which relay owns which lane.';
comment on column lane.epoch is 'Counts the owners; a relay whose epoch is older has lost the lane.';
comment on column lane.mark is 'All rows up to this id are settled: a new owner starts to read here.';
comment on column lane.high_id is 'Highest id that an owner has seen.';
insert into lane (lane) select generate_series(0, 63);

create table owner (
  only_row boolean primary key default true check (only_row),
  cluster text not null,
  namespace text not null,
  name text not null
);
comment on table owner is 'The OutboxRelay that manages this schema. A relay of another one does not publish from it.';

create table grantee (
  role text not null,
  kind text not null check (kind in ('producer', 'relay')),
  primary key (role, kind)
);
comment on table grantee is 'Roles of migration.grants that got rights: one that is taken out of it loses them again. Rights given by hand stay.';

-- Locks the key until the transaction ends, then draws the id: for one key the order of ids is the order of commits, whatever else the
-- writers do. One of 4,096 buckets instead of a lock per key: 20,000 keys in one transaction would fill the server's lock table.
create function enqueue(
  aggregate_type text, aggregate_id text, event_type text, payload bytea,
  topic text default null, event_key text default null, headers jsonb default '{}', event_id uuid default gen_random_uuid()
) returns bigint
language plpgsql volatile security definer set search_path from current
as $$
#variable_conflict use_variable
declare
  new_id bigint;
begin
  perform pg_advisory_xact_lock(1868720753, (hashtextextended(coalesce(event_key, aggregate_id) collate "C", 0) & 4095)::int);
  insert into event (aggregate_type, aggregate_id, event_type, payload, topic, event_key, headers, event_id)
  values (aggregate_type, aggregate_id, event_type, payload, topic, event_key, coalesce(headers, '{}'), coalesce(event_id, gen_random_uuid()))
  returning id into new_id;
  return new_id;
end $$;
comment on function enqueue is 'Adds one event in the caller''s transaction and returns its outbox_seq. Events of one key commit in the order of their ids.';

-- Many events in one call. Buckets are locked in ascending order, so that two callers never wait for each other in a circle. A misspelt
-- field is refused: taken for absent, it would put an event under another key.
create function enqueue_many(events jsonb) returns bigint
language plpgsql volatile security definer set search_path from current
as $$
declare
  added bigint;
  unknown text;
begin
  select field into unknown
  from jsonb_array_elements(events) as item, jsonb_object_keys(item) as field
  where field not in
    ('aggregate_type', 'aggregate_id', 'event_type', 'payload', 'payload_base64', 'topic', 'event_key', 'headers', 'event_id')
  limit 1;
  if unknown is not null then
    raise exception 'an event has no field "%"', unknown
      using errcode = 'invalid_parameter_value',
        hint = 'Fields: aggregate_type, aggregate_id, event_type, payload or payload_base64, topic, event_key, headers, event_id.';
  end if;
  perform pg_advisory_xact_lock(1868720753, bucket)
  from (
    select distinct (hashtextextended(coalesce(item ->> 'event_key', item ->> 'aggregate_id') collate "C", 0) & 4095)::int as bucket
    from jsonb_array_elements(events) as item
    order by 1
  ) as buckets;
  insert into event (aggregate_type, aggregate_id, event_type, payload, topic, event_key, headers, event_id)
  select
    item ->> 'aggregate_type', item ->> 'aggregate_id', item ->> 'event_type',
    coalesce(decode(item ->> 'payload_base64', 'base64'), convert_to(item ->> 'payload', 'UTF8')),
    item ->> 'topic', item ->> 'event_key', coalesce(nullif(item -> 'headers', 'null'), '{}'),
    coalesce((item ->> 'event_id')::uuid, gen_random_uuid())
  from jsonb_array_elements(events) with ordinality as list (item, position)
  order by position;
  get diagnostics added = row_count;
  return added;
end $$;
comment on function enqueue_many is
  'Adds an array of {aggregate_type, aggregate_id, event_type, payload | payload_base64, topic, event_key, headers, event_id}, in order; returns how many.';

-- The relay's delete. A row is named by lane, id and event_id: after a restore an id may come again with another event. `tick` is this
-- transaction's xid: the relay's reading position moves by it.
--
-- Row by row on purpose, each by the one index. A join with the arrays lets the planner turn the join round, and it does so on a queue that was
-- empty when it was last vacuumed: reading the whole table once and the arrays for each row of it cost 10 s for 1,000 of 50,000 rows.
create function settle(lanes smallint[], ids bigint[], event_ids uuid[], out tick xid8, out settled bigint)
language plpgsql volatile security definer
set search_path from current set enable_seqscan = off set enable_bitmapscan = off
as $$
declare
  deleted bigint;
begin
  tick := pg_current_xact_id();
  settled := 0;
  for n in 1 .. coalesce(cardinality(ids), 0) loop
    delete from event as e where e.lane = lanes[n] and e.id = ids[n] and e.event_id = event_ids[n];
    get diagnostics deleted = row_count;
    settled := settled + deleted;
  end loop;
end $$;
comment on function settle is 'Deletes rows that Kafka has acknowledged. For the relay alone.';

create function text_or_null(bytes bytea) returns text
language plpgsql immutable set search_path from current
as $$
begin
  return convert_from(bytes, 'UTF8');
exception when character_not_in_repertoire or untranslatable_character then
  return null;
end $$;

create view pending as
select
  id as outbox_seq, lane, event_id, coalesce(event_key, aggregate_id) as key, topic, event_type, aggregate_type, aggregate_id, headers,
  text_or_null(payload) as payload_text, octet_length(payload) as payload_bytes, created_at
from event;
comment on view pending is 'Rows that wait to be published, for people. payload_text is null for a payload that is not UTF-8.';

revoke all on function
  enqueue(text, text, text, bytea, text, text, jsonb, uuid), enqueue_many(jsonb), settle(smallint[], bigint[], uuid[]), text_or_null(bytea)
from public;
