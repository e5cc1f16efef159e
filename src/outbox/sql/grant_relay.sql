-- A relay reads events and removes those that Kafka acknowledged (settle) or rejected (bury). It
-- cannot add or change an event, so that stolen credentials of a relay cannot forge one.
-- resume_sequence gives rows other ids and changes nothing else. Only the owner can requeue dead
-- letters. purge_adopted deletes rows of adopted tables only where the manifest has `retain`.
grant usage on schema @schema@ to @role@;
grant select on
  @schema@.event, @schema@.lane, @schema@.relay, @schema@.owner, @schema@.schema_migrations, @schema@.pending,
  @schema@.parked_key, @schema@.parked_topic, @schema@.dead_letter, @schema@.sequence_state, @schema@.adopted
to @role@;
grant insert, update, delete on @schema@.relay to @role@;
grant update (owner, epoch, mark, high_id) on @schema@.lane to @role@;
grant execute on function
  @schema@.settle(smallint[], bigint[], uuid[], tid[]), @schema@.settle(smallint[], bigint[], uuid[]), @schema@.text_or_null(bytea),
  @schema@.park_key(text, text, smallint, bigint, uuid, text),
  @schema@.bury(smallint, bigint, uuid, text, text, int, timestamptz), @schema@.resume_sequence(bigint, boolean),
  @schema@.purge_adopted(int), @schema@.readable_text(text),
  @schema@.unreadable_column(text, text, text, text, text), @schema@.server_place(), @schema@.server_numbers()
to @role@;
