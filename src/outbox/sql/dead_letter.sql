-- Moves a rejected row to the dead letters. False: the row does not exist any more.
-- $1 lane, $2 id, $3 event_id, $4 topic, $5 class, $6 attempts.
select @schema@.bury($1, $2, $3, $4, $5, $6)
