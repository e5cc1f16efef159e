-- Deletes acknowledged rows. `tick` is the id of this transaction.
-- $1 lanes, $2 ids, $3 event ids, $4 ctids: parallel lists.
select tick::text, settled from @schema@.settle($1::smallint[], $2::bigint[], $3::uuid[], $4::text[]::tid[])
