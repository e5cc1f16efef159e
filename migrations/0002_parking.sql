-- Why: rows that Kafka will not take. A row that is refused for its own sake must not hold up others, must not be lost, and must not be
-- overtaken by later rows of its key unless the manifest or a person says so. Its key is parked (later rows wait in `event`), or the row
-- moves to `dead_letter`; people bring it back, or discard it.
--
-- Nothing here is on the relay's hot path: parked rows stay where they are, and `event` keeps its one index. Relays of level 1 can go on
-- beside it, so compatible_from stays: they stop the whole topic at such a row, and never send one of its key before it.

-- A key can be longer than an entry of an index may be, and a key that is too long for Kafka is just what gets parked.
create function key_digest(key text) returns bytea
language plpgsql immutable set search_path from current
as $$
begin
  return sha256(convert_to(key, 'UTF8'));
end $$;

create table parked_key (
  topic text not null,
  key text not null,
  key_digest bytea not null generated always as (key_digest(key)) stored,
  lane smallint not null check (lane between 0 and 63),
  head_id bigint,
  head_event_id uuid,
  class text not null constraint class_is_a_name check (class ~ '^[A-Za-z]{1,64}$'),
  attempts int not null default 1,
  first_failed_at timestamptz not null default clock_timestamp(),
  parked_at timestamptz not null default clock_timestamp(),
  primary key (topic, key_digest),
  check ((head_id is null) = (head_event_id is null))
) with (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 200);
comment on table parked_key is 'Keys that wait behind a row which Kafka refused; their rows stay in event. The row here gone: they flow again.';
comment on column parked_key.topic is 'Where the rows go, routed or named by the row.';
comment on column parked_key.key is 'Kafka key: event_key, or aggregate_id.';
comment on column parked_key.head_id is 'The row that was refused, with head_event_id; null: parked by hand.';
comment on column parked_key.class is 'Class of the last failure, or ParkedByHand.';

create table parked_topic (
  topic text primary key constraint topic_is_a_kafka_name check (topic ~ '^[a-zA-Z0-9._-]{1,249}$' and topic not in ('.', '..')),
  class text not null default 'ParkedByHand' constraint class_is_a_name check (class ~ '^[A-Za-z]{1,64}$'),
  parked_at timestamptz not null default clock_timestamp()
);
comment on table parked_topic is 'Topics that a person parked: their rows wait in event.';

create table dead_letter (
  id bigint not null,
  lane smallint not null,
  event_id uuid not null,
  aggregate_type text not null,
  aggregate_id text not null,
  event_type text not null,
  topic text,
  destination text not null,
  event_key text,
  payload bytea,
  headers jsonb not null,
  created_at timestamptz not null,
  class text not null constraint class_is_a_name check (class ~ '^[A-Za-z]{1,64}$'),
  attempts int not null,
  first_failed_at timestamptz not null,
  failed_at timestamptz not null default clock_timestamp(),
  -- The producer chooses event_id, so alone it need not be unique.
  primary key (event_id, id)
);
comment on table dead_letter is 'Rows that Kafka refused, taken out of event. They stay until a person requeues or discards them.';
comment on column dead_letter.id is 'Its outbox_seq when it was refused; requeued it gets a new one.';
comment on column dead_letter.topic is 'As in event: null when the relay routed it.';
comment on column dead_letter.destination is 'The topic that it was meant for.';

do $$
begin
  alter table dead_letter alter column payload set compression lz4;
exception when feature_not_supported then
  null;
end $$;

alter table relay add column breaker text not null default 'Closed';
comment on column relay.breaker is 'State of its circuit breaker, for the other relays.';

-- Parks the key of a refused row. A row that is gone parks nothing: a relay that lost its lane may come too late, and nobody would ever
-- find out what its key waits for. By the one index, as in settle().
create function park_key(topic text, key text, lane smallint, id bigint, event_id uuid, class text) returns void
language plpgsql volatile security definer
set search_path from current set enable_seqscan = off set enable_bitmapscan = off
as $$
#variable_conflict use_variable
begin
  insert into parked_key as p (topic, key, lane, head_id, head_event_id, class)
  select topic, key, lane, id, event_id, class
  from event as e where e.lane = park_key.lane and e.id = park_key.id and e.event_id = park_key.event_id
  on conflict on constraint parked_key_pkey do update
  set head_id = excluded.head_id, head_event_id = excluded.head_event_id, class = excluded.class, attempts = p.attempts + 1;
end $$;
comment on function park_key is 'Parks the (topic, key) of a row that Kafka refused. For the relay alone.';

-- Out of event and into dead_letter in one statement: whoever looks finds the row in one of them. The same row can come again after a
-- restore of event alone; then the later failure counts.
create function bury(
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
    class, attempts, first_failed_at
  )
  select
    gone.id, gone.lane, gone.event_id, gone.aggregate_type, gone.aggregate_id, gone.event_type, gone.topic, destination, gone.event_key,
    gone.payload, gone.headers, gone.created_at, class, attempts, first_failed_at
  from gone
  on conflict on constraint dead_letter_pkey do update
  set destination = excluded.destination, class = excluded.class, attempts = excluded.attempts, failed_at = excluded.failed_at;
  return found;
end $$;
comment on function bury is 'Moves a row that Kafka refused to dead_letter; false: it is not in event any more. For the relay alone.';

-- What follows is for people; who may call it is the owner, or whoever the owner grants it to. A relay may not: a stolen one could bring
-- back what a person has put aside.

-- Takes the refused row out of the way of its key. A row that has gone otherwise is no reason to keep the key parked.
create function skip_parked(topic text, key text) returns boolean
language plpgsql volatile security definer set search_path from current
as $$
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
end $$;
comment on function skip_parked is
  'Moves the refused row of a parked key to dead_letter and lets the key flow again; false: that row was gone; null: the key is not parked.';

-- Dead letters go back as the last rows of their keys: under new ids, drawn under the locks of enqueue(), buckets in ascending order like
-- enqueue_many(). Those of one key keep their order among each other. Only dead letters: a row in event may be on its way to Kafka.
create function requeue_many(event_ids uuid[], ids bigint[]) returns setof bigint
language plpgsql volatile security definer
set search_path from current set enable_seqscan = off set enable_hashjoin = off set enable_mergejoin = off
as $$
begin
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
    insert into event as e (event_id, aggregate_type, aggregate_id, event_type, topic, event_key, payload, headers, created_at)
    select event_id, aggregate_type, aggregate_id, event_type, topic, event_key, payload, headers, created_at from gone order by gone.id
    returning e.id
  )
  select added.id from added order by 1;
end $$;
comment on function requeue_many is 'Moves these dead letters, each named by event_id and id, back into event; returns their new ids.';

create function requeue(event_id uuid) returns bigint
language sql volatile security definer set search_path from current
as $$
  select new_id
  from (select d.event_id, d.id from dead_letter as d where d.event_id = requeue.event_id order by d.id limit 1) as letter,
    requeue_many(array[letter.event_id], array[letter.id]) as new_id
$$;
comment on function requeue is
  'Moves a dead letter back into event, with the same event_id and as the last row of its key; returns its new outbox_seq, null: there is none.';

revoke all on function
  key_digest(text), park_key(text, text, smallint, bigint, uuid, text), bury(smallint, bigint, uuid, text, text, int, timestamptz),
  skip_parked(text, text), requeue_many(uuid[], bigint[]), requeue(uuid)
from public;
