-- The roles of the OutboxRelay result-aggregator-service. Run this as an administrator, connected to huleedu_result_aggregator.
-- result_aggregator_app is the role of the service, which owns event_outbox.
create role result_aggregator_outbox login password 'CHANGE-ME';
create role result_aggregator_relay login password 'CHANGE-ME';
grant connect, create on database huleedu_result_aggregator to result_aggregator_outbox;
grant connect on database huleedu_result_aggregator to result_aggregator_relay;
-- Only the owner of a table, or a member of that role, can put triggers on it and drop them.
grant result_aggregator_app to result_aggregator_outbox;
-- Shows relays which transactions delay vacuum. You may leave it out.
grant pg_read_all_stats to result_aggregator_relay;
