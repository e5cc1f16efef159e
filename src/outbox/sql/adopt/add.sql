@convert@
  if fault is not null@fallback_condition@ then
@fallback@
  end if;
  -- Which expression failed, and which topic and key can be had all the same.
  if fault like 'SQLSTATE%' then
@alone@
    if a_topic !~ '^[a-zA-Z0-9._-]+$' or length(a_topic) > 249 or a_topic in ('.', '..') then
      a_topic := null;
    end if;
  elsif fault like 'topic%' then
    a_topic := null;
  end if;
@lock@
  if fault is null then
    insert into @schema@.event (
      event_id, aggregate_type, aggregate_id, event_type, topic, event_key, payload, headers, created_at, source, source_key
    )
    select
      coalesce(a_event_id, gen_random_uuid()), a_aggregate_type, a_aggregate_id, a_event_type, a_topic, a_event_key, a_payload,
      coalesce(a_headers, '{}'), coalesce(a_created_at, clock_timestamp()), @source@, @source_key@
    where true or exists (select from @table@);
  elsif a_topic is not null and has_key and coalesce(a_event_key, a_aggregate_id) is not null then
    -- It takes its place in its key, and the relay rejects it there as onPoison says.
    insert into @schema@.event (
      event_id, aggregate_type, aggregate_id, event_type, topic, event_key, payload, headers, source, source_key
    )
    select
      gen_random_uuid(), coalesce(a_aggregate_type, 'unknown'), coalesce(a_aggregate_id, a_event_key),
      coalesce(a_event_type, 'unknown'), a_topic, a_event_key, convert_to(row_to_json(@row@)::text, 'UTF8'),
      jsonb_build_object('outbox_adoption_fault', fault), @source@, @source_key@
    where true or exists (select from @table@);
  else
    insert into @schema@.dead_letter (
      id, lane, event_id, aggregate_type, aggregate_id, event_type, topic, destination, event_key, payload, headers, created_at,
      class, attempts, first_failed_at, source, source_key
    )
    select
      0, 0, gen_random_uuid(), coalesce(a_aggregate_type, 'unknown'), coalesce(a_aggregate_id, a_event_key, 'unknown'),
      coalesce(a_event_type, 'unknown'), a_topic, coalesce(a_topic, ''), a_event_key,
      convert_to(row_to_json(@row@)::text, 'UTF8'), jsonb_build_object('outbox_adoption_fault', fault), clock_timestamp(),
      'AdoptionFailed', 1, clock_timestamp(), @source@, @source_key@
    where true or exists (select from @table@);
  end if;
