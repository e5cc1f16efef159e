-- Marks each new row of @table@ as published, so that its old worker leaves it alone. The value is
-- one that a service does not insert: it tells @add@ that the row came without one. A row that comes
-- with that value is a copy of one that was marked in the same transaction: an update has moved it to
-- another partition. It gets another value, so it is no second event.
--
-- Names of pg_catalog have their schema, for the search path is that of the session.
create or replace function @schema@.@mark@() returns trigger
language plpgsql volatile
as $adopt$
begin
  if new.@published@ is null then
    new.@published@ := @marked@;
  else
    new.@published@ := new.@published@ operator(pg_catalog.+) '1 microsecond'::pg_catalog.interval;
  end if;
  return new;
end $adopt$;
revoke all on function @schema@.@mark@() from public;
