-- `offset 0` keeps the planner from converting the envelope once for each use of it.
    cross join lateral (
      select r.event_data::jsonb as envelope offset 0
    ) as parsed
    cross join lateral (
      select case
        when envelope ->> 'event_id' ~* '^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$' and envelope ->> 'event_id' <> @nil@
        then (envelope ->> 'event_id')::uuid
        else r.id
      end as envelope_event_id
      offset 0
    ) as identified
    cross join lateral (
      -- json, not jsonb: values keep their bytes, and fields their order.
      select string_agg(
        to_json(f.key)::text || ': ' || case
          when f.key = 'event_id' and coalesce(envelope ->> 'event_id', @nil@) = @nil@ then to_json(r.id::text)::text
          else f.value::text
        end,
        ', '
      ) as envelope_members
      from json_each(r.event_data::json) as f
      where f.key not in ('topic', 'headers')
    ) as rest
