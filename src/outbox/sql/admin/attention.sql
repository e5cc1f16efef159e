-- Counts parked topics, parked keys and dead letters by topic and class.
select 'key' as kind, topic, class, count(*) as number, to_char(min(parked_at) at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"') as oldest_at
from @schema@.parked_key group by topic, class
union all
select 'topic', topic, class, 1, to_char(parked_at at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"') from @schema@.parked_topic
union all
select 'letter', destination, class, count(*), to_char(min(failed_at) at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"')
from @schema@.dead_letter group by destination, class
order by 1, 2, 3
