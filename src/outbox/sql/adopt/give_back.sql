-- Gives rows that wait in event, and dead letters, back to their table: they are unpublished there.
-- A row whose source is gone stays where it is.
with w as (
  select lane, id, event_id, source_key from @schema@.event where source = @source@
  union all
  select null, id, event_id, source_key from @schema@.dead_letter where source = @source@
),
back as (
  update @table@ as t set @published@ = null from w where @same_key@
  returning w.lane, w.id, w.event_id
),
unparked as (
  delete from @schema@.parked_key as p using back as b
  where p.lane = b.lane and p.head_id = b.id and p.head_event_id = b.event_id
),
letters as (
  delete from @schema@.dead_letter as d using back as b where b.lane is null and d.event_id = b.event_id and d.id = b.id
),
gone as (
  delete from @schema@.event as e using back as b where e.lane = b.lane and e.id = b.id and e.event_id = b.event_id
)
select count(*) from back
