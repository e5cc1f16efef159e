-- Claims lanes that no relay owns, or whose owner's lease has expired.
-- $1 instance, $2 maximum number of lanes, $3 lanes that the instance knows it owns. Other lanes of
-- its own come from a claim whose answer was lost, and are claimed again.
-- An expired owner is deleted first. If its renewal is in progress, the renewal holds the row's
-- lock and wins (skip locked). If not, a renewal that comes later finds no row and is refused.
with expired as (
  delete from @schema@.relay as r
  where r.instance in (select instance from @schema@.relay where lease_until <= clock_timestamp() for update skip locked)
  returning r.instance
),
free as (
  select l.lane
  from @schema@.lane as l
  where
    l.owner is null
    or l.owner in (select instance from expired)
    or l.owner = $1 and l.lane <> all($3::smallint[])
    or not exists (select from @schema@.relay as r where r.instance = l.owner)
  order by l.lane
  limit $2
  for update of l skip locked
)
update @schema@.lane as l
set owner = $1, epoch = l.epoch + 1
from free
where l.lane = free.lane
returning l.lane, l.epoch, l.mark, l.high_id
