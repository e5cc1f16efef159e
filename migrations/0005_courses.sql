-- Three ways in which ids came twice although resume_sequence() had run:
--
-- * A restore took back what a resume had done, after its rows were published, and no process that knew was left. The next resume began from
--   the same state, and gave the same ids. So ids now follow the clock: 2^22 for each second since 2026, more than anybody draws, and exact as
--   doubles until 2094. Two courses share none, whatever the database forgot. Where ids are ahead of the clock they go 2^32 further, as before.
-- * A resume failed after setval(), which no rollback takes back: the sequence stood high, and nothing told any more that it had gone back.
--   ALTER SEQUENCE RESTART is part of the transaction. It makes a new file, which `origin` has to know.
-- * A failover came between TRUNCATE .. RESTART IDENTITY and the resume: the timeline was another one, so the new file was not taken for what
--   it was, and rows below the lanes' high_id kept ids that were used. In the same cluster a new file means that ids began again.
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
