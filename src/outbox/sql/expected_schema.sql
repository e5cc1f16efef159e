-- What migrations make, as sql/schema_facts.sql describes it, and statements
-- that make it again. Generated from a schema that was just migrated:
--   UPDATE_GENERATED=1 cargo test --test it generated_files

--# function bury(smallint, bigint, uuid, text, text, integer, timestamp with time zone)
--= plpgsql, volatile, security definer, returns boolean, arguments lane smallint, id bigint, event_id uuid, destination text, class text, attempts integer, first_failed_at timestamp with time zone, defaults 4b1d66350efe3913, set enable_bitmapscan=off, set enable_seqscan=off, set search_path=@schema@, pg_temp, body 1d23f8cbcc539e56
CREATE OR REPLACE FUNCTION @schema@.bury(lane smallint, id bigint, event_id uuid, destination text, class text, attempts integer, first_failed_at timestamp with time zone DEFAULT clock_timestamp())
 RETURNS boolean
 LANGUAGE plpgsql
 SECURITY DEFINER
 SET search_path TO @schema@, pg_temp
 SET enable_seqscan TO 'off'
 SET enable_bitmapscan TO 'off'
AS $function$
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
end $function$;
revoke all on function @schema@.bury(smallint, bigint, uuid, text, text, integer, timestamp with time zone) from public;

--# function enqueue(text, text, text, bytea, text, text, jsonb, uuid)
--= plpgsql, volatile, security definer, returns bigint, arguments aggregate_type text, aggregate_id text, event_type text, payload bytea, topic text, event_key text, headers jsonb, event_id uuid, defaults 790b7b8e43f29881, set search_path=@schema@, pg_temp, body 2714ab4be3dfea8c
CREATE OR REPLACE FUNCTION @schema@.enqueue(aggregate_type text, aggregate_id text, event_type text, payload bytea, topic text DEFAULT NULL::text, event_key text DEFAULT NULL::text, headers jsonb DEFAULT '{}'::jsonb, event_id uuid DEFAULT gen_random_uuid())
 RETURNS bigint
 LANGUAGE plpgsql
 SECURITY DEFINER
 SET search_path TO @schema@, pg_temp
AS $function$
#variable_conflict use_variable
declare
  hash constant bigint := hashtextextended(coalesce(event_key, aggregate_id) collate "C", 0);
  is_locked boolean;
  new_id bigint;
begin
  is_locked := case
    when coalesce(current_setting('outbox_relay.locked_keys', true), '') <> '' then lock_key(hash) is not null
    else
      pg_advisory_xact_lock_shared(1868720753, (hash & 4095)::int) is not null
      and pg_advisory_xact_lock(hash) is not null
      and set_config('outbox_relay.locked_keys', encode(int8send(hash), 'hex'), true) is not null
  end;
  insert into event (aggregate_type, aggregate_id, event_type, payload, topic, event_key, headers, event_id)
  values (
    aggregate_type, aggregate_id, event_type, payload, topic, event_key, coalesce(headers, '{}'), coalesce(event_id, gen_random_uuid())
  )
  returning id into new_id;
  return new_id;
end $function$;
revoke all on function @schema@.enqueue(text, text, text, bytea, text, text, jsonb, uuid) from public;

--# function enqueue_bytes(text, text, text, bytea, text, text, jsonb, uuid, boolean)
--= plpgsql, volatile, security definer, returns bigint, arguments aggregate_type text, aggregate_id text, event_type text, payload bytea, topic text, event_key text, headers jsonb, event_id uuid, ordered boolean, defaults 308f11c2dca58593, set search_path=@schema@, pg_temp, body 327f97cfb58f6282
CREATE OR REPLACE FUNCTION @schema@.enqueue_bytes(aggregate_type text, aggregate_id text, event_type text, payload bytea, topic text DEFAULT NULL::text, event_key text DEFAULT NULL::text, headers jsonb DEFAULT '{}'::jsonb, event_id uuid DEFAULT gen_random_uuid(), ordered boolean DEFAULT true)
 RETURNS bigint
 LANGUAGE plpgsql
 SECURITY DEFINER
 SET search_path TO @schema@, pg_temp
AS $function$
#variable_conflict use_variable
declare
  hash constant bigint := hashtextextended(coalesce(event_key, aggregate_id) collate "C", 0);
  is_locked boolean;
  new_id bigint;
begin
  is_locked := not ordered or case
    when coalesce(current_setting('outbox_relay.locked_keys', true), '') <> '' then lock_key(hash) is not null
    else
      pg_advisory_xact_lock_shared(1868720753, (hash & 4095)::int) is not null
      and pg_advisory_xact_lock(hash) is not null
      and set_config('outbox_relay.locked_keys', encode(int8send(hash), 'hex'), true) is not null
  end;
  insert into event (aggregate_type, aggregate_id, event_type, payload, topic, event_key, headers, event_id)
  values (
    aggregate_type, aggregate_id, event_type, payload, topic, event_key, coalesce(headers, '{}'), coalesce(event_id, gen_random_uuid())
  )
  returning id into new_id;
  return new_id;
end $function$;
revoke all on function @schema@.enqueue_bytes(text, text, text, bytea, text, text, jsonb, uuid, boolean) from public;

--# function enqueue_json(text, text, text, json, text, text, jsonb, uuid, boolean)
--= plpgsql, volatile, security definer, returns bigint, arguments aggregate_type text, aggregate_id text, event_type text, payload json, topic text, event_key text, headers jsonb, event_id uuid, ordered boolean, defaults 308f11c2dca58593, set search_path=@schema@, pg_temp, body c284454f8197a3d3
CREATE OR REPLACE FUNCTION @schema@.enqueue_json(aggregate_type text, aggregate_id text, event_type text, payload json, topic text DEFAULT NULL::text, event_key text DEFAULT NULL::text, headers jsonb DEFAULT '{}'::jsonb, event_id uuid DEFAULT gen_random_uuid(), ordered boolean DEFAULT true)
 RETURNS bigint
 LANGUAGE plpgsql
 SECURITY DEFINER
 SET search_path TO @schema@, pg_temp
AS $function$
#variable_conflict use_variable
declare
  hash constant bigint := hashtextextended(coalesce(event_key, aggregate_id) collate "C", 0);
  is_locked boolean;
  new_id bigint;
begin
  is_locked := not ordered or case
    when coalesce(current_setting('outbox_relay.locked_keys', true), '') <> '' then lock_key(hash) is not null
    else
      pg_advisory_xact_lock_shared(1868720753, (hash & 4095)::int) is not null
      and pg_advisory_xact_lock(hash) is not null
      and set_config('outbox_relay.locked_keys', encode(int8send(hash), 'hex'), true) is not null
  end;
  insert into event (aggregate_type, aggregate_id, event_type, payload, topic, event_key, headers, event_id)
  values (
    aggregate_type, aggregate_id, event_type, convert_to(payload::text, 'UTF8'), topic, event_key, coalesce(headers, '{}'), coalesce(event_id, gen_random_uuid())
  )
  returning id into new_id;
  return new_id;
