-- Moves a refused row to dead_letter; false: it is gone. $1 lane, $2 id, $3 event_id, $4 destination, $5 class, $6 attempts.
select @schema@.bury($1, $2, $3, $4, $5, $6)
