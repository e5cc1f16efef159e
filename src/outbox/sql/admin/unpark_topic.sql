-- Unparks a topic. $1 topic.
delete from @schema@.parked_topic where topic = $1 returning 1
