-- The roles of the OutboxRelay essay-lifecycle-service. Run this as an administrator, connected to huleedu_essay_lifecycle.
-- essay_lifecycle_app is the role of the service, which owns event_outbox.
create role essay_lifecycle_outbox login password 'CHANGE-ME';
create role essay_lifecycle_relay login password 'CHANGE-ME';
grant connect, create on database huleedu_essay_lifecycle to essay_lifecycle_outbox;
grant connect on database huleedu_essay_lifecycle to essay_lifecycle_relay;
-- Only the owner of a table, or a member of that role, can put triggers on it and drop them.
grant essay_lifecycle_app to essay_lifecycle_outbox;
-- Shows relays which transactions delay vacuum. You may leave it out.
grant pg_read_all_stats to essay_lifecycle_relay;
