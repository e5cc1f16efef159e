create or replace function pg_temp.@check@() returns table (o_fault text, o_topic text, o_number bigint)
language plpgsql volatile set search_path = @schema@, pg_temp
as $adopt$
@declare@
  old_row @table@;
  counts jsonb := '{}';
  counted text;
begin
  for old_row in select r.* from @table@ as r where @waiting@ loop
    a_topic := null; fault := null;
@convert@
    if fault is not null@fallback_condition@ then
@fallback@
    end if;
    if fault like 'SQLSTATE%' then
@alone@
    end if;
    counted := jsonb_build_array(fault, a_topic)::text;
    counts := jsonb_set(counts, array[counted], to_jsonb(coalesce((counts ->> counted)::bigint, 0) + 1));
  end loop;
  return query
  select c.key::jsonb ->> 0, c.key::jsonb ->> 1, c.value::bigint from jsonb_each_text(counts) as c (key, value) order by 3 desc, 1, 2;
end $adopt$;
