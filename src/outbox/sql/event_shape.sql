-- Describes table `event`, one line for each column in their order, then for each index. Triggers,
-- rules and settings below should not exist and have a line each.
select
  concat_ws(' ', 'column', a.attname, format_type(a.atttypid, a.atttypmod), case when a.attnotnull then 'not null' else 'null' end,
    case when a.attidentity <> '' then 'identity ' || a.attidentity::text when a.attgenerated <> '' then 'generated' end,
    pg_get_expr(d.adbin, d.adrelid)) as line
from pg_attribute as a
left join pg_attrdef as d on d.adrelid = a.attrelid and d.adnum = a.attnum
where a.attrelid = '@schema@.event'::regclass and a.attnum > 0 and not a.attisdropped
union all
select
  regexp_replace(pg_get_indexdef(i.indexrelid), '^.* USING', 'index using')
    || case when i.indisunique then '' else ' not unique' end || case when i.indisvalid then '' else ' invalid' end
from pg_index as i
where i.indrelid = '@schema@.event'::regclass
union all
-- These change rows when they are written or keep them from being deleted, hide them from the
-- relay, or lose them in a crash.
select 'trigger ' || t.tgname from pg_trigger as t where t.tgrelid = '@schema@.event'::regclass and not t.tgisinternal
union all
select 'rule ' || r.rulename from pg_rewrite as r where r.ev_class = '@schema@.event'::regclass
union all
select line
from pg_class as c
cross join lateral (values (c.relrowsecurity, 'row security'), (c.relpersistence = 'u', 'unlogged')) as facts (holds, line)
where c.oid = '@schema@.event'::regclass and facts.holds
