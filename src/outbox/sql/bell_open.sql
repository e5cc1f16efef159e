-- The first number of the locks, which is the oid of `event`, and whether a relay may sleep on this
-- connection. It may not where
--
-- * the server would not end a session that is idle: a frozen relay would keep its locks,
-- * transactions can be prepared: one that has rung cannot be,
-- * the trigger that rings is missing or disabled,
-- * the oid is a number with which enqueue() or a migration locks.
select
  t.oid::int as key,
  current_setting('idle_session_timeout') = '5s'
    and current_setting('max_prepared_transactions') = '0'
    and exists (select from pg_trigger as g where g.tgrelid = t.oid and g.tgname = 'ring' and g.tgenabled in ('O', 'A'))
    and t.oid::int not in (1868720753, 1868720754) as is_usable
from pg_class as t
where t.oid = '@schema@.event'::regclass
