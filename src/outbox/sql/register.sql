-- Begins the lease of a relay, by the database's clock, and returns that clock.
-- $1 instance, $2 pod, $3 duration in ms.
insert into @schema@.relay (instance, pod, lease_until)
values ($1, $2, clock_timestamp() + $3 * interval '1 millisecond')
returning clock_timestamp()
