-- Turns each new row of @table@ into a row of event.
create or replace function @schema@.@add@() returns trigger
language plpgsql volatile security definer set search_path = @schema@, pg_temp
as $adopt$
@declare@
begin
@body@
  return null;
end $adopt$;
revoke all on function @schema@.@add@() from public;
