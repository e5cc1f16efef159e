-- Parks a key without a rejected row. Returns no row when it is parked already. $1 topic, $2 key.
insert into @schema@.parked_key (topic, key, lane, class)
values ($1, $2, (hashtextextended($2::text collate "C", 0) & 63)::smallint, 'ParkedByHand')
on conflict do nothing
returning 1
