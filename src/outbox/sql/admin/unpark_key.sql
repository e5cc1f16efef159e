-- Unparks a key. $1 topic, $2 key.
delete from @schema@.parked_key where topic = $1 and key_digest = @schema@.key_digest($2) returning 1
