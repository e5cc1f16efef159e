-- Records an adopted table. $1 its number, $2 its schema, $3 its name, $4 state, $5 definition,
-- $6 published column, $7 columns of its primary key, $8 age in ms from which rows are deleted.
insert into @schema@.adopted as a (
  source, table_schema, table_name, state, definition, published_column, key_columns, retain
)
values ($1, $2, $3, $4, $5, $6, $7, $8 * interval '1 millisecond')
on conflict (source) do update
set state = excluded.state, definition = excluded.definition, published_column = excluded.published_column,
  key_columns = excluded.key_columns, retain = excluded.retain, changed_at = clock_timestamp()
