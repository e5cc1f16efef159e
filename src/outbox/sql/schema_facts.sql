-- Describes the schema as the catalogs have it: a name for each thing, and how it is. It covers
-- what the migrations make, and what may have been added to table `event`. Expressions are printed
-- by the server: quote_all_identifiers has to be off, and search_path pg_catalog. Two lines have
-- the version of the server and the level of the schema.
with home as (select c.relnamespace as oid from pg_class as c where c.oid = '@schema@.event'::regclass),
relation as (select c.* from pg_class as c join home on c.relnamespace = home.oid),
attribute as (
  select
    a.attrelid, a.attnum, a.attname, a.attidentity, a.attgenerated, format('%s.%s', r.relname, a.attname) as name,
    format_type(a.atttypid, a.atttypmod) as type, a.attnotnull, pg_get_expr(d.adbin, d.adrelid) as expression
  from relation as r
  join pg_attribute as a on a.attrelid = r.oid and a.attnum > 0 and not a.attisdropped
  left join pg_attrdef as d on d.adrelid = a.attrelid and d.adnum = a.attnum
  where r.relkind in ('r', 'p', 'f')
),
routine as (
  select p.*, format('%s(%s)', p.proname, oidvectortypes(p.proargtypes)) as name
  from pg_proc as p join home on p.pronamespace = home.oid
),
facts (name, fact) as (
  select 'server', current_setting('server_version_num')
  union all
  select 'level', coalesce(max(m.version), 0)::text from @schema@.schema_migrations as m where m.success
  union all
  select
    format('table %s', r.relname),
    concat_ws(
      ', ', case r.relkind when 'r' then 'ordinary' when 'p' then 'partitioned' else 'foreign' end,
      case r.relpersistence when 'p' then 'logged' else 'unlogged' end,
      case when r.relforcerowsecurity then 'forced row security' when r.relrowsecurity then 'row security' else 'no row security' end,
      case when r.relispartition then 'partition of another table' end
    )
  from relation as r where r.relkind in ('r', 'p', 'f')
  union all
  select
    format('column %s', a.name),
    concat_ws(
      ', ', a.type, case when a.attnotnull then 'not null' else 'null' end,
      case a.attidentity when 'a' then 'identity always' when 'd' then 'identity by default' end,
      case when a.attgenerated <> '' then 'generated' end
    )
  from attribute as a
  union all
  -- Defaults are evaluated in the order of columns: a transaction has its xid before it draws an id.
  select 'order of columns', string_agg(a.attname, ' before ' order by a.attnum)
  from attribute as a
  where a.attrelid = '@schema@.event'::regclass and a.attname in ('xact', 'id')
  union all
  select format(case when a.attgenerated = '' then 'default of %s' else 'expression of %s' end, a.name), a.expression
  from attribute as a where a.expression is not null
  union all
  select
    format('sequence %s', r.relname),
    concat_ws(
      ', ', format_type(s.seqtypid, null), 'increment ' || s.seqincrement, 'minimum ' || s.seqmin, 'maximum ' || s.seqmax,
      'cache ' || s.seqcache, case when s.seqcycle then 'cycle' else 'no cycle' end,
      case r.relpersistence when 'p' then 'logged' else 'unlogged' end,
      'of ' || (
        select string_agg(a.name, ' ') from pg_depend as d
        join attribute as a on a.attrelid = d.refobjid and a.attnum = d.refobjsubid
        where d.classid = 'pg_class'::regclass and d.objid = r.oid and d.refclassid = 'pg_class'::regclass and d.deptype in ('a', 'i')
      )
    )
  from relation as r join pg_sequence as s on s.seqrelid = r.oid
  union all
  -- A name counts only where a function uses it.
  select
    format(
      'index of %s (%s)', r.relname,
      (
        select string_agg(pg_get_indexdef(i.indexrelid, n::int, false), ', ' order by n)
        from generate_series(1, i.indnkeyatts) as n
      )
    ),
    concat_ws(
      ', ', m.amname, case when i.indisprimary then 'primary key' when i.indisunique then 'unique' else 'not unique' end,
      case when not (i.indisvalid and i.indisready) then 'invalid' end, case when i.indpred is not null then 'partial' end,
      case when i.indisunique and not i.indimmediate then 'deferrable' end,
      case when exists (select from routine as f where f.prosrc like '%on constraint ' || x.relname || ' %') then 'named ' || x.relname end
    )
  from relation as r
  join pg_index as i on i.indrelid = r.oid
  join pg_class as x on x.oid = i.indexrelid
  join pg_am as m on m.oid = x.relam
  union all
  select
    format('constraint %s on %s', k.conname, r.relname),
    case k.contype when 'c' then pg_get_expr(k.conbin, k.conrelid) when 'f' then 'foreign key' else 'exclusion' end
  from relation as r join pg_constraint as k on k.conrelid = r.oid and k.contype in ('c', 'f', 'x')
  union all
  select
    format('trigger %s on %s', t.tgname, r.relname),
    concat_ws(
      ', ', case when t.tgenabled in ('O', 'A') then 'enabled' when t.tgenabled = 'R' then 'enabled on replicas' else 'disabled' end,
      regexp_replace(pg_get_triggerdef(t.oid), '^CREATE (CONSTRAINT )?TRIGGER \S+ ', '')
    )
  from relation as r join pg_trigger as t on t.tgrelid = r.oid and not t.tgisinternal
  union all
  select
    format('function %s', p.name),
    concat_ws(
      ', ', l.lanname, case p.provolatile when 'i' then 'immutable' when 's' then 'stable' else 'volatile' end,
      case when p.prosecdef then 'security definer' end, case when p.proisstrict then 'strict' end,
      'returns ' || pg_get_function_result(p.oid), 'arguments ' || pg_get_function_identity_arguments(p.oid),
      case
        when p.pronargdefaults > 0 then 'defaults ' || left(encode(sha256(convert_to(pg_get_expr(p.proargdefaults, 0), 'UTF8')), 'hex'), 16)
      end,
      (select string_agg('set ' || replace(setting, '"', ''), ', ' order by setting) from unnest(p.proconfig) as setting),
      'body ' || left(encode(sha256(convert_to(p.prosrc, 'UTF8')), 'hex'), 16)
    )
  from routine as p join pg_language as l on l.oid = p.prolang
  union all
  -- Without what versions of the server print in different ways: spaces, parentheses, prefixes.
  select
    format('view %s', r.relname),
    left(encode(sha256(convert_to(regexp_replace(regexp_replace(pg_get_viewdef(r.oid), '\m\w+\.', '', 'g'), '[\s()]', '', 'g'), 'UTF8')), 'hex'), 16)
  from relation as r where r.relkind = 'v'
  union all
  select 'rows of lane', format('%s from %s to %s', count(*), min(l.lane), max(l.lane)) from @schema@.lane as l
  union all
  select
    format('rule %s on event', w.rulename),
    concat_ws(' ', case when w.is_instead then 'instead of' else 'beside' end, ('{select,update,insert,delete}'::text[])[w.ev_type::text::int])
  from pg_rewrite as w where w.ev_class = '@schema@.event'::regclass
  union all
  select format('heir %s of event', i.inhrelid::regclass), 'a table whose rows are read as rows of event'
  from pg_inherits as i where i.inhparent = '@schema@.event'::regclass
  union all
  select format('foreign key %s to event', k.conname), format('from %s', k.conrelid::regclass)
  from pg_constraint as k where k.contype = 'f' and k.confrelid = '@schema@.event'::regclass
  union all
  select 'replica identity of event', 'nothing, while a publication has its deletes'
  from pg_class as c
  where c.oid = '@schema@.event'::regclass and c.relreplident = 'n'
    and exists (
      select from pg_publication as p
      where
        p.pubdelete
        and (
          p.puballtables
          or exists (select from pg_publication_rel as m where m.prpubid = p.oid and m.prrelid = c.oid)
          or exists (select from pg_publication_namespace as m where m.pnpubid = p.oid and m.pnnspid = c.relnamespace)
        )
    )
)
select
  replace(facts.name, prefix.text, '') as name,
  replace(
    replace(facts.fact, prefix.text, ''), 'search_path=' || replace(left(prefix.text, -1), '"', ''), 'search_path=@' || 'schema@'
  ) as fact
from facts
cross join (select quote_ident(n.nspname) || '.' from pg_namespace as n join home on home.oid = n.oid) as prefix (text)
order by 1, 2
