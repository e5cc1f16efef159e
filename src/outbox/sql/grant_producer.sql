-- A producer adds events, by function or directly, and cannot read any. It may not write the
-- columns xact, id, lane and created_at.
grant usage on schema @schema@ to @role@;
grant execute on function
  @schema@.enqueue(text, text, text, bytea, text, text, jsonb, uuid), @schema@.enqueue_many(jsonb)
to @role@;
grant execute on function
  @schema@.enqueue_text(text, text, text, text, text, text, jsonb, uuid, boolean),
  @schema@.enqueue_json(text, text, text, json, text, text, jsonb, uuid, boolean),
  @schema@.enqueue_bytes(text, text, text, bytea, text, text, jsonb, uuid, boolean),
  @schema@.enqueue_many(jsonb, boolean), @schema@.lock_keys(text[])
to @role@;
grant insert (event_id, aggregate_type, aggregate_id, event_type, topic, event_key, payload, headers) on @schema@.event to @role@;
