-- Renews the lease, unless it has run out: then somebody may already have taken the lanes. $1 instance, $2 ttl in ms, $3 state of its breaker.
update @schema@.relay
set lease_until = clock_timestamp() + $2 * interval '1 millisecond', breaker = $3
where instance = $1 and lease_until > clock_timestamp()
returning pg_current_xact_id()::text
