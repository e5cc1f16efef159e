-- Parks the key of a rejected row. $1 topic, $2 key, $3 lane, $4 id, $5 event_id, $6 class.
select @schema@.park_key($1, $2, $3, $4, $5, $6)
