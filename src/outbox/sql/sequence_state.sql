-- Where the outbox lives (null: elsewhere than it did), and the last id that was drawn.
select incarnation, position from @schema@.sequence_state
