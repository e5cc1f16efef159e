-- Reads the state of the schema, one row. Fails with "undefined table" when there is no schema.
select
  (select coalesce(max(version), 0) from @schema@.schema_migrations where success) as level,
  (select coalesce(max(compatible_from), 0) from @schema@.schema_migrations) as compatible_from,
  o.cluster, o.namespace, o.name
from (select) as one
left join @schema@.owner as o on true
