  -- Nothing in a block with an exception handler writes: a subtransaction that writes takes an id
  -- of its own. Other classes than these are the server's, and end the transaction as usual.
  begin
    select
      @expressions@
    into
      @variables@
    from (select @row@.*) as r
    @lateral@
    -- Always true. The plan depends on the table by it: a session that has cached the plan makes
    -- another one after the table is altered, instead of failing because a column has another type.
    where true or exists (select from @table@);
    fault := case
      when a_payload is null and not @null_payload@ then 'payload is null'
      when a_aggregate_type is null then 'aggregate_type is null'
      when a_aggregate_id is null then 'aggregate_id is null'
      when a_event_type is null then 'event_type is null'
      when a_topic !~ '^[a-zA-Z0-9._-]+$' or length(a_topic) > 249 or a_topic in ('.', '..') then 'topic is not the name of a Kafka topic'
      when jsonb_typeof(a_headers) <> 'object' then 'headers is not an object'
    end;
  exception
    when data_exception or integrity_constraint_violation or syntax_error_or_access_rule_violation or plpgsql_error then
      fault := 'SQLSTATE ' || sqlstate;
  end;
