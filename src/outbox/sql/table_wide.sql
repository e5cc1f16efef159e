-- Reads numbers of the whole table. `xmin_age` is the age in seconds of the oldest transaction that
-- keeps vacuum from removing dead rows, as far as this role can see: its own sessions, prepared
-- transactions, and with pg_read_all_stats all sessions. 0: it sees no transaction. Null, as with
-- dead_tuples: the server does not let this role ask.
-- Replication slots keep rows too, but have no age in seconds.
select
  (select count(*) from @schema@.dead_letter) as dead_letters,
  (select count(*) from @schema@.parked_key) as parked_keys,
  (select count(*) from @schema@.parked_topic) as parked_topics,
  numbers.xmin_age, numbers.dead_tuples
from @schema@.server_numbers() as numbers
