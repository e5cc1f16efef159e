-- Why: ids that come again. After a restore, a failover that lost commits, or TRUNCATE .. RESTART IDENTITY the sequence of `event` stands
-- behind ids that were published already. Consumers would take the next events for old ones and drop them, and marks would skip them. So
-- the outbox knows where it lives, relays see at once when that is another place or the sequence went back, and resume_sequence() moves it on.
--
-- Relays of level 2 can go on beside it, so compatible_from stays: they do not notice, as before, and lose their marks to those that do.

create table origin (
  only_row boolean primary key default true check (only_row),
  system_identifier bigint not null,
  timeline text not null,
  sequence_file text not null,
  incarnation uuid not null default gen_random_uuid(),
  since timestamptz not null default clock_timestamp()
);
comment on table origin is 'Where this outbox lived when its sequence was last known to be right.';
comment on column origin.system_identifier is 'Of the cluster: another one after a restore of a dump, or pg_upgrade.';
comment on column origin.timeline is 'Another one after a failover or a recovery to a point in time, as in names of WAL files.';
comment on column origin.sequence_file is 'Another one after TRUNCATE .. RESTART IDENTITY, or a restore into the same cluster.';
comment on column origin.incarnation is 'Another one each time that resume_sequence() has moved the sequence on; what relays knew before counts no more.';

-- What each fetch asks. No incarnation: the outbox lives elsewhere than it did. On a standby nothing is known.
create view sequence_state as
select
  case
    when (o.system_identifier, o.timeline, o.sequence_file) = (here.system_identifier, here.timeline, here.sequence_file) then o.incarnation
  end as incarnation,
  s.last_value - (not s.is_called)::int as position,
  here.*
from event_id_seq as s
cross join lateral (
  select
    (pg_control_system()).system_identifier,
    case when not pg_is_in_recovery() then left(pg_walfile_name(pg_current_wal_lsn()), 8) end as timeline,
    pg_relation_filepath('event_id_seq'::regclass) as sequence_file
) as here
left join origin as o on true;
comment on view sequence_state is 'Where the outbox lives, and the last id that was drawn. incarnation is null when it lived elsewhere before: see resume_sequence().';

insert into origin (system_identifier, timeline, sequence_file) select system_identifier, timeline, sequence_file from sequence_state;

comment on column lane.high_id is 'Highest id that was drawn when an owner last wrote here.';

-- Moves the sequence above all ids that anybody may have seen, and gives waiting rows whose ids may be used already new ones, in their order.
-- Does nothing when all is well, so that any relay may call it at any time; `known` is the highest id that the caller has seen. `anyway`: for
-- people who know more, such as that the disk is an older copy.
--
-- Which rows move: ids up to the lanes' highest high_id were drawn before the outbox came here, so those rows are what they were. All above
-- move, and so stay behind them. If ids began again from below even that, all rows move; and if rows of before wait above the sequence, ids
-- say nothing of the order, and it is that of the inserts. Writers wait meanwhile; no id is drawn outside of an insert.
create function resume_sequence(
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
    or (home.system_identifier, home.timeline) = (here.system_identifier, here.timeline) and home.sequence_file <> here.sequence_file
  then
    unmoved := 0;
  end if;
  highest := greatest(highest, was_at);

  with gone as (
    delete from event where id > unmoved returning *
  ),
  renamed as (
    select gone.*, highest + 4294967296 + row_number() over (order by case when top > was_at then gone.created_at end, gone.id) as new_id from gone
  ),
  added as (
    insert into event (id, event_id, aggregate_type, aggregate_id, event_type, topic, event_key, payload, headers, created_at)
    overriding system value
    select new_id, event_id, aggregate_type, aggregate_id, event_type, topic, event_key, payload, headers, created_at from renamed
  ),
  heads as (
    update parked_key as p set head_id = renamed.new_id
    from renamed
    where p.lane = renamed.lane and p.head_id = renamed.id and p.head_event_id = renamed.event_id
  )
  select count(*) into moved from renamed;
  perform setval('event_id_seq', highest + 4294967296 + moved);

  -- Last, for renewals wait for it. A mark of before may skip what is here now.
  lock table lane in share row exclusive mode;
  update lane set mark = 0, high_id = highest + 4294967296 + moved;
  insert into origin as o (system_identifier, timeline, sequence_file) values (here.system_identifier, here.timeline, here.sequence_file)
  on conflict (only_row) do update
  set system_identifier = excluded.system_identifier, timeline = excluded.timeline, sequence_file = excluded.sequence_file,
    incarnation = excluded.incarnation, since = excluded.since;
end $$;
comment on function resume_sequence is
  'Moves the sequence on when ids came again: see docs/restore.md. resumed: it did; moved: so many rows got new ids. Safe to call at any time.';

revoke all on function resume_sequence(bigint, boolean) from public;
