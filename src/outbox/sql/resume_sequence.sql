-- Moves the sequence on, if ids may have been drawn twice. $1 highest id that the relay has read.
select resumed, elsewhere, was_at, highest, moved from @schema@.resume_sequence($1)
