-- Requeues dead letters. $1 event ids, $2 ids: parallel lists.
select count(*) from @schema@.requeue_many($1::uuid[], $2::bigint[])
