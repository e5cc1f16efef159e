-- The xid of this transaction: moves the reading position while rows flow and nothing else does.
select pg_current_xact_id()::text