end $function$;
revoke all on function @schema@.enqueue_json(text, text, text, json, text, text, jsonb, uuid, boolean) from public;

--# function enqueue_many(jsonb)
--= plpgsql, volatile, security definer, returns bigint, arguments events jsonb, set search_path=@schema@, pg_temp, body 6a7ec2cd10211eac
CREATE OR REPLACE FUNCTION @schema@.enqueue_many(events jsonb)
 RETURNS bigint
 LANGUAGE plpgsql
 SECURITY DEFINER
 SET search_path TO @schema@, pg_temp
AS $function$
begin
  return enqueue_many(events, true);
end $function$;
revoke all on function @schema@.enqueue_many(jsonb) from public;

--# function enqueue_many(jsonb, boolean)
--= plpgsql, volatile, security definer, returns bigint, arguments events jsonb, ordered boolean, set search_path=@schema@, pg_temp, body 8e0157b7c03d241d
CREATE OR REPLACE FUNCTION @schema@.enqueue_many(events jsonb, ordered boolean)
 RETURNS bigint
 LANGUAGE plpgsql
 SECURITY DEFINER
 SET search_path TO @schema@, pg_temp
AS $function$
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
end $function$;
revoke all on function @schema@.enqueue_many(jsonb, boolean) from public;

--# function enqueue_text(text, text, text, text, text, text, jsonb, uuid, boolean)
--= plpgsql, volatile, security definer, returns bigint, arguments aggregate_type text, aggregate_id text, event_type text, payload text, topic text, event_key text, headers jsonb, event_id uuid, ordered boolean, defaults 308f11c2dca58593, set search_path=@schema@, pg_temp, body d6eb7c6b4bc6c776
CREATE OR REPLACE FUNCTION @schema@.enqueue_text(aggregate_type text, aggregate_id text, event_type text, payload text, topic text DEFAULT NULL::text, event_key text DEFAULT NULL::text, headers jsonb DEFAULT '{}'::jsonb, event_id uuid DEFAULT gen_random_uuid(), ordered boolean DEFAULT true)
 RETURNS bigint
 LANGUAGE plpgsql
 SECURITY DEFINER
 SET search_path TO @schema@, pg_temp
AS $function$
#variable_conflict use_variable
declare
  hash constant bigint := hashtextextended(coalesce(event_key, aggregate_id) collate "C", 0);
  is_locked boolean;
  new_id bigint;
begin
  is_locked := not ordered or case
    when coalesce(current_setting('outbox_relay.locked_keys', true), '') <> '' then lock_key(hash) is not null
    else
      pg_advisory_xact_lock_shared(1868720753, (hash & 4095)::int) is not null
      and pg_advisory_xact_lock(hash) is not null
      and set_config('outbox_relay.locked_keys', encode(int8send(hash), 'hex'), true) is not null
  end;
  insert into event (aggregate_type, aggregate_id, event_type, payload, topic, event_key, headers, event_id)
  values (
    aggregate_type, aggregate_id, event_type, convert_to(payload, 'UTF8'), topic, event_key, coalesce(headers, '{}'), coalesce(event_id, gen_random_uuid())
  )
  returning id into new_id;
  return new_id;
end $function$;
revoke all on function @schema@.enqueue_text(text, text, text, text, text, text, jsonb, uuid, boolean) from public;

--# function key_digest(text)
--= plpgsql, immutable, returns bytea, arguments key text, set search_path=@schema@, pg_temp, body feca865cb9ca3263
CREATE OR REPLACE FUNCTION @schema@.key_digest(key text)
 RETURNS bytea
 LANGUAGE plpgsql
 IMMUTABLE
 SET search_path TO @schema@, pg_temp
AS $function$
begin
  return sha256(convert_to(key, 'UTF8'));
end $function$;
revoke all on function @schema@.key_digest(text) from public;

--# function lock_key(bigint)
--= plpgsql, volatile, returns void, arguments hash bigint, set search_path=@schema@, pg_temp, body 00dc73c70199f13a
CREATE OR REPLACE FUNCTION @schema@.lock_key(hash bigint)
 RETURNS void
 LANGUAGE plpgsql
 SET search_path TO @schema@, pg_temp
AS $function$
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
end $function$;
revoke all on function @schema@.lock_key(bigint) from public;

--# function lock_keys(text[])
--= plpgsql, volatile, returns void, arguments keys text[], set search_path=@schema@, pg_temp, body 1919ef61c1b8c3e7
CREATE OR REPLACE FUNCTION @schema@.lock_keys(keys text[])
 RETURNS void
 LANGUAGE plpgsql
 SET search_path TO @schema@, pg_temp
AS $function$
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
end $function$;
revoke all on function @schema@.lock_keys(text[]) from public;

--# function park_key(text, text, smallint, bigint, uuid, text)
--= plpgsql, volatile, security definer, returns void, arguments topic text, key text, lane smallint, id bigint, event_id uuid, class text, set enable_bitmapscan=off, set enable_seqscan=off, set search_path=@schema@, pg_temp, body 9473a5377ecdb4b7
CREATE OR REPLACE FUNCTION @schema@.park_key(topic text, key text, lane smallint, id bigint, event_id uuid, class text)
 RETURNS void
 LANGUAGE plpgsql
 SECURITY DEFINER
 SET search_path TO @schema@, pg_temp
 SET enable_seqscan TO 'off'
 SET enable_bitmapscan TO 'off'
AS $function$
#variable_conflict use_variable
begin
  insert into parked_key as p (topic, key, lane, head_id, head_event_id, class)
  select topic, key, lane, id, event_id, class
  from event as e where e.lane = park_key.lane and e.id = park_key.id and e.event_id = park_key.event_id
  on conflict on constraint parked_key_pkey do update
  set head_id = excluded.head_id, head_event_id = excluded.head_event_id, class = excluded.class, attempts = p.attempts + 1;
end $function$;
revoke all on function @schema@.park_key(text, text, smallint, bigint, uuid, text) from public;

--# function purge_adopted(integer)
--= plpgsql, volatile, security definer, returns bigint, arguments blocks integer, defaults 51e8ea280b44e169, set lock_timeout=1s, set search_path=@schema@, pg_temp, body 7cf1fb1fb49e9ed0
CREATE OR REPLACE FUNCTION @schema@.purge_adopted(blocks integer DEFAULT 256)
 RETURNS bigint
 LANGUAGE plpgsql
 SECURITY DEFINER
 SET search_path TO @schema@, pg_temp
 SET lock_timeout TO '1s'
AS $function$
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
end $function$;
revoke all on function @schema@.purge_adopted(integer) from public;

