-- A doorbell instead of a clock: a relay that has nothing to do sleeps, and a row wakes it.
--
-- The lock means asleep. A sleeping relay holds an exclusive advisory lock on each of its lanes. A
-- writer tries to share the lock of its lane and keeps it until its transaction ends, so no relay
-- falls asleep while a row of that lane is still to be committed. If the writer does not get it, a
-- relay sleeps, and the writer rings. While no relay sleeps, nobody rings and this function is not
-- called: the condition of the trigger is all that an insert costs.
--
-- The lock has the oid of this table and the lane. `tableoid` and not a number, so that a table
-- that was restored from a dump has the right one. Each table has a channel of its own, too.
--
-- Neither needs a right: who may insert may ring. A relay of level 7 never sleeps, so nobody rings
-- for it, and compatible_from stays.
create function ring() returns trigger language plpgsql
set search_path from current
as $$
begin
  perform pg_catalog.pg_notify(pg_catalog.concat('outbox_', tg_relid), new.lane::text);
  return null;
end $$;
comment on function ring is 'Wakes the relay that sleeps on the lane of a new row. For the trigger alone.';
revoke all on function ring() from public;

create trigger ring after insert on event for each row
when (not pg_try_advisory_xact_lock_shared(new.tableoid::int, new.lane))
execute function ring();
