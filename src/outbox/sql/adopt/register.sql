-- Records an adopted table.
insert into @schema@.adopted as a (
  source, table_schema, table_name, state, definition, published_column, key_columns, retain
)
values (@values@)
on conflict (source) do update
set state = excluded.state, definition = excluded.definition, published_column = excluded.published_column,
  key_columns = excluded.key_columns, retain = excluded.retain, changed_at = clock_timestamp();
