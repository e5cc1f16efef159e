jsonb_strip_nulls(jsonb_build_object(
        'event_type', coalesce(envelope_fields ->> 'event_type', r.event_type),
        'trace_id', envelope_fields ->> 'correlation_id',
        'schema_version', envelope_fields ->> 'schema_version',
        'occurred_at', envelope_fields ->> 'event_timestamp',
        'content_type', 'application/json',
        'source_service', envelope_fields ->> 'source_service',
        'traceparent', envelope_traceparent
      ))
      || coalesce((select jsonb_object_agg(h.key, h.value #>> '{}') from json_each(envelope_headers) as h), '{}')
      || jsonb_build_object('event_id', envelope_event_id::text)