--# function readable_text(text)
--= plpgsql, stable, returns text, arguments value text, set search_path=@schema@, pg_temp, body b1b25cd3ffa3ee04
CREATE OR REPLACE FUNCTION @schema@.readable_text(value text)
 RETURNS text
 LANGUAGE plpgsql
 STABLE
 SET search_path TO @schema@, pg_temp
AS $function$
begin
  perform convert_to(value, 'UTF8');
  return value;
exception when character_not_in_repertoire or untranslatable_character then
  return 'not-utf8:' || case
    when octet_length(value) <= 256 then encode(convert_to(value, 'SQL_ASCII'), 'escape')
    else 'sha256:' || encode(sha256(convert_to(value, 'SQL_ASCII')), 'hex')
  end;
end $function$;
revoke all on function @schema@.readable_text(text) from public;

--# function requeue(uuid)
--= sql, volatile, security definer, returns bigint, arguments event_id uuid, set search_path=@schema@, pg_temp, body 55d1e1feeb5c218b
CREATE OR REPLACE FUNCTION @schema@.requeue(event_id uuid)
 RETURNS bigint
 LANGUAGE sql
 SECURITY DEFINER
 SET search_path TO @schema@, pg_temp
AS $function$
  select new_id
  from (select d.event_id, d.id from dead_letter as d where d.event_id = requeue.event_id order by d.id limit 1) as letter,
    requeue_many(array[letter.event_id], array[letter.id]) as new_id
$function$;
revoke all on function @schema@.requeue(uuid) from public;

--# function requeue_many(uuid[], bigint[])
--= plpgsql, volatile, security definer, returns SETOF bigint, arguments event_ids uuid[], ids bigint[], set enable_hashjoin=off, set enable_mergejoin=off, set enable_seqscan=off, set search_path=@schema@, pg_temp, body c3990b1c138b1d40
CREATE OR REPLACE FUNCTION @schema@.requeue_many(event_ids uuid[], ids bigint[])
 RETURNS SETOF bigint
 LANGUAGE plpgsql
 SECURITY DEFINER
 SET search_path TO @schema@, pg_temp
 SET enable_seqscan TO 'off'
 SET enable_hashjoin TO 'off'
 SET enable_mergejoin TO 'off'
AS $function$
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
end $function$;
revoke all on function @schema@.requeue_many(uuid[], bigint[]) from public;

--# function resume_sequence(bigint, boolean)
--= plpgsql, volatile, security definer, returns record, arguments known bigint, anyway boolean, OUT resumed boolean, OUT elsewhere boolean, OUT was_at bigint, OUT highest bigint, OUT moved bigint, defaults 131ed1e677c53ad1, set lock_timeout=2s, set search_path=@schema@, pg_temp, body 1c5ccdc60422e597
CREATE OR REPLACE FUNCTION @schema@.resume_sequence(known bigint DEFAULT 0, anyway boolean DEFAULT false, OUT resumed boolean, OUT elsewhere boolean, OUT was_at bigint, OUT highest bigint, OUT moved bigint)
 RETURNS record
 LANGUAGE plpgsql
 SECURITY DEFINER
 SET search_path TO @schema@, pg_temp
 SET lock_timeout TO '2s'
AS $function$
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
  values (here.system_identifier, here.timeline, (select place.sequence_file from server_place() as place))
  on conflict (only_row) do update
  set system_identifier = excluded.system_identifier, timeline = excluded.timeline, sequence_file = excluded.sequence_file,
    incarnation = excluded.incarnation, since = excluded.since;
end $function$;
revoke all on function @schema@.resume_sequence(bigint, boolean) from public;

--# function ring()
--= plpgsql, volatile, returns trigger, arguments , set search_path=@schema@, pg_temp, body 2dbf30ff7dcba3db
CREATE OR REPLACE FUNCTION @schema@.ring()
 RETURNS trigger
 LANGUAGE plpgsql
 SET search_path TO @schema@, pg_temp
AS $function$
begin
  perform pg_catalog.pg_notify(pg_catalog.concat('outbox_', tg_relid), new.lane::text);
  return null;
end $function$;
revoke all on function @schema@.ring() from public;

--# function server_numbers()
--= plpgsql, stable, returns record, arguments OUT xmin_age double precision, OUT dead_tuples bigint, set search_path=@schema@, pg_temp, body 6e7462147fe8350d
CREATE OR REPLACE FUNCTION @schema@.server_numbers(OUT xmin_age double precision, OUT dead_tuples bigint)
 RETURNS record
 LANGUAGE plpgsql
 STABLE
 SET search_path TO @schema@, pg_temp
AS $function$
begin
  begin
    select extract(epoch from clock_timestamp() - min(a.xact_start)) into xmin_age
    from pg_stat_activity as a
    where a.pid <> pg_backend_pid() and a.datname = current_database() and (a.backend_xmin is not null or a.backend_xid is not null);
    xmin_age := coalesce(xmin_age, 0);
  exception when others then
    null;
  end;
  begin
    select greatest(xmin_age, extract(epoch from clock_timestamp() - min(p.prepared))) into xmin_age
    from pg_prepared_xacts as p where p.database = current_database();
  exception when others then
    null;
  end;
  begin
    dead_tuples := pg_stat_get_dead_tuples('event'::regclass);
  exception when others then
    null;
  end;
end $function$;
revoke all on function @schema@.server_numbers() from public;

--# function server_place()
--= plpgsql, stable, security definer, returns record, arguments OUT system_identifier bigint, OUT timeline text, OUT sequence_file text, set search_path=@schema@, pg_temp, body 39a0934f3724f7d1
CREATE OR REPLACE FUNCTION @schema@.server_place(OUT system_identifier bigint, OUT timeline text, OUT sequence_file text)
 RETURNS record
 LANGUAGE plpgsql
 STABLE SECURITY DEFINER
 SET search_path TO @schema@, pg_temp
AS $function$
begin
  begin
    select c.system_identifier into server_place.system_identifier from pg_control_system() as c;
  exception when others then
    system_identifier := 0;
  end;
  begin
    timeline := case when not pg_is_in_recovery() then left(pg_walfile_name(pg_current_wal_lsn()), 8) end;
  exception when others then
    timeline := '';
  end;
  begin
    sequence_file := pg_relation_filepath('event_id_seq'::regclass);
  exception when others then
    sequence_file := '';
  end;
end $function$;
revoke all on function @schema@.server_place() from public;

--# function settle(smallint[], bigint[], uuid[])
--= plpgsql, volatile, security definer, returns record, arguments lanes smallint[], ids bigint[], event_ids uuid[], OUT tick xid8, OUT settled bigint, set enable_bitmapscan=off, set enable_hashjoin=off, set enable_mergejoin=off, set enable_seqscan=off, set search_path=@schema@, pg_temp, body 99fd4e5b87f92fbd
CREATE OR REPLACE FUNCTION @schema@.settle(lanes smallint[], ids bigint[], event_ids uuid[], OUT tick xid8, OUT settled bigint)
 RETURNS record
 LANGUAGE plpgsql
 SECURITY DEFINER
 SET search_path TO @schema@, pg_temp
 SET enable_seqscan TO 'off'
 SET enable_bitmapscan TO 'off'
 SET enable_hashjoin TO 'off'
 SET enable_mergejoin TO 'off'
