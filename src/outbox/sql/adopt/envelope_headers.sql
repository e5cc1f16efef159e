jsonb_strip_nulls(jsonb_build_object(
        'event_type', coalesce(envelope ->> 'event_type', r.event_type),
        'trace_id', envelope ->> 'correlation_id',
        'schema_version', envelope ->> 'schema_version',
        'occurred_at', envelope ->> 'event_timestamp',
        'content_type', 'application/json',
        'source_service', envelope ->> 'source_service',
        'traceparent', envelope #>> '{metadata,traceparent}'
      ))
      || case when jsonb_typeof(envelope -> 'headers') = 'object' then envelope -> 'headers' else '{}' end
      || jsonb_build_object('event_id', envelope_event_id::text)
