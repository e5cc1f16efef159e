-- The roles of the OutboxRelay class-management-service. Run this as an administrator, connected to huleedu_class_management.
-- class_management_app is the role of the service, which owns event_outbox.
create role class_management_outbox login password 'CHANGE-ME';
create role class_management_relay login password 'CHANGE-ME';
grant connect, create on database huleedu_class_management to class_management_outbox;
grant connect on database huleedu_class_management to class_management_relay;
-- Only the owner of a table, or a member of that role, can put triggers on it and drop them.
grant class_management_app to class_management_outbox;
-- Shows relays which transactions delay vacuum. You may leave it out.
grant pg_read_all_stats to class_management_relay;