AS $function$
begin
  tick := pg_current_xact_id();
  delete from event as e
  using (
    select found.ctid
    from unnest(lanes, ids, event_ids) as u (lane, id, event_id)
    cross join lateral (select x.ctid, x.event_id from event as x where x.lane = u.lane and x.id = u.id limit 1) as found
    where found.event_id = u.event_id
  ) as acknowledged
  where e.ctid = acknowledged.ctid;
  get diagnostics settled = row_count;
end $function$;
revoke all on function @schema@.settle(smallint[], bigint[], uuid[]) from public;

--# function settle(smallint[], bigint[], uuid[], tid[])
--= plpgsql, volatile, security definer, returns record, arguments lanes smallint[], ids bigint[], event_ids uuid[], places tid[], OUT tick xid8, OUT settled bigint, set enable_bitmapscan=off, set enable_seqscan=off, set enable_tidscan=on, set search_path=@schema@, pg_temp, set work_mem=4MB, body 0d1d33500dcc1978
CREATE OR REPLACE FUNCTION @schema@.settle(lanes smallint[], ids bigint[], event_ids uuid[], places tid[], OUT tick xid8, OUT settled bigint)
 RETURNS record
 LANGUAGE plpgsql
 SECURITY DEFINER
 SET search_path TO @schema@, pg_temp
 SET enable_tidscan TO 'on'
 SET enable_seqscan TO 'off'
 SET enable_bitmapscan TO 'off'
 SET work_mem TO '4MB'
AS $function$
declare
  elsewhere bigint;
begin
  tick := pg_current_xact_id();
  delete from event as e
  where e.ctid = any (places) and ((e.id, e.event_id) in (select u.id, u.event_id from unnest(ids, event_ids) as u (id, event_id))) is true;
  get diagnostics settled = row_count;
  if settled < cardinality(ids) then
    select again.settled into elsewhere from settle(lanes, ids, event_ids) as again;
    settled := settled + elsewhere;
  end if;
end $function$;
revoke all on function @schema@.settle(smallint[], bigint[], uuid[], tid[]) from public;

--# function skip_parked(text, text)
--= plpgsql, volatile, security definer, returns boolean, arguments topic text, key text, set search_path=@schema@, pg_temp, body d51fc3a5133e6936
CREATE OR REPLACE FUNCTION @schema@.skip_parked(topic text, key text)
 RETURNS boolean
 LANGUAGE plpgsql
 SECURITY DEFINER
 SET search_path TO @schema@, pg_temp
AS $function$
#variable_conflict use_variable
declare
  parked parked_key;
begin
  delete from parked_key as p where p.topic = skip_parked.topic and p.key_digest = key_digest(skip_parked.key) returning p.* into parked;
  if not found then
    return null;
  end if;
  if parked.head_id is null then
    raise exception 'no row of this key has failed: it was parked by hand'
      using errcode = 'object_not_in_prerequisite_state', hint = 'Let it flow again instead: outbox-relay parked retry.';
  end if;
  return bury(parked.lane, parked.head_id, parked.head_event_id, topic, parked.class, parked.attempts, parked.first_failed_at);
end $function$;
revoke all on function @schema@.skip_parked(text, text) from public;

--# function text_or_null(bytea)
--= plpgsql, immutable, returns text, arguments bytes bytea, set search_path=@schema@, pg_temp, body 69e1d6efa2215dee
CREATE OR REPLACE FUNCTION @schema@.text_or_null(bytes bytea)
 RETURNS text
 LANGUAGE plpgsql
 IMMUTABLE
 SET search_path TO @schema@, pg_temp
AS $function$
begin
  return convert_from(bytes, 'UTF8');
exception when character_not_in_repertoire or untranslatable_character then
  return null;
end $function$;
revoke all on function @schema@.text_or_null(bytea) from public;

--# function unreadable_column(text, text, text, text, text)
--= plpgsql, stable, returns text, arguments aggregate_type text, aggregate_id text, event_type text, event_key text, headers text, set search_path=@schema@, pg_temp, body d4ebc10912180eaa
CREATE OR REPLACE FUNCTION @schema@.unreadable_column(aggregate_type text, aggregate_id text, event_type text, event_key text, headers text)
 RETURNS text
 LANGUAGE plpgsql
 STABLE
 SET search_path TO @schema@, pg_temp
AS $function$
begin
  perform convert_to(concat_ws(e'\n', aggregate_type, aggregate_id, event_type, event_key, headers), 'UTF8');
  return null;
exception when character_not_in_repertoire or untranslatable_character then
  return case
    when readable_text(event_key) <> event_key then 'event_key'
    when readable_text(aggregate_id) <> aggregate_id then 'aggregate_id'
    when readable_text(event_type) <> event_type then 'event_type'
    when readable_text(aggregate_type) <> aggregate_type then 'aggregate_type'
    else 'headers'
  end;
end $function$;
revoke all on function @schema@.unreadable_column(text, text, text, text, text) from public;

--# table adopted
--= ordinary, logged, no row security
alter table if exists @schema@.adopted set logged, disable row level security, no force row level security;

--# table dead_letter
--= ordinary, logged, no row security
alter table if exists @schema@.dead_letter set logged, disable row level security, no force row level security;

--# table event
--= ordinary, logged, no row security
alter table if exists @schema@.event set logged, disable row level security, no force row level security;

--# table grantee
--= ordinary, logged, no row security
alter table if exists @schema@.grantee set logged, disable row level security, no force row level security;

--# table lane
--= ordinary, logged, no row security
alter table if exists @schema@.lane set logged, disable row level security, no force row level security;

--# table origin
--= ordinary, logged, no row security
alter table if exists @schema@.origin set logged, disable row level security, no force row level security;

--# table owner
--= ordinary, logged, no row security
alter table if exists @schema@.owner set logged, disable row level security, no force row level security;

--# table parked_key
--= ordinary, logged, no row security
alter table if exists @schema@.parked_key set logged, disable row level security, no force row level security;

--# table parked_topic
--= ordinary, logged, no row security
alter table if exists @schema@.parked_topic set logged, disable row level security, no force row level security;

--# table relay
--= ordinary, logged, no row security
alter table if exists @schema@.relay set logged, disable row level security, no force row level security;

--# table schema_migrations
--= ordinary, logged, no row security
alter table if exists @schema@.schema_migrations set logged, disable row level security, no force row level security;

