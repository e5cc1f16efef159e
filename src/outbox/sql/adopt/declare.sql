#variable_conflict use_column
declare
  a_payload bytea;
  a_headers jsonb;
  a_topic text;
  a_event_key text;
  a_event_id uuid;
  a_aggregate_type text;
  a_aggregate_id text;
  a_event_type text;
  a_created_at timestamptz;
  has_key boolean := true;
  a_hash bigint;
  is_locked boolean;
  fault text;
