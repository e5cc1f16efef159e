-- A relay reads events and deletes those that Kafka has (settle); it cannot add or change one, so that a stolen relay cannot forge any.
grant usage on schema @schema@ to @role@;
grant select on @schema@.event, @schema@.lane, @schema@.relay, @schema@.owner, @schema@.schema_migrations, @schema@.pending to @role@;
grant insert, update, delete on @schema@.relay to @role@;
grant update (owner, epoch, mark, high_id) on @schema@.lane to @role@;
grant execute on function @schema@.settle(smallint[], bigint[], uuid[]), @schema@.text_or_null(bytea) to @role@;