--# column adopted.changed_at
--= timestamp with time zone, not null
alter table @schema@.adopted add column if not exists changed_at timestamp with time zone default clock_timestamp();
alter table @schema@.adopted alter column changed_at set not null;

--# column adopted.definition
--= text, not null
alter table @schema@.adopted add column if not exists definition text;
alter table @schema@.adopted alter column definition set not null;

--# column adopted.key_columns
--= text[], not null
alter table @schema@.adopted add column if not exists key_columns text[];
alter table @schema@.adopted alter column key_columns set not null;

--# column adopted.published_column
--= text, null
alter table @schema@.adopted add column if not exists published_column text;
alter table @schema@.adopted alter column published_column drop not null;

--# column adopted.purge_block
--= bigint, not null
alter table @schema@.adopted add column if not exists purge_block bigint default 0;
alter table @schema@.adopted alter column purge_block set not null;

--# column adopted.retain
--= interval, null
alter table @schema@.adopted add column if not exists retain interval;
alter table @schema@.adopted alter column retain drop not null;

--# column adopted.source
--= smallint, not null
alter table @schema@.adopted add column if not exists source smallint;
alter table @schema@.adopted alter column source set not null;

--# column adopted.state
--= text, not null
alter table @schema@.adopted add column if not exists state text default 'Adopted'::text;
alter table @schema@.adopted alter column state set not null;

--# column adopted.table_name
--= text, not null
alter table @schema@.adopted add column if not exists table_name text;
alter table @schema@.adopted alter column table_name set not null;

--# column adopted.table_schema
--= text, not null
alter table @schema@.adopted add column if not exists table_schema text;
alter table @schema@.adopted alter column table_schema set not null;

--# column dead_letter.aggregate_id
--= text, not null
alter table @schema@.dead_letter add column if not exists aggregate_id text;
alter table @schema@.dead_letter alter column aggregate_id set not null;

--# column dead_letter.aggregate_type
--= text, not null
alter table @schema@.dead_letter add column if not exists aggregate_type text;
alter table @schema@.dead_letter alter column aggregate_type set not null;

--# column dead_letter.attempts
--= integer, not null
alter table @schema@.dead_letter add column if not exists attempts integer;
alter table @schema@.dead_letter alter column attempts set not null;

--# column dead_letter.class
--= text, not null
alter table @schema@.dead_letter add column if not exists class text;
alter table @schema@.dead_letter alter column class set not null;

--# column dead_letter.created_at
--= timestamp with time zone, not null
alter table @schema@.dead_letter add column if not exists created_at timestamp with time zone;
alter table @schema@.dead_letter alter column created_at set not null;

--# column dead_letter.destination
--= text, not null
alter table @schema@.dead_letter add column if not exists destination text;
alter table @schema@.dead_letter alter column destination set not null;

--# column dead_letter.event_id
--= uuid, not null
alter table @schema@.dead_letter add column if not exists event_id uuid;
alter table @schema@.dead_letter alter column event_id set not null;

--# column dead_letter.event_key
--= text, null
alter table @schema@.dead_letter add column if not exists event_key text;
alter table @schema@.dead_letter alter column event_key drop not null;

--# column dead_letter.event_type
--= text, not null
alter table @schema@.dead_letter add column if not exists event_type text;
alter table @schema@.dead_letter alter column event_type set not null;

--# column dead_letter.failed_at
--= timestamp with time zone, not null
alter table @schema@.dead_letter add column if not exists failed_at timestamp with time zone default clock_timestamp();
alter table @schema@.dead_letter alter column failed_at set not null;

--# column dead_letter.first_failed_at
--= timestamp with time zone, not null
alter table @schema@.dead_letter add column if not exists first_failed_at timestamp with time zone;
alter table @schema@.dead_letter alter column first_failed_at set not null;

--# column dead_letter.headers
--= jsonb, not null
alter table @schema@.dead_letter add column if not exists headers jsonb;
alter table @schema@.dead_letter alter column headers set not null;

--# column dead_letter.id
--= bigint, not null
alter table @schema@.dead_letter add column if not exists id bigint;
alter table @schema@.dead_letter alter column id set not null;

--# column dead_letter.lane
--= smallint, not null
alter table @schema@.dead_letter add column if not exists lane smallint;
alter table @schema@.dead_letter alter column lane set not null;

--# column dead_letter.payload
--= bytea, null
alter table @schema@.dead_letter add column if not exists payload bytea;
alter table @schema@.dead_letter alter column payload drop not null;

--# column dead_letter.source
--= smallint, null
alter table @schema@.dead_letter add column if not exists source smallint;
alter table @schema@.dead_letter alter column source drop not null;

--# column dead_letter.source_key
--= jsonb, null
alter table @schema@.dead_letter add column if not exists source_key jsonb;
alter table @schema@.dead_letter alter column source_key drop not null;

--# column dead_letter.topic
--= text, null
alter table @schema@.dead_letter add column if not exists topic text;
alter table @schema@.dead_letter alter column topic drop not null;

--# column event.aggregate_id
--= text, not null
alter table @schema@.event add column if not exists aggregate_id text;
alter table @schema@.event alter column aggregate_id set not null;

--# column event.aggregate_type
--= text, not null
alter table @schema@.event add column if not exists aggregate_type text;
alter table @schema@.event alter column aggregate_type set not null;

--# column event.created_at
--= timestamp with time zone, not null
alter table @schema@.event add column if not exists created_at timestamp with time zone default clock_timestamp();
alter table @schema@.event alter column created_at set not null;

--# column event.event_id
--= uuid, not null
alter table @schema@.event add column if not exists event_id uuid default gen_random_uuid();
alter table @schema@.event alter column event_id set not null;

--# column event.event_key
--= text, null
alter table @schema@.event add column if not exists event_key text;
alter table @schema@.event alter column event_key drop not null;

--# column event.event_type
--= text, not null
alter table @schema@.event add column if not exists event_type text;
alter table @schema@.event alter column event_type set not null;

--# column event.headers
--= jsonb, not null
alter table @schema@.event add column if not exists headers jsonb default '{}'::jsonb;
alter table @schema@.event alter column headers set not null;

--# column event.id
--= bigint, not null, identity always
do $$
begin
  if exists (select from pg_attribute where attrelid = '@schema@.event'::regclass and attname = 'id' and attidentity <> '') then
    alter table @schema@.event alter column id set generated always;
  else
    alter table @schema@.event alter column id drop default;
    alter table @schema@.event alter column id add generated always as identity;
  end if;
end $$;

--# column event.lane
--= smallint, not null, generated
alter table @schema@.event add column if not exists lane smallint generated always as (((hashtextextended((COALESCE(event_key, aggregate_id) COLLATE "C"), (0)::bigint) & (63)::bigint))::smallint) stored;
alter table @schema@.event alter column lane set not null;

--# column event.payload
--= bytea, null
alter table @schema@.event add column if not exists payload bytea;
alter table @schema@.event alter column payload drop not null;

