-- Databases as two service teams have them before they use OutboxRelay: each has a table event_outbox, and rows in it that its old
-- worker has not sent yet. Passwords come as variables, from the Secrets' source.
\set ON_ERROR_STOP 1
\set QUIET 1

create role file_service_app login password :'password';
create database huleedu_file_service owner file_service_app;
create role essay_lifecycle_app login password :'password';
create database huleedu_essay_lifecycle owner essay_lifecycle_app;

\connect huleedu_file_service
set role file_service_app;
create table file_uploads (id text primary key, revision bigint not null);
\ir event_outbox.sql
insert into event_outbox (id, aggregate_id, aggregate_type, event_type, event_data, event_key, topic)
select gen_random_uuid(), 'upload-' || n, 'file_upload', topic,
  format(
    '{"event_id": "%s", "event_type": "%s", "event_timestamp": "2026-03-01T09:30:00Z", "source_service": "file-service", "schema_version": 1, "correlation_id": "%s", "data_schema_uri": null, "data": {"number": %s}, "metadata": null, "topic": "%s"}',
    gen_random_uuid(), topic, gen_random_uuid(), n, topic
  )::json,
  'upload-' || n, topic
from generate_series(1, 250) as n, (values ('huleedu.file.essay.content.provisioned.v1')) as t (topic);

\connect huleedu_essay_lifecycle
set role essay_lifecycle_app;
create table essays (id text primary key, revision bigint not null);
\ir event_outbox.sql
