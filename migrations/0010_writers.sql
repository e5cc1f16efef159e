-- Writers that share no key neither wait for each other nor deadlock, and payloads that are text.
--
-- Locks. So far a key had one of 4,096 locks, its bucket. Keys that share nothing but a bucket waited
-- for each other, and sorting keys did not sort their buckets, so that did not prevent deadlocks.
-- Now a transaction takes for each of its first 64 keys
--
-- * the bucket in share mode, and
-- * the lock of the key alone, which is the whole hash.
--
-- It takes only the bucket, exclusively, for each further key: the lock table of a server has no
-- room for a lock for each of 100,000 keys. Two writers of a key meet at its own lock, or at its
-- bucket if one of them has many keys. Functions and triggers of levels before this take a bucket
-- exclusively, under the same number, so they and these exclude each other as well.
--
-- Keys that are given at once are locked in ascending order: buckets before keys, as each single
-- key is. So calls with many keys never wait for each other in a circle.
--
-- Setting outbox_relay.locked_keys holds the hashes of the keys that the transaction has locked, in
-- 16 hexadecimal digits each, with a space between them. It is local to the transaction and is undone
-- with a savepoint, as the locks are. It has the length of 64 keys from the moment when only
-- buckets are locked.
--
-- Relays of level 9 can go on beside it, so compatible_from stays. Signatures stay as they were, for
-- they also stand in the grants of a migration of level 9.

-- Locks a key when the transaction has locked others.
create or replace function lock_key(hash bigint) returns void
language plpgsql volatile set search_path from current
as $$
declare
  held text := coalesce(current_setting('outbox_relay.locked_keys', true), '');
  entry text := encode(int8send(hash), 'hex');
begin
  if strpos(held, entry) > 0 then
    return;
  end if;
  if octet_length(held) >= 64 * 17 - 1 then
    perform pg_advisory_xact_lock(1868720753, (hash & 4095)::int);
    return;
  end if;
  perform
    pg_advisory_xact_lock_shared(1868720753, (hash & 4095)::int), pg_advisory_xact_lock(hash),
    set_config('outbox_relay.locked_keys', concat_ws(' ', nullif(held, ''), entry), true);
end $$;
comment on function lock_key is 'Locks the key of this hash until the transaction ends. For functions and triggers of the outbox alone.';

create or replace function lock_keys(keys text[]) returns void
language plpgsql volatile set search_path from current
as $$
declare
  held text := coalesce(current_setting('outbox_relay.locked_keys', true), '');
  hashes bigint[];
begin
  select array_agg(distinct hash order by hash) into hashes
  from unnest(keys) as key
  cross join lateral hashtextextended(key collate "C", 0) as hash
  where hash is not null and strpos(held, encode(int8send(hash), 'hex')) = 0;
  if hashes is null then
    return;
  end if;
  if (octet_length(held) + 1) / 17 + cardinality(hashes) <= 64 then
    perform pg_advisory_xact_lock_shared(1868720753, bucket)
    from (select distinct (hash & 4095)::int as bucket from unnest(hashes) as hash order by 1) as buckets;
    perform pg_advisory_xact_lock(hash) from unnest(hashes) as hash;
    select concat_ws(' ', nullif(held, ''), string_agg(encode(int8send(hash), 'hex'), ' ')) into held
    from unnest(hashes) as hash;
  else
    perform pg_advisory_xact_lock(1868720753, bucket)
    from (select distinct (hash & 4095)::int as bucket from unnest(hashes) as hash order by 1) as buckets;
    held := rpad(held, 64 * 17 - 1);
  end if;
  perform set_config('outbox_relay.locked_keys', held, true);
end $$;
comment on function lock_keys is
  'Locks keys until the transaction ends, as enqueue_text() locks one. Call it before anything else in a transaction that adds events of several keys.';

-- The functions that add one event. They differ in the type of the payload. No two have one name:
-- a literal, or a parameter of a driver, often has no type, and a call of it would not be unique.
--
-- * enqueue_text takes text and stores it as UTF-8.
-- * enqueue_json takes json and stores its text. There is none for jsonb, which keeps values and not
--   their text.
-- * enqueue_bytes takes bytes. A literal without a type is read as bytea: backslashes are escapes.
-- * enqueue is the name of enqueue_bytes before this level, for services that call it.
--
-- The first key of a transaction is locked here, which costs less than a call of lock_key(). It is
-- one expression, which costs less than `perform`. None of its conditions is false: void is not null.
do $migration$
declare
  form record;
