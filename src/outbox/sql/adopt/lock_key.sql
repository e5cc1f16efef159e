  -- The lock of enqueue(): ids of a key commit in their order.
  if coalesce(a_event_key, a_aggregate_id) is not null then
    perform pg_advisory_xact_lock(
      1868720753, (hashtextextended(coalesce(a_event_key, a_aggregate_id) collate "C", 0) & 4095)::int
    );
  end if;
