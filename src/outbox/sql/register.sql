-- A relay begins to live: its lease, on the database's clock. $1 instance, $2 pod, $3 ttl in ms.
insert into @schema@.relay (instance, pod, lease_until)
values ($1, $2, clock_timestamp() + $3 * interval '1 millisecond')
