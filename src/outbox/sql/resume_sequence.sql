-- Moves the sequence on, if it has to be. $1 the highest id that we have seen.
select resumed, elsewhere, was_at, highest, moved from @schema@.resume_sequence($1)
