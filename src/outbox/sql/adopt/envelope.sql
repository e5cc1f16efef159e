cross join lateral (
      -- One pass over the envelope. Values keep their bytes: json, not jsonb.
      select
        coalesce(
          jsonb_object_agg(f.key, f.value #>> '{}') filter (
            where f.key in (
              'event_id', 'event_type', 'event_timestamp', 'source_service', 'schema_version', 'correlation_id', 'topic'
            )
          ),
          '{}'
        ) as envelope_fields,
        coalesce(
          string_agg(
            to_json(f.key)::text || ': ' || case
              when f.key = 'event_id' and coalesce(f.value #>> '{}', @nil@) = @nil@ then to_json(r.id::text)::text
              else f.value::text
            end,
            ', ' order by f.position
          ) filter (where f.key not in ('topic', 'headers')),
          ''
        ) as envelope_members,
        coalesce(bool_or(f.key = 'event_id'), false) as envelope_has_id,
        (array_agg(f.value) filter (where f.key = 'headers' and json_typeof(f.value) = 'object'))[1] as envelope_headers,
        (array_agg(f.value ->> 'traceparent') filter (where f.key = 'metadata' and json_typeof(f.value) = 'object'))[1]
          as envelope_traceparent
      from json_each(r.event_data::json) with ordinality as f (key, value, position)
    ) as envelope
    cross join lateral (
      select case
        when (envelope_fields ->> 'event_id') ~* '^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$' and envelope_fields ->> 'event_id' <> @nil@
        then (envelope_fields ->> 'event_id')::uuid
        else r.id
      end as envelope_event_id
    ) as envelope_id
