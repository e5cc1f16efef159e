-- Lists dead letters in the order of their ids.
-- $1 topic, $2 key, $3 class, $4 minimum age in ms, $5 event_id (each null: any), $6 maximum number
-- (null: all), $7 whether to read payload and headers. A created_at that RFC 3339 cannot hold, such
-- as -infinity, is shown as the nearest time that it can.
select
  d.event_id, d.id, d.destination, @schema@.readable_text(coalesce(d.event_key, d.aggregate_id)) as key, d.lane, d.class, d.attempts,
  @schema@.readable_text(d.event_type) as event_type, @schema@.readable_text(d.aggregate_type) as aggregate_type,
  @schema@.readable_text(d.aggregate_id) as aggregate_id,
  to_char(
    least(greatest(d.created_at, timestamptz '0001-01-01 00:00:00+00'), timestamptz '9999-12-31 23:59:59.999999+00') at time zone 'UTC',
    'YYYY-MM-DD"T"HH24:MI:SS"Z"'
  ) as created_at,
  to_char(d.first_failed_at at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"') as first_failed_at,
  to_char(d.failed_at at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"') as failed_at,
  octet_length(d.payload) as payload_bytes,
  array(select @schema@.readable_text(name) as name from jsonb_object_keys(d.headers) as name order by 1) as header_names,
  case when $7 then @schema@.readable_text(d.headers::text) end as headers,
  case when $7 then @schema@.text_or_null(d.payload) end as payload_text,
  case when $7 and @schema@.text_or_null(d.payload) is null then translate(encode(d.payload, 'base64'), E'\n', '') end as payload_base64
from @schema@.dead_letter as d
where
  ($1::text is null or d.destination = $1)
  and ($2::text is null or @schema@.readable_text(coalesce(d.event_key, d.aggregate_id)) = $2)
  and ($3::text is null or d.class = $3)
  and ($4::bigint is null or d.failed_at <= clock_timestamp() - $4 * interval '1 millisecond')
  and ($5::uuid is null or d.event_id = $5)
order by d.id, d.event_id
limit $6
