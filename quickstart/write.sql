-- One transaction: it changes a file, and says so in an event. A hundred a second, until psql is ended.
with changed as (
  update file set version = version + 1 where id = (select 'file-' || ceil(random() * 50)) returning id, version
)
select outbox.enqueue_text(
  aggregate_type => 'file', aggregate_id => id, event_type => 'FileChanged',
  payload => json_build_object('version', version, 'written', extract(epoch from clock_timestamp()))::text)
from changed
\watch 0.01