--# column event.source
--= smallint, null
alter table @schema@.event add column if not exists source smallint;
alter table @schema@.event alter column source drop not null;

--# column event.source_key
--= jsonb, null
alter table @schema@.event add column if not exists source_key jsonb;
alter table @schema@.event alter column source_key drop not null;

--# column event.topic
--= text, null
alter table @schema@.event add column if not exists topic text;
alter table @schema@.event alter column topic drop not null;

--# column event.xact
--= xid8, not null
alter table @schema@.event alter column xact set not null;

--# column grantee.kind
--= text, not null
alter table @schema@.grantee add column if not exists kind text;
alter table @schema@.grantee alter column kind set not null;

--# column grantee.role
--= text, not null
alter table @schema@.grantee add column if not exists role text;
alter table @schema@.grantee alter column role set not null;

--# column lane.epoch
--= bigint, not null
alter table @schema@.lane add column if not exists epoch bigint default 0;
alter table @schema@.lane alter column epoch set not null;

--# column lane.high_id
--= bigint, not null
alter table @schema@.lane add column if not exists high_id bigint default 0;
alter table @schema@.lane alter column high_id set not null;

--# column lane.lane
--= smallint, not null
alter table @schema@.lane add column if not exists lane smallint;
alter table @schema@.lane alter column lane set not null;

--# column lane.mark
--= bigint, not null
alter table @schema@.lane add column if not exists mark bigint default 0;
alter table @schema@.lane alter column mark set not null;

--# column lane.owner
--= uuid, null
alter table @schema@.lane add column if not exists owner uuid;
alter table @schema@.lane alter column owner drop not null;

--# column origin.incarnation
--= uuid, not null
alter table @schema@.origin add column if not exists incarnation uuid default gen_random_uuid();
alter table @schema@.origin alter column incarnation set not null;

--# column origin.only_row
--= boolean, not null
alter table @schema@.origin add column if not exists only_row boolean default true;
alter table @schema@.origin alter column only_row set not null;

--# column origin.sequence_file
--= text, not null
alter table @schema@.origin add column if not exists sequence_file text;
alter table @schema@.origin alter column sequence_file set not null;

--# column origin.since
--= timestamp with time zone, not null
alter table @schema@.origin add column if not exists since timestamp with time zone default clock_timestamp();
alter table @schema@.origin alter column since set not null;

--# column origin.system_identifier
--= bigint, not null
alter table @schema@.origin add column if not exists system_identifier bigint;
alter table @schema@.origin alter column system_identifier set not null;

--# column origin.timeline
--= text, not null
alter table @schema@.origin add column if not exists timeline text;
alter table @schema@.origin alter column timeline set not null;

--# column owner.cluster
--= text, not null
alter table @schema@.owner add column if not exists cluster text;
alter table @schema@.owner alter column cluster set not null;

--# column owner.name
--= text, not null
alter table @schema@.owner add column if not exists name text;
alter table @schema@.owner alter column name set not null;

--# column owner.namespace
--= text, not null
alter table @schema@.owner add column if not exists namespace text;
alter table @schema@.owner alter column namespace set not null;

--# column owner.only_row
--= boolean, not null
alter table @schema@.owner add column if not exists only_row boolean default true;
alter table @schema@.owner alter column only_row set not null;

--# column parked_key.attempts
--= integer, not null
alter table @schema@.parked_key add column if not exists attempts integer default 1;
alter table @schema@.parked_key alter column attempts set not null;

--# column parked_key.class
--= text, not null
alter table @schema@.parked_key add column if not exists class text;
alter table @schema@.parked_key alter column class set not null;

--# column parked_key.first_failed_at
--= timestamp with time zone, not null
alter table @schema@.parked_key add column if not exists first_failed_at timestamp with time zone default clock_timestamp();
alter table @schema@.parked_key alter column first_failed_at set not null;

--# column parked_key.head_event_id
--= uuid, null
alter table @schema@.parked_key add column if not exists head_event_id uuid;
alter table @schema@.parked_key alter column head_event_id drop not null;

--# column parked_key.head_id
--= bigint, null
alter table @schema@.parked_key add column if not exists head_id bigint;
alter table @schema@.parked_key alter column head_id drop not null;

--# column parked_key.key
--= text, not null
alter table @schema@.parked_key add column if not exists key text;
alter table @schema@.parked_key alter column key set not null;

--# column parked_key.key_digest
--= bytea, not null, generated
alter table @schema@.parked_key add column if not exists key_digest bytea generated always as (@schema@.key_digest(key)) stored;
alter table @schema@.parked_key alter column key_digest set not null;

--# column parked_key.lane
--= smallint, not null
alter table @schema@.parked_key add column if not exists lane smallint;
alter table @schema@.parked_key alter column lane set not null;

--# column parked_key.parked_at
--= timestamp with time zone, not null
alter table @schema@.parked_key add column if not exists parked_at timestamp with time zone default clock_timestamp();
alter table @schema@.parked_key alter column parked_at set not null;

--# column parked_key.topic
--= text, not null
alter table @schema@.parked_key add column if not exists topic text;
alter table @schema@.parked_key alter column topic set not null;

--# column parked_topic.class
--= text, not null
alter table @schema@.parked_topic add column if not exists class text default 'ParkedByHand'::text;
alter table @schema@.parked_topic alter column class set not null;

--# column parked_topic.parked_at
--= timestamp with time zone, not null
alter table @schema@.parked_topic add column if not exists parked_at timestamp with time zone default clock_timestamp();
alter table @schema@.parked_topic alter column parked_at set not null;

--# column parked_topic.topic
--= text, not null
alter table @schema@.parked_topic add column if not exists topic text;
alter table @schema@.parked_topic alter column topic set not null;

--# column relay.breaker
--= text, not null
alter table @schema@.relay add column if not exists breaker text default 'Closed'::text;
alter table @schema@.relay alter column breaker set not null;

--# column relay.instance
--= uuid, not null
alter table @schema@.relay add column if not exists instance uuid;
alter table @schema@.relay alter column instance set not null;

--# column relay.lease_until
--= timestamp with time zone, not null
alter table @schema@.relay add column if not exists lease_until timestamp with time zone;
alter table @schema@.relay alter column lease_until set not null;

--# column relay.pod
--= text, not null
alter table @schema@.relay add column if not exists pod text;
alter table @schema@.relay alter column pod set not null;

--# column schema_migrations.checksum
--= bytea, not null
alter table @schema@.schema_migrations add column if not exists checksum bytea;
alter table @schema@.schema_migrations alter column checksum set not null;

--# column schema_migrations.compatible_from
--= bigint, not null
alter table @schema@.schema_migrations add column if not exists compatible_from bigint default 1;
alter table @schema@.schema_migrations alter column compatible_from set not null;

