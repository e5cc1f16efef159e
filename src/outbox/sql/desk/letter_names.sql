-- Names of the same dead letters as in letters.sql, in the same order. $1 to $6 as there.
select d.event_id, d.id
from @schema@.dead_letter as d
where
  ($1::text is null or d.destination = $1)
  and ($2::text is null or coalesce(d.event_key, d.aggregate_id) = $2)
  and ($3::text is null or d.class = $3)
  and ($4::bigint is null or d.failed_at <= clock_timestamp() - $4 * interval '1 millisecond')
  and ($5::uuid is null or d.event_id = $5)
order by d.id, d.event_id
limit $6
