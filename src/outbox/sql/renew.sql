-- Renews a lease, unless it has expired: another relay may own the lanes then.
-- $1 instance, $2 duration in ms, $3 state of the breaker.
update @schema@.relay
set lease_until = clock_timestamp() + $2 * interval '1 millisecond', breaker = $3
where instance = $1 and lease_until > clock_timestamp()
returning pg_current_xact_id()::text
