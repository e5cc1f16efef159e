-- Lists relays with their lanes, and in a row without a pod the lanes that no relay with a valid
-- lease owns.
select r.pod, r.instance::text, r.breaker, extract(epoch from r.lease_until - clock_timestamp())::float8 as lease_seconds,
  array(select l.lane from @schema@.lane as l where l.owner = r.instance order by 1) as lanes
from @schema@.relay as r
union all
select null, null, null, null, array(
  select l.lane from @schema@.lane as l
  where not exists (select from @schema@.relay as r where r.instance = l.owner and r.lease_until > clock_timestamp())
  order by 1
)
order by 1, 2
