-- Deletes dead letters for good. $1 event ids, $2 ids: parallel lists.
with gone as (
  delete from @schema@.dead_letter as d using unnest($1::uuid[], $2::bigint[]) as u (event_id, id)
  where d.event_id = u.event_id and d.id = u.id
  returning d.id
)
select count(*) from gone