--# column schema_migrations.description
--= text, not null
alter table @schema@.schema_migrations add column if not exists description text;
alter table @schema@.schema_migrations alter column description set not null;

--# column schema_migrations.execution_time
--= bigint, not null
alter table @schema@.schema_migrations add column if not exists execution_time bigint;
alter table @schema@.schema_migrations alter column execution_time set not null;

--# column schema_migrations.installed_on
--= timestamp with time zone, not null
alter table @schema@.schema_migrations add column if not exists installed_on timestamp with time zone default now();
alter table @schema@.schema_migrations alter column installed_on set not null;

--# column schema_migrations.success
--= boolean, not null
alter table @schema@.schema_migrations add column if not exists success boolean;
alter table @schema@.schema_migrations alter column success set not null;

--# column schema_migrations.version
--= bigint, not null
alter table @schema@.schema_migrations add column if not exists version bigint;
alter table @schema@.schema_migrations alter column version set not null;

--# default of adopted.changed_at
--= clock_timestamp()
alter table @schema@.adopted alter column changed_at set default clock_timestamp();

--# default of adopted.purge_block
--= 0
alter table @schema@.adopted alter column purge_block set default 0;

--# default of adopted.state
--= 'Adopted'::text
alter table @schema@.adopted alter column state set default 'Adopted'::text;

--# default of dead_letter.failed_at
--= clock_timestamp()
alter table @schema@.dead_letter alter column failed_at set default clock_timestamp();

--# default of event.created_at
--= clock_timestamp()
alter table @schema@.event alter column created_at set default clock_timestamp();

--# default of event.event_id
--= gen_random_uuid()
alter table @schema@.event alter column event_id set default gen_random_uuid();

--# default of event.headers
--= '{}'::jsonb
alter table @schema@.event alter column headers set default '{}'::jsonb;

--# default of event.xact
--= pg_current_xact_id()
alter table @schema@.event alter column xact set default pg_current_xact_id();

--# default of lane.epoch
--= 0
alter table @schema@.lane alter column epoch set default 0;

--# default of lane.high_id
--= 0
alter table @schema@.lane alter column high_id set default 0;

--# default of lane.mark
--= 0
alter table @schema@.lane alter column mark set default 0;

--# default of origin.incarnation
--= gen_random_uuid()
alter table @schema@.origin alter column incarnation set default gen_random_uuid();

--# default of origin.only_row
--= true
alter table @schema@.origin alter column only_row set default true;

--# default of origin.since
--= clock_timestamp()
alter table @schema@.origin alter column since set default clock_timestamp();

--# default of owner.only_row
--= true
alter table @schema@.owner alter column only_row set default true;

--# default of parked_key.attempts
--= 1
alter table @schema@.parked_key alter column attempts set default 1;

--# default of parked_key.first_failed_at
--= clock_timestamp()
alter table @schema@.parked_key alter column first_failed_at set default clock_timestamp();

--# default of parked_key.parked_at
--= clock_timestamp()
alter table @schema@.parked_key alter column parked_at set default clock_timestamp();

--# default of parked_topic.class
--= 'ParkedByHand'::text
alter table @schema@.parked_topic alter column class set default 'ParkedByHand'::text;

--# default of parked_topic.parked_at
--= clock_timestamp()
alter table @schema@.parked_topic alter column parked_at set default clock_timestamp();

--# default of relay.breaker
--= 'Closed'::text
alter table @schema@.relay alter column breaker set default 'Closed'::text;

--# default of schema_migrations.compatible_from
--= 1
alter table @schema@.schema_migrations alter column compatible_from set default 1;

--# default of schema_migrations.installed_on
--= now()
alter table @schema@.schema_migrations alter column installed_on set default now();

--# expression of event.lane
--= ((hashtextextended((COALESCE(event_key, aggregate_id) COLLATE "C"), (0)::bigint) & (63)::bigint))::smallint
alter table @schema@.event add column if not exists lane smallint generated always as (((hashtextextended((COALESCE(event_key, aggregate_id) COLLATE "C"), (0)::bigint) & (63)::bigint))::smallint) stored;

--# expression of parked_key.key_digest
--= key_digest(key)
alter table @schema@.parked_key add column if not exists key_digest bytea generated always as (@schema@.key_digest(key)) stored;

--# order of columns
--= xact before id


--# index of adopted (source)
--= btree, primary key
alter table @schema@.adopted drop constraint if exists adopted_pkey, add constraint adopted_pkey PRIMARY KEY (source);

--# index of adopted (table_schema, table_name)
--= btree, unique
alter table @schema@.adopted drop constraint if exists adopted_table_schema_table_name_key, add constraint adopted_table_schema_table_name_key UNIQUE (table_schema, table_name);

--# index of dead_letter (event_id, id)
--= btree, primary key, named dead_letter_pkey
alter table @schema@.dead_letter drop constraint if exists dead_letter_pkey, add constraint dead_letter_pkey PRIMARY KEY (event_id, id);

--# index of event (lane, id)
--= btree, primary key
alter table @schema@.event drop constraint if exists event_pkey, add constraint event_pkey PRIMARY KEY (lane, id);

--# index of grantee (role, kind)
--= btree, primary key
alter table @schema@.grantee drop constraint if exists grantee_pkey, add constraint grantee_pkey PRIMARY KEY (role, kind);

--# index of lane (lane)
--= btree, primary key
alter table @schema@.lane drop constraint if exists lane_pkey, add constraint lane_pkey PRIMARY KEY (lane);

--# index of origin (only_row)
--= btree, primary key
alter table @schema@.origin drop constraint if exists origin_pkey, add constraint origin_pkey PRIMARY KEY (only_row);

--# index of owner (only_row)
--= btree, primary key
alter table @schema@.owner drop constraint if exists owner_pkey, add constraint owner_pkey PRIMARY KEY (only_row);

--# index of parked_key (topic, key_digest)
--= btree, primary key, named parked_key_pkey
alter table @schema@.parked_key drop constraint if exists parked_key_pkey, add constraint parked_key_pkey PRIMARY KEY (topic, key_digest);

--# index of parked_topic (topic)
--= btree, primary key
alter table @schema@.parked_topic drop constraint if exists parked_topic_pkey, add constraint parked_topic_pkey PRIMARY KEY (topic);

--# index of relay (instance)
--= btree, primary key
alter table @schema@.relay drop constraint if exists relay_pkey, add constraint relay_pkey PRIMARY KEY (instance);

--# index of schema_migrations (version)
--= btree, primary key
alter table @schema@.schema_migrations drop constraint if exists schema_migrations_pkey, add constraint schema_migrations_pkey PRIMARY KEY (version);

--# constraint adopted_source_check on adopted
--= (source > 0)
alter table @schema@.adopted drop constraint if exists adopted_source_check, add constraint adopted_source_check CHECK ((source > 0)) not valid;

