-- For each thing that the migrations made, the statements that make it again, from a schema that
-- was just migrated. Empty: nothing can, for example because data would be needed.
with home as (select c.relnamespace as oid from pg_class as c where c.oid = '@schema@.event'::regclass),
relation as (select c.*, format('@schema@.%I', c.relname) as target from pg_class as c join home on c.relnamespace = home.oid),
attribute as (
  select
    r.target, a.attname, format('%s.%s', r.relname, a.attname) as name, format_type(a.atttypid, a.atttypmod) as type, a.attnotnull,
    a.attidentity, a.attgenerated, pg_get_expr(d.adbin, d.adrelid) as expression
  from relation as r
  join pg_attribute as a on a.attrelid = r.oid and a.attnum > 0 and not a.attisdropped
  left join pg_attrdef as d on d.adrelid = a.attrelid and d.adnum = a.attnum
  where r.relkind = 'r'
),
repairs (rank, name, repair) as (
  select
    1, format('function %s(%s)', p.proname, oidvectortypes(p.proargtypes)),
    trim(e'\n' from pg_get_functiondef(p.oid)) || ';' || case
      when not has_function_privilege('public', p.oid, 'execute') then
        format(E'\nrevoke all on function @schema@.%I(%s) from public;', p.proname, oidvectortypes(p.proargtypes))
      else ''
    end
  from pg_proc as p join home on p.pronamespace = home.oid
  union all
  select
    2, format('table %s', r.relname),
    format('alter table if exists %s set logged, disable row level security, no force row level security;', r.target)
  from relation as r where r.relkind = 'r'
  union all
  select
    3, format('column %s', a.name),
    case
      when a.name = 'event.xact' then format('alter table %s alter column xact set not null;', a.target)
      when a.attidentity <> '' then
        format(
          'do $$
begin
  if exists (select from pg_attribute where attrelid = ''%1$s''::regclass and attname = %2$L and attidentity <> '''') then
    alter table %1$s alter column %3$s set generated always;
  else
    alter table %1$s alter column %3$s drop default;
    alter table %1$s alter column %3$s add generated always as identity;
  end if;
end $$;', a.target, a.attname, a.attname
        )
      else
        format(
          E'alter table %1$s add column if not exists %2$I %3$s%4$s;\nalter table %1$s alter column %2$I %5$s not null;', a.target, a.attname,
          a.type,
          case when a.attgenerated <> '' then format(' generated always as (%s) stored', a.expression) else ' default ' || a.expression end,
          case when a.attnotnull then 'set' else 'drop' end
        )
    end
  from attribute as a
  union all
  select
    5, format('default of %s', a.name), format('alter table %s alter column %I set default %s;', a.target, a.attname, a.expression)
  from attribute as a where a.expression is not null and a.attgenerated = ''
  union all
  select
    5, format('expression of %s', a.name),
    format('alter table %s add column if not exists %I %s generated always as (%s) stored;', a.target, a.attname, a.type, a.expression)
  from attribute as a where a.attgenerated <> ''
  union all
  select 5, 'order of columns', ''
  union all
  select
    6,
    format(
      'index of %s (%s)', r.relname,
      (
        select string_agg(pg_get_indexdef(i.indexrelid, n::int, false), ', ' order by n)
        from generate_series(1, i.indnkeyatts) as n
      )
    ),
    format('alter table %s drop constraint if exists %I, add constraint %2$I %s;', r.target, k.conname, pg_get_constraintdef(k.oid))
  from relation as r
  join pg_index as i on i.indrelid = r.oid
  join pg_constraint as k on k.conindid = i.indexrelid and k.conrelid = r.oid
  union all
  select
    7, format('constraint %s on %s', k.conname, r.relname),
    format(
      'alter table %s drop constraint if exists %I, add constraint %2$I %s not valid;', r.target, k.conname,
      regexp_replace(pg_get_constraintdef(k.oid), ' NOT VALID$', '')
    )
  from relation as r join pg_constraint as k on k.conrelid = r.oid and k.contype = 'c'
  union all
  select 8, format('view %s', r.relname), format(E'create or replace view %s as\n%s', r.target, trim(pg_get_viewdef(r.oid)))
  from relation as r where r.relkind = 'v'
  union all
  select
    9, format('trigger %s on %s', t.tgname, r.relname),
    format(
      E'%s;\nalter table %s enable trigger %I;', regexp_replace(pg_get_triggerdef(t.oid), '^CREATE TRIGGER', 'create or replace trigger'),
      r.target, t.tgname
    )
  from relation as r join pg_trigger as t on t.tgrelid = r.oid and not t.tgisinternal
  union all
  -- Ids may have been drawn in another order than rows were committed: rows get new ones, in the
  -- order of their times, as after a sequence that began again.
  select
    11, format('sequence %s', r.relname),
    format(
      'do $$
declare
  drawn bigint;
begin
  if to_regclass(%1$L) is not null then
    select last_value into drawn from %1$s;
    alter sequence %1$s as %2$s increment by %3$s minvalue %4$s maxvalue %5$s cache %6$s %7$s start with %8$s restart;
    perform @schema@.resume_sequence(known => drawn);
  end if;
end $$;', r.target, format_type(s.seqtypid, null), s.seqincrement, s.seqmin, s.seqmax, s.seqcache,
      case when s.seqcycle then 'cycle' else 'no cycle' end, s.seqstart
    )
  from relation as r join pg_sequence as s on s.seqrelid = r.oid
  union all
  select 10, 'rows of lane', 'insert into @schema@.lane (lane) select generate_series(0, 63) on conflict do nothing;'
)
select name, replace(repair, format('%L, %L', '@schema@', 'pg_temp'), '@schema@, pg_temp') as repair
from repairs order by rank, name collate "C"
