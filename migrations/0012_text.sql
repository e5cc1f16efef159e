-- Text that cannot become UTF-8. A database in SQL_ASCII takes any bytes, and one in WIN1252 some
-- that stand for no character. The server refuses to send such text, and with it the whole answer.
-- A relay that meets this reads through these functions: it parks the key of such a row, and
-- publishes all others.

create function readable_text(value text) returns text
language plpgsql stable set search_path from current
as $$
begin
  perform convert_to(value, 'UTF8');
  return value;
exception when character_not_in_repertoire or untranslatable_character then
  return 'not-utf8:' || case
    when octet_length(value) <= 256 then encode(convert_to(value, 'SQL_ASCII'), 'escape')
    else 'sha256:' || encode(sha256(convert_to(value, 'SQL_ASCII')), 'hex')
  end;
end $$;
comment on function readable_text is
  'The text; or, if it cannot become UTF-8, ''not-utf8:'' and its bytes with octal escapes.';

-- The line breaks keep the end of one text and the begin of the next from becoming one character.
create function unreadable_column(aggregate_type text, aggregate_id text, event_type text, event_key text, headers text) returns text
language plpgsql stable set search_path from current
as $$
begin
  perform convert_to(concat_ws(e'\n', aggregate_type, aggregate_id, event_type, event_key, headers), 'UTF8');
  return null;
exception when character_not_in_repertoire or untranslatable_character then
  return case
    when readable_text(event_key) <> event_key then 'event_key'
    when readable_text(aggregate_id) <> aggregate_id then 'aggregate_id'
    when readable_text(event_type) <> event_type then 'event_type'
    when readable_text(aggregate_type) <> aggregate_type then 'aggregate_type'
    else 'headers'
  end;
end $$;
comment on function unreadable_column is 'The first of these columns whose text cannot become UTF-8; null: all can.';

revoke all on function readable_text(text), unreadable_column(text, text, text, text, text) from public;
