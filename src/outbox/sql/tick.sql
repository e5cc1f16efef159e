-- Draws a transaction id. It lets watermarks advance when no other transaction does.
select pg_current_xact_id()::text
