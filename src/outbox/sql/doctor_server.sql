-- What a server is like for this session. $1 schema.
select
  current_setting('server_version_num')::int / 10000 as version_major,
  pg_encoding_to_char(d.encoding)::text as encoding,
  current_setting('default_transaction_read_only')::boolean as read_only,
  current_user::text as role,
  (select r.rolconnlimit from pg_roles as r where r.rolname = current_user)::bigint as role_connection_limit,
  d.datconnlimit::bigint as database_connection_limit,
  current_setting('max_connections')::bigint as connections_max,
  (select coalesce(sum(s.numbackends), 0) from pg_stat_database as s)::bigint as connections_used,
  current_setting('autovacuum')::boolean as autovacuum,
  (
    select not ('autovacuum_enabled=false' = any (coalesce(c.reloptions, '{}')) or 'autovacuum_enabled=off' = any (coalesce(c.reloptions, '{}')))
    from pg_class as c
    where c.relname = 'event' and c.relnamespace = (select n.oid from pg_namespace as n where n.nspname = $1)
  ) as table_autovacuum
from pg_database as d
where d.datname = current_database()
