-- Timeouts of this session in ms, by name; 0 is none.
select s.name, s.setting::bigint as ms
from pg_settings as s
where s.name in (
  'statement_timeout', 'lock_timeout', 'transaction_timeout', 'idle_in_transaction_session_timeout', 'idle_session_timeout'
)
order by s.name
