-- Reads the last id that was drawn, and the incarnation: null when the database is not the one in
-- which the sequence was last checked.
select incarnation, position from @schema@.sequence_state
