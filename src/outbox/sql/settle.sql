-- Deletes acknowledged rows. `tick` is the xid of this transaction.
select tick::text, settled from @schema@.settle($1::smallint[], $2::bigint[], $3::uuid[], $4::text[]::tid[])
