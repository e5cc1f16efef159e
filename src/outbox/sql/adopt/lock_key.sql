  -- The lock of enqueue(): ids of a key commit in their order. The first key of a transaction is
  -- locked here, which costs less than a call.
  if coalesce(a_event_key, a_aggregate_id) is not null then
    a_hash := hashtextextended(coalesce(a_event_key, a_aggregate_id) collate "C", 0);
    if coalesce(current_setting('outbox_relay.locked_keys', true), '') = '' then
      is_locked := pg_advisory_xact_lock_shared(1868720753, (a_hash & 4095)::int) is not null
        and pg_advisory_xact_lock(a_hash) is not null
        and set_config('outbox_relay.locked_keys', encode(int8send(a_hash), 'hex'), true) is not null;
    else
      is_locked := @schema@.lock_key(a_hash) is not null;
    end if;
  end if;
