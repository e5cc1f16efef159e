'{'
      || concat_ws(
        ', ', envelope_members, case when not envelope ? 'event_id' then '"event_id": ' || to_json(r.id::text)::text end
      )
      || '}'
