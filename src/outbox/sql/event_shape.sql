-- One line per column and per index of `event`, columns in their order.
select
  concat_ws(' ', 'column', a.attname, format_type(a.atttypid, a.atttypmod), case when a.attnotnull then 'not null' else 'null' end,
    case when a.attidentity <> '' then 'identity ' || a.attidentity::text when a.attgenerated <> '' then 'generated' end,
    pg_get_expr(d.adbin, d.adrelid)) as line
from pg_attribute as a
left join pg_attrdef as d on d.adrelid = a.attrelid and d.adnum = a.attnum
where a.attrelid = '@schema@.event'::regclass and a.attnum > 0 and not a.attisdropped
union all
select regexp_replace(pg_get_indexdef(i.indexrelid), '^.* USING', 'index using') || case when i.indisunique and i.indisvalid then '' else ' invalid' end
from pg_index as i
where i.indrelid = '@schema@.event'::regclass
