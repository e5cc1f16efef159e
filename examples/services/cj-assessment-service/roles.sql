-- The roles of the OutboxRelay cj-assessment-service. Run this as an administrator, connected to huleedu_cj_assessment.
-- cj_assessment_app is the role of the service, which owns event_outbox.
create role cj_assessment_outbox login password 'CHANGE-ME';
create role cj_assessment_relay login password 'CHANGE-ME';
grant connect, create on database huleedu_cj_assessment to cj_assessment_outbox;
grant connect on database huleedu_cj_assessment to cj_assessment_relay;
-- Only the owner of a table, or a member of that role, can put triggers on it and drop them.
grant cj_assessment_app to cj_assessment_outbox;
-- Shows relays which transactions delay vacuum. You may leave it out.
grant pg_read_all_stats to cj_assessment_relay;
