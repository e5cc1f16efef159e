-- Tries to lock lanes, and returns whether all of them are. A table that was replaced since the
-- connection was opened has another oid, with which writers lock: then none counts as locked.
-- $1 oid of `event` when the connection was opened, $2 lanes.
select bool_and(pg_try_advisory_lock($1, lane)) and '@schema@.event'::regclass::oid::int = $1 as is_locked
from unnest($2::int[]) as u (lane)
