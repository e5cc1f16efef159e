-- Lists the roles that lack a right. The roles exist.
-- $1 schema, $2 roles, $3 kind of grant for each role.
select wanted.role, wanted.kind
from unnest($2::text[], $3::text[]) as wanted (role, kind)
where not case wanted.kind
  when 'producer' then
    has_schema_privilege(wanted.role, $1, 'usage')
    and has_function_privilege(wanted.role, '@schema@.enqueue(text, text, text, bytea, text, text, jsonb, uuid)', 'execute')
    and has_function_privilege(wanted.role, '@schema@.enqueue_text(text, text, text, text, text, text, jsonb, uuid, boolean)', 'execute')
    and has_function_privilege(wanted.role, '@schema@.enqueue_json(text, text, text, json, text, text, jsonb, uuid, boolean)', 'execute')
    and has_function_privilege(wanted.role, '@schema@.enqueue_bytes(text, text, text, bytea, text, text, jsonb, uuid, boolean)', 'execute')
    and has_function_privilege(wanted.role, '@schema@.enqueue_many(jsonb)', 'execute')
    and has_function_privilege(wanted.role, '@schema@.enqueue_many(jsonb, boolean)', 'execute')
    and has_function_privilege(wanted.role, '@schema@.lock_keys(text[])', 'execute')
    and has_column_privilege(wanted.role, '@schema@.event', 'payload', 'insert')
  else
    has_schema_privilege(wanted.role, $1, 'usage')
    and has_table_privilege(wanted.role, '@schema@.event', 'select')
    and has_table_privilege(wanted.role, '@schema@.owner', 'select')
    and has_table_privilege(wanted.role, '@schema@.schema_migrations', 'select')
    and has_table_privilege(wanted.role, '@schema@.relay', 'delete')
    and has_column_privilege(wanted.role, '@schema@.lane', 'mark', 'update')
    and has_function_privilege(wanted.role, '@schema@.settle(smallint[], bigint[], uuid[], tid[])', 'execute')
    and has_table_privilege(wanted.role, '@schema@.parked_key', 'select')
    and has_table_privilege(wanted.role, '@schema@.parked_topic', 'select')
    and has_table_privilege(wanted.role, '@schema@.dead_letter', 'select')
    and has_function_privilege(wanted.role, '@schema@.park_key(text, text, smallint, bigint, uuid, text)', 'execute')
    and has_function_privilege(wanted.role, '@schema@.bury(smallint, bigint, uuid, text, text, int, timestamptz)', 'execute')
    and has_table_privilege(wanted.role, '@schema@.sequence_state', 'select')
    and has_function_privilege(wanted.role, '@schema@.resume_sequence(bigint, boolean)', 'execute')
    and has_function_privilege(wanted.role, '@schema@.purge_adopted(int)', 'execute')
    and has_function_privilege(wanted.role, '@schema@.unreadable_column(text, text, text, text, text)', 'execute')
    and has_function_privilege(wanted.role, '@schema@.server_place()', 'execute')
    and has_function_privilege(wanted.role, '@schema@.server_numbers()', 'execute')
end
