-- The roles of the OutboxRelay spellchecker-service. Run this as an administrator, connected to huleedu_spellchecker.
-- spellchecker_app is the role of the service, which owns event_outbox.
create role spellchecker_outbox login password 'CHANGE-ME';
create role spellchecker_relay login password 'CHANGE-ME';
grant connect, create on database huleedu_spellchecker to spellchecker_outbox;
grant connect on database huleedu_spellchecker to spellchecker_relay;
-- Only the owner of a table, or a member of that role, can put triggers on it and drop them.
grant spellchecker_app to spellchecker_outbox;
-- Shows relays which transactions delay vacuum. You may leave it out.
grant pg_read_all_stats to spellchecker_relay;
