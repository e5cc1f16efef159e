-- One transaction each second: it changes a file, and says so in an event.
with changed as (
  update file set version = version + 1 where id = (select 'file-' || ceil(random() * 50)) returning id, version
)
select outbox.enqueue_text(
  aggregate_type => 'file', aggregate_id => id, event_type => 'FileChanged',
  payload => json_build_object('version', version)::text)
from changed
\watch 1
