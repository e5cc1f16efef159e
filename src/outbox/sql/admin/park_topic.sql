-- Parks a topic. Returns no row when it is parked already. $1 topic.
insert into @schema@.parked_topic (topic) values ($1) on conflict do nothing returning 1
