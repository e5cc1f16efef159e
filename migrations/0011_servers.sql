-- Servers that refuse a question. A managed or hardened server may have no pg_control_system(), no
-- position in the WAL, or no view of sessions, or may not let the owner of this schema ask. Each
-- such fact costs only what it is for:
--
-- * Unknown facts about where the outbox is are 0 or '', and fit every value. What else is known is
--   still compared, and so is the position of the sequence.
-- * Unknown numbers of the whole table are null.
--
-- Relays of level 9 can run beside it, so compatible_from stays.

-- Where this outbox is. A security definer, so what is known does not depend on who asks. Who reads
-- the view needs the right to call it. timeline is null on a standby.
create function server_place(out system_identifier bigint, out timeline text, out sequence_file text)
language plpgsql stable security definer set search_path from current
as $$
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
end $$;
comment on function server_place is 'Where the outbox is, as far as the server says: 0 and empty texts are unknown. For view sequence_state.';
revoke all on function server_place() from public;

create or replace view sequence_state as
select
  case
    when
      here.timeline is not null
      and (o.system_identifier = here.system_identifier or o.system_identifier = 0 or here.system_identifier = 0)
      and (o.timeline = here.timeline or o.timeline = '' or here.timeline = '')
      and (o.sequence_file = here.sequence_file or o.sequence_file = '' or here.sequence_file = '')
    then o.incarnation
  end as incarnation,
  s.last_value - (not s.is_called)::int as position,
  here.system_identifier, here.timeline, here.sequence_file
from event_id_seq as s
cross join lateral server_place() as here
left join origin as o on true;

-- What could not be asked when the schema was made.
update origin as o
set
  system_identifier = case when o.system_identifier = 0 then here.system_identifier else o.system_identifier end,
  timeline = case when o.timeline = '' then coalesce(here.timeline, '') else o.timeline end,
  sequence_file = case when o.sequence_file = '' then here.sequence_file else o.sequence_file end
from server_place() as here;

-- The same function, but for its last question.
do $$
declare
  definition text := pg_get_functiondef('resume_sequence(bigint, boolean)'::regprocedure);
  asked text := 'pg_relation_filepath(''event_id_seq''::regclass)';
begin
  if strpos(definition, asked) = 0 then
    raise exception 'resume_sequence() is not the function of migration 7';
  end if;
  execute replace(definition, asked, '(select place.sequence_file from server_place() as place)');
end $$;

-- Numbers that the server counts. Not a security definer: a role with pg_read_all_stats sees more.
create function server_numbers(out xmin_age float8, out dead_tuples bigint)
language plpgsql stable set search_path from current
as $$
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
end $$;
comment on function server_numbers is
  'xmin_age: seconds since the oldest transaction that keeps vacuum from removing dead rows; 0: none. Null: the server does not tell. For the relay.';
revoke all on function server_numbers() from public;
