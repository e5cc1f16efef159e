-- The roles of the OutboxRelay file-service. Run this as an administrator, connected to huleedu_file_service.
-- file_service_app is the role of the service, which owns event_outbox.
create role file_service_outbox login password 'CHANGE-ME';
create role file_service_relay login password 'CHANGE-ME';
grant connect, create on database huleedu_file_service to file_service_outbox;
grant connect on database huleedu_file_service to file_service_relay;
-- Only the owner of a table, or a member of that role, can put triggers on it and drop them.
grant file_service_app to file_service_outbox;
-- Shows relays which transactions delay vacuum. You may leave it out.
grant pg_read_all_stats to file_service_relay;
