-- Releases the schema, if this owner still owns it. $1 cluster, $2 namespace, $3 name.
delete from @schema@.owner where cluster = $1 and namespace = $2 and name = $3 returning 1
