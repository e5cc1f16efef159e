-- Lists rights of a relay that the user of this session lacks, as GRANT has them.
-- $1 schema.
select lacking from (
  select 1 as place, format('USAGE ON SCHEMA %I', $1) as lacking
  where not has_schema_privilege($1, 'usage')
  union
  select 2, format('%s ON TABLE %I.%I', upper(needed.privilege), $1, pg_class.relname)
  from (values
    ('event', 'select'), ('lane', 'select'), ('relay', 'select'), ('owner', 'select'),
    ('schema_migrations', 'select'), ('pending', 'select'), ('parked_key', 'select'),
    ('parked_topic', 'select'), ('dead_letter', 'select'), ('sequence_state', 'select'),
    ('adopted', 'select'), ('relay', 'insert'), ('relay', 'update'), ('relay', 'delete')
  ) as needed (name, privilege)
  join pg_class on relname = needed.name
  where relnamespace = (select oid from pg_namespace where nspname = $1)
    and not has_table_privilege(pg_class.oid, needed.privilege)
  union
  select 3, format('UPDATE ON TABLE %I.lane', $1)
  from pg_class
  where relname = 'lane' and relnamespace = (select oid from pg_namespace where nspname = $1)
    and not has_column_privilege(oid, 'mark', 'update')
  union
  select 4, format('EXECUTE ON FUNCTION %I.%I', $1, proname)
  from pg_proc
  where pronamespace = (select oid from pg_namespace where nspname = $1)
    and proname in ('settle', 'park_key', 'bury', 'resume_sequence', 'purge_adopted')
    and not has_function_privilege(oid, 'execute')
) as rights
order by place, lacking
limit 4
