-- What the migration's user may do. $1 schema, $2 roles that must exist.
select
  current_user::text as role,
  o.rolname::text as schema_owner,
  coalesce(pg_has_role(current_user, n.nspowner, 'usage'), false) as is_owner,
  has_database_privilege(current_database(), 'create') as may_create,
  array(select r.name from unnest($2::text[]) as r (name) where not exists (select from pg_roles as p where p.rolname = r.name) order by 1)
    as missing_roles
from (select) as one
left join pg_namespace as n on n.nspname = $1
left join pg_roles as o on o.oid = n.nspowner
