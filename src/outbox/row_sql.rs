//! The parts that all statements share which read rows: how large a row is, and its columns. Pure.
//!
//! A template has `@bytes(e)@`, `@columns(e, limit)@`, `@key(e)@` and `@text(e, column)@`, where
//! `e` is the row and `limit` the bytes up to which payload and headers are read.

/// How text columns are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TextReading {
    /// Texts come as they are. The server refuses the whole answer if one cannot become UTF-8.
    Plain,
    /// Functions replace such a text. They take some us for each row.
    Checked,
}

/// Largest row, in bytes, of which a fetch reads more than the size.
pub const FETCHED_BYTES_MAX: usize = 64 << 10;
/// Longest text column, in bytes, that is read of a row whose payload is not. A longer Kafka key is
/// rejected: each fetch would have to read it.
pub const TEXT_BYTES_MAX: usize = 64 << 10;

/// Size of a row in bytes: payload, texts and headers. It reads no value that is stored out of
/// line, but for headers that are compressed. At most 200 compressed bytes hold less than 64 KiB.
const BYTES: &str = "(coalesce(octet_length({r}.payload), 0)::bigint
    + octet_length({r}.aggregate_type) + octet_length({r}.aggregate_id)
    + octet_length({r}.event_type) + coalesce(octet_length({r}.event_key), 0)
    + case
      when pg_column_size({r}.headers) <= 200 or pg_column_compression({r}.headers) is null
      then pg_column_size({r}.headers) else octet_length({r}.headers::text) end)";

/// The columns of a row, in the order in which they are decoded. A text that is too long to be read
/// with every fetch is replaced by the row's event_id.
const COLUMNS: &str = "{r}.lane, {r}.id, {r}.event_id,
  @long({r}, aggregate_type, {limit})@, @long({r}, aggregate_id, {limit})@,
  @long({r}, event_type, {limit})@, {r}.topic, @long({r}, event_key, {limit})@,
  case when {r}.bytes <= {limit} then {r}.payload end,
  case when {r}.bytes <= {limit} then @headers({r})@ end,
  {r}.created_at, tidsend({r}.place), {r}.bytes, @fault({r}, {limit})@";

impl TextReading {
    /// Inserts the shared parts into a template.
    #[must_use]
    pub fn expand(self, template: &str) -> String {
        let mut text = template.to_owned();
        while let Some((before, call, after)) = next_call(&text) {
            text = format!("{before}{}{after}", self.part(call));
        }
        text
    }

    /// The text of one part, such as `bytes(e)`.
    fn part(self, call: Call<'_>) -> String {
        let row = call.arguments[0];
        match (call.name, &call.arguments[1..]) {
            ("columns", [limit]) => COLUMNS.replace("{r}", row).replace("{limit}", limit),
            ("key", _) => self.short(
                row,
                &format!("coalesce({row}.event_key, {row}.aggregate_id)"),
            ),
            ("text", [column]) => self.short(row, &format!("{row}.{column}")),
            ("long", [column, limit]) => self.long(row, column, limit),
            ("headers", _) => self.readable(&format!("{row}.headers::text")),
            ("fault", [limit]) => self.fault(row, limit),
            _ => BYTES.replace("{r}", row),
        }
    }

    fn readable(self, text: &str) -> String {
        match self {
            Self::Plain => text.to_owned(),
            Self::Checked => format!("@schema@.readable_text({text})"),
        }
    }

    /// A text, unless it is too long.
    fn short(self, row: &str, text: &str) -> String {
        let readable = self.readable(text);
        format!(
            "case when octet_length({text}) > {TEXT_BYTES_MAX} then 'too-long:' || {row}.event_id \
             else {readable} end"
        )
    }

    /// A text, unless it is too long and the row larger than `limit`.
    fn long(self, row: &str, column: &str, limit: &str) -> String {
        let text = format!("{row}.{column}");
        let readable = self.readable(&text);
        format!(
            "case when {row}.bytes > {limit} and octet_length({text}) > {TEXT_BYTES_MAX} then \
             'too-long:' || {row}.event_id else {readable} end"
        )
    }

    /// Why a row cannot become a record, whatever the brokers take; null: it may.
    fn fault(self, row: &str, limit: &str) -> String {
        let key = format!("coalesce({row}.event_key, {row}.aggregate_id)");
        let column = match self {
            Self::Plain => "null".to_owned(),
            Self::Checked => {
                let short = |column: &str| {
                    format!(
                        "case when {row}.bytes <= {limit} or octet_length({row}.{column}) <= \
                         {TEXT_BYTES_MAX} then {row}.{column} end"
                    )
                };
                let [aggregate_type, aggregate_id, event_type, event_key] =
                    ["aggregate_type", "aggregate_id", "event_type", "event_key"].map(short);
                format!(
                    "@schema@.unreadable_column({aggregate_type}, {aggregate_id}, {event_type}, \
                     {event_key}, case when {row}.bytes <= {limit} then {row}.headers::text end)"
                )
            }
        };
        format!(
            "case when {row}.bytes > {TEXT_BYTES_MAX} and octet_length({key}) > {TEXT_BYTES_MAX} \
             then 'key' else {column} end"
        )
    }
}

/// A part that a template asks for.
struct Call<'a> {
    name: &'a str,
    arguments: Vec<&'a str>,
}

/// The first part that a template asks for, with what is before and after it.
fn next_call(template: &str) -> Option<(&str, Call<'_>, &str)> {
    let end = template.find(")@")?;
    let open = template[..end].rfind('@')?;
    let (name, arguments) = template[open + 1..end].split_once('(')?;
    let call = Call {
        name,
        arguments: arguments.split(", ").collect(),
    };
    Some((&template[..open], call, &template[end + 2..]))
}
