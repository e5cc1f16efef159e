-- Reads what is known of a table. $1 its schema, $2 its name, $3 the name of the triggers to leave
-- out of `later_triggers`.
select
  c.oid::bigint as oid,
  c.relkind::text as kind,
  pg_get_userbyid(c.relowner)::text as owner,
  current_user::text as role,
  pg_has_role(c.relowner, 'usage') as may_own,
  has_table_privilege(c.oid, 'select') as may_read,
  c.relrowsecurity as has_row_security,
  c.relispartition as is_partition,
  c.relkind = 'r' and exists (select from pg_inherits as i where i.inhparent = c.oid) as has_children,
  array(
    select a.attname::text from pg_attribute as a
    where a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped and a.attgenerated <> 'v' order by a.attnum
  ) as columns,
  array(
    select a.attname::text from pg_attribute as a where a.attrelid = c.oid and a.attnum > 0 and a.atthasdef order by a.attnum
  ) as columns_with_default,
  array(
    select format_type(a.atttypid, a.atttypmod) from pg_attribute as a
    where a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped and a.attgenerated <> 'v' order by a.attnum
  ) as types,
  array(
    select a.attname::text
    from pg_index as i
    cross join lateral unnest(i.indkey) with ordinality as k (attnum, position)
    join pg_attribute as a on a.attrelid = i.indrelid and a.attnum = k.attnum
    where i.indrelid = c.oid and i.indisprimary
    order by k.position
  ) as key_columns,
  array(
    select t.tgname::text from pg_trigger as t
    where t.tgrelid = c.oid and not t.tgisinternal and t.tgtype & 7 = 7 and t.tgname::text collate "C" > $3 collate "C" order by 1
  ) as later_triggers,
  (
    select min(n.nspname)::text from pg_trigger as t
    join pg_proc as p on p.oid = t.tgfoid
    join pg_namespace as n on n.oid = p.pronamespace
    where t.tgrelid = c.oid and t.tgname in ('zzz_outbox_mark', 'zzz_outbox_add')
  ) as adopted_by,
  (
    select count(*) from pg_trigger as t
    where t.tgrelid = c.oid and t.tgname in ('zzz_outbox_mark', 'zzz_outbox_add') and t.tgenabled in ('O', 'A')
  ) as our_triggers,
  array(
    select i.indexrelid::regclass::text from pg_index as i where i.indrelid = c.oid and i.indisunique and i.indpred is not null order by 1
  ) as partial_unique_indexes
from pg_class as c
join pg_namespace as n on n.oid = c.relnamespace
where n.nspname = $1 and c.relname = $2