begin
  for form in
    select * from (values
      ('enqueue_text', 'text', $$convert_to(payload, 'UTF8')$$, ', ordered boolean default true', 'not ordered or '),
      ('enqueue_json', 'json', $$convert_to(payload::text, 'UTF8')$$, ', ordered boolean default true', 'not ordered or '),
      ('enqueue_bytes', 'bytea', 'payload', ', ordered boolean default true', 'not ordered or '),
      ('enqueue', 'bytea', 'payload', '', '')
    ) as forms (name, payload_type, payload_bytes, last_parameter, unlocked)
  loop
    execute format(
      $create$
create or replace function %1$I(
  aggregate_type text, aggregate_id text, event_type text, payload %2$s,
  topic text default null, event_key text default null, headers jsonb default '{}', event_id uuid default gen_random_uuid()%4$s
) returns bigint
language plpgsql volatile security definer set search_path from current
as $$
#variable_conflict use_variable
declare
  hash constant bigint := hashtextextended(coalesce(event_key, aggregate_id) collate "C", 0);
  is_locked boolean;
  new_id bigint;
begin
  is_locked := %5$scase
    when coalesce(current_setting('outbox_relay.locked_keys', true), '') <> '' then lock_key(hash) is not null
    else
      pg_advisory_xact_lock_shared(1868720753, (hash & 4095)::int) is not null
      and pg_advisory_xact_lock(hash) is not null
      and set_config('outbox_relay.locked_keys', encode(int8send(hash), 'hex'), true) is not null
  end;
  insert into event (aggregate_type, aggregate_id, event_type, payload, topic, event_key, headers, event_id)
  values (
    aggregate_type, aggregate_id, event_type, %3$s, topic, event_key, coalesce(headers, '{}'), coalesce(event_id, gen_random_uuid())
  )
  returning id into new_id;
  return new_id;
end $$
      $create$,
      form.name, form.payload_type, form.payload_bytes, form.last_parameter, form.unlocked
    );
  end loop;
end $migration$;
comment on function enqueue_text is
  'Adds one event in the caller''s transaction and returns its outbox_seq. The payload is text, in UTF-8. Events of one key commit in the order of their ids.';
comment on function enqueue_json is 'As enqueue_text(), with a payload of type json, whose text stays as it is.';
comment on function enqueue_bytes is 'As enqueue_text(), with a payload of bytes. Give it a parameter of type bytea and no text.';
comment on function enqueue is 'As enqueue_bytes(), under the name that it had first.';

-- `ordered` has no default here, so each call means one of the two functions.
create or replace function enqueue_many(events jsonb, ordered boolean) returns bigint
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
  if exists (
    select from jsonb_array_elements(events) as item where item ->> 'payload' is not null and item ->> 'payload_base64' is not null
  ) then
    raise exception 'an event has both payload and payload_base64'
      using errcode = 'invalid_parameter_value', hint = 'Give one of them.';
  end if;
  if ordered is not false then
    perform lock_keys(array(
      select coalesce(item ->> 'event_key', item ->> 'aggregate_id') from jsonb_array_elements(events) as item
    ));
  end if;
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
comment on function enqueue_many(jsonb, boolean) is 'As enqueue_many(jsonb). Not ordered: it locks no key.';

create or replace function enqueue_many(events jsonb) returns bigint
language plpgsql volatile security definer set search_path from current
as $$
begin
  return enqueue_many(events, true);
end $$;

-- Locks as enqueue_many() does.
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
  perform lock_keys(array(
    select coalesce(d.event_key, d.aggregate_id)
    from unnest(event_ids, ids) as u (event_id, id)
    join dead_letter as d on d.event_id = u.event_id and d.id = u.id
  ));
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

revoke all on function
  lock_key(bigint), lock_keys(text[]), enqueue_many(jsonb, boolean),
  enqueue_text(text, text, text, text, text, text, jsonb, uuid, boolean),
  enqueue_json(text, text, text, json, text, text, jsonb, uuid, boolean),
  enqueue_bytes(text, text, text, bytea, text, text, jsonb, uuid, boolean)
from public;
