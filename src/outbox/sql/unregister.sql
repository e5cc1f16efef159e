-- Ends the lease of a relay: its lanes are free at once. $1 instance.
delete from @schema@.relay where instance = $1
