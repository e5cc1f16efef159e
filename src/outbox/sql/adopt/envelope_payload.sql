'{' || envelope_members
      || case
        when envelope_has_id then ''
        else case when envelope_members = '' then '' else ', ' end || '"event_id": ' || to_json(r.id::text)::text
      end
      || '}'
