-- Counts the live relays and the free lanes. $1 instance, $2 lanes that it knows it owns: other
-- lanes of its own come from a claim whose answer was lost, and are claimed again. Other live
-- relays are counted twice: all of them, and those whose breaker is not Open. `fewest` is the
-- smallest number of lanes that one of them owns, null without any.
with live as (
  select r.instance, r.breaker = 'Open' as is_open, count(l.lane) as lanes
  from @schema@.relay as r left join @schema@.lane as l on l.owner = r.instance
  where r.lease_until > clock_timestamp()
  group by r.instance, r.breaker
),
others as (select is_open, lanes from live where instance <> $1)
select
  (select count(*) from others) as others,
  (select min(lanes) from others) as fewest,
  (select count(*) from others where not is_open) as well,
  (select min(lanes) from others where not is_open) as fewest_of_well,
  (
    select count(*) from @schema@.lane as l
    where not exists (select from live where live.instance = l.owner) or l.owner = $1 and l.lane <> all($2::smallint[])
  ) as free
