-- Who lives and who has what. $1 instance, $2 lanes that it knows it owns (a claim whose answer was lost is claimed again). `fewest` is the smallest share of the other live relays; null without any.
with live as (
  select r.instance, count(l.lane) as lanes
  from @schema@.relay as r left join @schema@.lane as l on l.owner = r.instance
  where r.lease_until > clock_timestamp()
  group by r.instance
)
select
  (select count(*) from live) as live,
  (select min(lanes) from live where instance <> $1) as fewest,
  (
    select count(*) from @schema@.lane as l
    where not exists (select from live where live.instance = l.owner) or l.owner = $1 and l.lane <> all($2::smallint[])
  ) as free
