-- The roles of the OutboxRelay batch-orchestrator-service. Run this as an administrator, connected to huleedu_batch_orchestrator.
-- batch_orchestrator_app is the role of the service, which owns event_outbox.
create role batch_orchestrator_outbox login password 'CHANGE-ME';
create role batch_orchestrator_relay login password 'CHANGE-ME';
grant connect, create on database huleedu_batch_orchestrator to batch_orchestrator_outbox;
grant connect on database huleedu_batch_orchestrator to batch_orchestrator_relay;
-- Only the owner of a table, or a member of that role, can put triggers on it and drop them.
grant batch_orchestrator_app to batch_orchestrator_outbox;
-- Shows relays which transactions delay vacuum. You may leave it out.
grant pg_read_all_stats to batch_orchestrator_relay;
