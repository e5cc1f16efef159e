create or replace function @schema@.@move@(rows_max bigint) returns bigint
language plpgsql volatile set search_path = @schema@, pg_temp
as $adopt$
@declare@
  old_row @table@;
  moved bigint := 0;
begin
  for old_row in
    select r.* from @table@ as r where @waiting@ order by @order@ limit rows_max @locking@
  loop
    a_payload := null; a_headers := null; a_topic := null; a_event_key := null; a_event_id := null;
    a_aggregate_type := null; a_aggregate_id := null; a_event_type := null; a_created_at := null; fault := null;
    has_key := true;
@body@
    update @table@ as t set @published@ = @marked@ where @same_key@;
    moved := moved + 1;
  end loop;
  return moved;
end $adopt$;
revoke all on function @schema@.@move@(bigint) from public;