--# constraint adopted_state_check on adopted
--= (state = ANY (ARRAY['Draining'::text, 'Adopted'::text, 'Released'::text]))
alter table @schema@.adopted drop constraint if exists adopted_state_check, add constraint adopted_state_check CHECK ((state = ANY (ARRAY['Draining'::text, 'Adopted'::text, 'Released'::text]))) not valid;

--# constraint class_is_a_name on dead_letter
--= (class ~ '^[A-Za-z]{1,64}$'::text)
alter table @schema@.dead_letter drop constraint if exists class_is_a_name, add constraint class_is_a_name CHECK ((class ~ '^[A-Za-z]{1,64}$'::text)) not valid;

--# constraint class_is_a_name on parked_key
--= (class ~ '^[A-Za-z]{1,64}$'::text)
alter table @schema@.parked_key drop constraint if exists class_is_a_name, add constraint class_is_a_name CHECK ((class ~ '^[A-Za-z]{1,64}$'::text)) not valid;

--# constraint class_is_a_name on parked_topic
--= (class ~ '^[A-Za-z]{1,64}$'::text)
alter table @schema@.parked_topic drop constraint if exists class_is_a_name, add constraint class_is_a_name CHECK ((class ~ '^[A-Za-z]{1,64}$'::text)) not valid;

--# constraint grantee_kind_check on grantee
--= (kind = ANY (ARRAY['producer'::text, 'relay'::text]))
alter table @schema@.grantee drop constraint if exists grantee_kind_check, add constraint grantee_kind_check CHECK ((kind = ANY (ARRAY['producer'::text, 'relay'::text]))) not valid;

--# constraint headers_are_an_object on event
--= (jsonb_typeof(headers) = 'object'::text)
alter table @schema@.event drop constraint if exists headers_are_an_object, add constraint headers_are_an_object CHECK ((jsonb_typeof(headers) = 'object'::text)) not valid;

--# constraint lane_lane_check on lane
--= ((lane >= 0) AND (lane <= 63))
alter table @schema@.lane drop constraint if exists lane_lane_check, add constraint lane_lane_check CHECK (((lane >= 0) AND (lane <= 63))) not valid;

--# constraint origin_only_row_check on origin
--= only_row
alter table @schema@.origin drop constraint if exists origin_only_row_check, add constraint origin_only_row_check CHECK (only_row) not valid;

--# constraint owner_only_row_check on owner
--= only_row
alter table @schema@.owner drop constraint if exists owner_only_row_check, add constraint owner_only_row_check CHECK (only_row) not valid;

--# constraint parked_key_check on parked_key
--= ((head_id IS NULL) = (head_event_id IS NULL))
alter table @schema@.parked_key drop constraint if exists parked_key_check, add constraint parked_key_check CHECK (((head_id IS NULL) = (head_event_id IS NULL))) not valid;

--# constraint parked_key_lane_check on parked_key
--= ((lane >= 0) AND (lane <= 63))
alter table @schema@.parked_key drop constraint if exists parked_key_lane_check, add constraint parked_key_lane_check CHECK (((lane >= 0) AND (lane <= 63))) not valid;

--# constraint topic_is_a_kafka_name on event
--= ((length(topic) <= 249) AND (topic ~ '^[a-zA-Z0-9._-]+$'::text) AND (topic <> ALL (ARRAY['.'::text, '..'::text])))
alter table @schema@.event drop constraint if exists topic_is_a_kafka_name, add constraint topic_is_a_kafka_name CHECK (((length(topic) <= 249) AND (topic ~ '^[a-zA-Z0-9._-]+$'::text) AND (topic <> ALL (ARRAY['.'::text, '..'::text])))) not valid;

--# constraint topic_is_a_kafka_name on parked_topic
--= ((topic ~ '^[a-zA-Z0-9._-]{1,249}$'::text) AND (topic <> ALL (ARRAY['.'::text, '..'::text])))
alter table @schema@.parked_topic drop constraint if exists topic_is_a_kafka_name, add constraint topic_is_a_kafka_name CHECK (((topic ~ '^[a-zA-Z0-9._-]{1,249}$'::text) AND (topic <> ALL (ARRAY['.'::text, '..'::text])))) not valid;

--# view pending
--= 950516e7e4b13ec9
create or replace view @schema@.pending as
SELECT event.id AS outbox_seq,
    event.lane,
    event.event_id,
    COALESCE(event.event_key, event.aggregate_id) AS key,
    event.topic,
    event.event_type,
    event.aggregate_type,
    event.aggregate_id,
    event.headers,
    @schema@.text_or_null(event.payload) AS payload_text,
    octet_length(event.payload) AS payload_bytes,
    event.created_at
   FROM @schema@.event;

--# view sequence_state
--= 8ff22d857f2dee73
create or replace view @schema@.sequence_state as
SELECT
        CASE
            WHEN ((here.timeline IS NOT NULL) AND ((o.system_identifier = here.system_identifier) OR (o.system_identifier = 0) OR (here.system_identifier = 0)) AND ((o.timeline = here.timeline) OR (o.timeline = ''::text) OR (here.timeline = ''::text)) AND ((o.sequence_file = here.sequence_file) OR (o.sequence_file = ''::text) OR (here.sequence_file = ''::text))) THEN o.incarnation
            ELSE NULL::uuid
        END AS incarnation,
    (s.last_value - ((NOT s.is_called))::integer) AS "position",
    here.system_identifier,
    here.timeline,
    here.sequence_file
   FROM ((@schema@.event_id_seq s
     CROSS JOIN LATERAL @schema@.server_place() here(system_identifier, timeline, sequence_file))
     LEFT JOIN @schema@.origin o ON (true));

--# trigger ring on event
--= enabled, AFTER INSERT ON event FOR EACH ROW WHEN ((NOT pg_try_advisory_xact_lock_shared((new.tableoid)::integer, (new.lane)::integer))) EXECUTE FUNCTION ring()
create or replace trigger ring AFTER INSERT ON @schema@.event FOR EACH ROW WHEN ((NOT pg_try_advisory_xact_lock_shared((new.tableoid)::integer, (new.lane)::integer))) EXECUTE FUNCTION @schema@.ring();
alter table @schema@.event enable trigger ring;

--# rows of lane
--= 64 from 0 to 63
insert into @schema@.lane (lane) select generate_series(0, 63) on conflict do nothing;

--# sequence event_id_seq
--= bigint, increment 1, minimum 1, maximum 9223372036854775807, cache 1, no cycle, logged, of event.id
do $$
declare
  drawn bigint;
begin
  if to_regclass('@schema@.event_id_seq') is not null then
    select last_value into drawn from @schema@.event_id_seq;
    alter sequence @schema@.event_id_seq as bigint increment by 1 minvalue 1 maxvalue 9223372036854775807 cache 1 no cycle start with 1 restart;
    perform @schema@.resume_sequence(known => drawn);
  end if;
end $$;
