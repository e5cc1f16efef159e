-- Marks each new row of @table@ as published, so that its old worker leaves it alone. The value is
-- one that a service does not insert: it tells @add@ that the row came without one.
create or replace function @schema@.@mark@() returns trigger
language plpgsql volatile
as $adopt$
begin
  new.@published@ := @marked@;
  return new;
end $adopt$;
revoke all on function @schema@.@mark@() from public;
