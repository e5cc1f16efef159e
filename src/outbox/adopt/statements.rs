//! Adopted table -> the SQL of its functions and triggers. Pure.

use sha2::{Digest, Sha256};

use crate::{
    outbox::{
        adopt::{
            TRIGGER_ADD, TRIGGER_MARK,
            conversion::{Conversion, Conversions, EventColumn, NullPayload},
            registry::State,
            table::Table,
        },
        schema::{literal, quoted},
    },
    settings::{AdoptSettings, ExhaustedRows, SchemaName},
};

/// Types of the payload expressions. A payload of type bytea is published as it is; of other types,
/// their text is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct PayloadTypes {
    pub(super) main: String,
    pub(super) fallback: String,
}

/// Everything from which the SQL of an adopted table is made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Adoption<'a> {
    pub(super) schema: &'a SchemaName,
    pub(super) settings: &'a AdoptSettings,
    pub(super) table: &'a Table,
    /// Number of the table in `adopted`.
    pub(super) source: i16,
    pub(super) conversions: Conversions,
    pub(super) payload_types: PayloadTypes,
}

/// Which rows the statements that move waiting rows lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RowLocks {
    /// The whole table is locked already.
    None,
    /// Each row is locked, against an old worker.
    ForUpdate,
}

impl Adoption<'_> {
    /// Statements that drop what an earlier adoption has made, and make functions and triggers.
    pub(super) fn make(&self) -> String {
        // Functions that triggers call cannot be dropped.
        [
            drop_triggers(&self.table.quoted),
            drop_functions(self.schema, self.source),
            self.functions(),
            self.triggers(),
        ]
        .concat()
    }

    /// Functions that the triggers call.
    fn functions(&self) -> String {
        let add = self.fill(include_str!("../sql/adopt/add_function.sql"), "new");
        match &self.settings.published_column {
            Some(_) => add + &self.fill(include_str!("../sql/adopt/mark_function.sql"), "new"),
            None => add,
        }
    }

    /// Triggers of the table.
    fn triggers(&self) -> String {
        let table = &self.table.quoted;
        let schema = quoted(self.schema.as_str());
        let add = self.add();
        let Some(published) = &self.settings.published_column else {
            return format!(
                "create trigger {TRIGGER_ADD} after insert on {table} for each row execute \
                 function {schema}.{add}();\n"
            );
        };
        let (published, marked, mark) = (quoted(published), self.marked(), self.mark());
        format!(
            "create trigger {TRIGGER_MARK} before insert on {table} for each row when \
             (new.{published} is null or new.{published} = {marked}) execute function \
             {schema}.{mark}();\n\
             create trigger {TRIGGER_ADD} after insert on {table} for each row when \
             (new.{published} = {marked}) execute function {schema}.{add}();\n"
        )
    }

    /// Function that moves waiting rows, the oldest first: `move_from_N(rows_max)`. `None` for a
    /// table that does not show which rows wait.
    pub(super) fn move_function(&self, locks: RowLocks) -> Option<String> {
        self.settings.published_column.as_ref()?;
        let locking = match locks {
            RowLocks::None => "",
            RowLocks::ForUpdate => "for update",
        };
        let template = include_str!("../sql/adopt/move_function.sql");
        Some(self.fill(&template.replace("@locking@", locking), "old_row"))
    }

    /// Function in `pg_temp` that counts waiting rows by topic and fault: `check_N()`.
    pub(super) fn check_function(&self) -> Option<String> {
        self.settings.published_column.as_ref()?;
        let template = include_str!("../sql/adopt/check_function.sql");
        Some(self.fill(template, "old_row"))
    }

    /// Statement that counts waiting rows up to `$1`.
    pub(super) fn count_waiting(&self) -> Option<String> {
        let waiting = self.waiting()?;
        let table = &self.table.quoted;
        Some(format!(
            "select count(*) from (select from {table} as r where {waiting} limit $1) as waiting"
        ))
    }

    /// Condition that a row waits.
    pub(super) fn any_waiting(&self) -> Option<String> {
        let waiting = self.waiting()?;
        let table = &self.table.quoted;
        Some(format!("exists (select from {table} as r where {waiting})"))
    }

    /// Statement that counts waiting rows that the old worker has given up.
    pub(super) fn count_exhausted(&self) -> Option<String> {
        let published = quoted(self.settings.published_column.as_ref()?);
        let exhausted = self.conversions.exhausted?;
        let table = &self.table.quoted;
        Some(format!(
            "select count(*) from {table} as r where r.{published} is null and {exhausted}"
        ))
    }

    /// Name of the function that moves waiting rows, with its schema.
    pub(super) fn move_name(&self) -> String {
        format!("{}.move_from_{}", quoted(self.schema.as_str()), self.source)
    }

    /// Name of the function that counts waiting rows.
    pub(super) fn check_name(&self) -> String {
        format!("check_{}", self.source)
    }

    /// Hash of everything that the migration makes for the table. Another one: it is made again.
    pub(super) fn definition(&self) -> String {
        let retain = self.settings.retain_ms;
        // Rows that were left and are to be moved now need another adoption.
        let exhausted = self.settings.exhausted;
        let (functions, triggers) = (self.functions(), self.triggers());
        let text = format!("{functions}{triggers}{retain:?}{exhausted:?}");
        let hash = Sha256::digest(text.as_bytes());
        hash.iter()
            .take(16)
            .map(|byte| format!("{byte:02x}"))
            .collect()
    }

    /// Statement that records the table in `adopted`.
    pub(super) fn registration(&self, state: State) -> String {
        let settings = self.settings;
        let or_null = |text: Option<String>| text.unwrap_or_else(|| "null".to_owned());
        let keys: Vec<String> = self
            .table
            .key_columns
            .iter()
            .map(|key| literal(key))
            .collect();
        let retain = settings.retain_ms;
        let retain = retain.map(|ms| format!("{ms} * interval '1 millisecond'"));
        let values = [
            self.source.to_string(),
            literal(&settings.schema),
            literal(&settings.table),
            literal(state.as_str()),
            literal(&self.definition()),
            or_null(settings.published_column.as_deref().map(literal)),
            format!("array[{}]", keys.join(", ")),
            or_null(retain),
        ];
        include_str!("../sql/adopt/register.sql")
            .replace("@schema@", &quoted(self.schema.as_str()))
            .replace("@values@", &values.join(", "))
    }

    fn add(&self) -> String {
        format!("add_from_{}", self.source)
    }

    fn mark(&self) -> String {
        format!("mark_{}", self.source)
    }

    /// Value of the published column in a row that the trigger has marked.
    fn marked(&self) -> String {
        let marked = "(pg_catalog.now() operator(pg_catalog.+) \
            '1 microsecond'::pg_catalog.interval)";
        let column = self.settings.published_column.as_deref();
        let kind = column.and_then(|column| self.table.type_of(column));
        match kind {
            Some(kind) if kind.ends_with("without time zone") => format!("{marked}::timestamp"),
            _ => marked.to_owned(),
        }
    }

    /// Condition for rows that wait and are to be moved.
    fn waiting(&self) -> Option<String> {
        let published = quoted(self.settings.published_column.as_ref()?);
        let waiting = format!("r.{published} is null");
        match self.conversions.exhausted {
            Some(exhausted) if self.settings.exhausted == ExhaustedRows::Leave => {
                Some(format!("{waiting} and not {exhausted}"))
            }
            _ => Some(waiting),
        }
    }

    /// Order of waiting rows: their time, then their key. Rows of one transaction often have the
    /// same time. A UUID does not show which came first, so the row's place in the table precedes
    /// it, which shows that unless somebody has updated the rows.
    fn order(&self) -> String {
        let expressions = &self.conversions.main.expressions;
        let created_at = expressions.get(&EventColumn::CreatedAt);
        let created_at = created_at.map(|expression| format!("(\n{}\n)", protected(expression)));
        let keys = &self.table.key_columns;
        let is_uuid = |column: &String| self.table.type_of(column) == Some("uuid");
        let ctid = keys.iter().any(is_uuid).then(|| "r.ctid".to_owned());
        let keys = keys.iter().map(|column| format!("r.{}", quoted(column)));
        let order = created_at.into_iter().chain(ctid).chain(keys);
        order.collect::<Vec<_>>().join(", ")
    }

    /// Primary key of a row as an object.
    fn source_key(&self, row: &str) -> String {
        let members = self.table.key_columns.iter();
        let members =
            members.map(|column| format!("{}, {row}.{}", literal(column), quoted(column)));
        format!(
            "jsonb_build_object({})",
            members.collect::<Vec<_>>().join(", ")
        )
    }

    /// Condition that a row `t` of the table has the primary key of `row`.
    fn same_key(&self, row: &str) -> String {
        let keys = self.table.key_columns.iter().map(|name| {
            let column = quoted(name);
            format!("t.{column} = {row}.{column}")
        });
        keys.collect::<Vec<_>>().join(" and ")
    }

    /// Fills a template. `row` is the name of the row in its function.
    fn fill(&self, template: &str, row: &str) -> String {
        let published = self
            .settings
            .published_column
            .as_deref()
            .unwrap_or_default();
        let template = template
            .replace("@body@", &self.body(row))
            .replace("@convert@", &self.convert(&self.conversions.main, row))
            .replace("@fallback_condition@", self.fallback_condition())
            .replace("@fallback@", &self.fallback(row))
            .replace("@alone@", &self.alone(row))
            .replace(
                "@declare@",
                include_str!("../sql/adopt/declare.sql").trim_end(),
            );
        template
            .replace("@schema@", &quoted(self.schema.as_str()))
            .replace("@table@", &self.table.quoted)
            .replace("@published@", &quoted(published))
            .replace("@marked@", &self.marked())
            .replace("@waiting@", &self.waiting().unwrap_or_default())
            .replace("@order@", &self.order())
            .replace("@same_key@", &self.same_key(row))
            .replace("@add@", &self.add())
            .replace("@mark@", &self.mark())
            .replace("@move@", &format!("move_from_{}", self.source))
            .replace("@check@", &self.check_name())
            .replace(AT, "@")
    }

    /// Statements that convert `row` and add the result to `event`.
    fn body(&self, row: &str) -> String {
        let lock = if self.settings.ordered {
            include_str!("../sql/adopt/lock_key.sql").trim_end()
        } else {
            ""
        };
        include_str!("../sql/adopt/add.sql")
            .trim_end()
            .replace("@lock@", lock)
            .replace("@source@", &self.source.to_string())
            .replace("@source_key@", &self.source_key(row))
            .replace("@row@", row)
    }

    fn fallback_condition(&self) -> &'static str {
        match self.conversions.fallback {
            Some(_) => "",
            None => " and false",
        }
    }

    fn fallback(&self, row: &str) -> String {
        let fallback = self.conversions.fallback.as_ref();
        fallback.map_or_else(
            || "    null;".to_owned(),
            |conversion| self.convert(conversion, row),
        )
    }

    /// Statements that evaluate all expressions, and set `fault` if one of them fails.
    fn convert(&self, conversion: &Conversion, row: &str) -> String {
        let columns = conversion.expressions.keys();
        let expressions = columns.clone().map(|column| self.cast(conversion, *column));
        let variables = columns.map(|column| format!("a_{}", column.name()));
        let null_payload = self.conversions.null_payload == NullPayload::Tombstone;
        include_str!("../sql/adopt/convert.sql")
            .trim_end()
            .replace(
                "@expressions@",
                &expressions.collect::<Vec<_>>().join(",\n      "),
            )
            .replace("@variables@", &variables.collect::<Vec<_>>().join(", "))
            .replace("@lateral@", conversion.lateral.trim_end())
            .replace("@null_payload@", &null_payload.to_string())
            .replace("@row@", row)
    }

    /// Statements that evaluate each expression alone.
    fn alone(&self, row: &str) -> String {
        let main = &self.conversions.main;
        let columns = main.expressions.keys().rev();
        let blocks = columns.map(|column| {
            include_str!("../sql/adopt/convert_alone.sql")
                .replace("@expression@", &self.cast(main, *column))
                .replace("@variable@", &format!("a_{}", column.name()))
                .replace("@column@", column.name())
                .replace("@on_failure@", on_failure(*column))
                .replace("@lateral@", main.lateral_of(*column).trim_end())
                .replace("@row@", row)
        });
        blocks.collect()
    }

    /// The expression for a column, converted to the type of the column.
    fn cast(&self, conversion: &Conversion, column: EventColumn) -> String {
        let expression = protected(&conversion.expressions[&column]);
        let kind = if Some(conversion) == self.conversions.fallback.as_ref() {
            &self.payload_types.fallback
        } else {
            &self.payload_types.main
        };
        match column {
            EventColumn::Payload if kind != "bytea" => {
                format!("convert_to((\n{expression}\n)::text, 'UTF8')")
            }
            _ => format!("(\n{expression}\n)::{}", column.sql_type()),
        }
    }
}

/// Stands for `@` in an expression until a template is filled, so that an expression with the name
/// of one of our placeholders keeps it. No text in PostgreSQL has this character.
const AT: char = '\0';

fn protected(expression: &str) -> String {
    expression.replace('@', "\0")
}

/// What else happens in a row whose expression for the column fails. Without its own key, a row has
/// no place in the order of its aggregate: the id of the aggregate is not its key.
fn on_failure(column: EventColumn) -> &'static str {
    match column {
        EventColumn::EventKey => "has_key := false;",
        _ => "",
    }
}

/// Statements that drop our triggers of a table. `table` is quoted.
pub(super) fn drop_triggers(table: &str) -> String {
    format!(
        "drop trigger if exists {TRIGGER_MARK} on {table};\n\
         drop trigger if exists {TRIGGER_ADD} on {table};\n"
    )
}

/// Statements that drop the functions of an adopted table, and record that it is released.
pub(super) fn release(schema: &SchemaName, source: i16) -> String {
    format!(
        "{}update {}.adopted set state = 'Released', definition = '', changed_at = \
         clock_timestamp() where source = {source};\n",
        drop_functions(schema, source),
        quoted(schema.as_str())
    )
}

/// Statements that drop the functions of an adopted table.
fn drop_functions(schema: &SchemaName, source: i16) -> String {
    let schema = quoted(schema.as_str());
    format!(
        "drop function if exists {schema}.add_from_{source}();\ndrop function if exists \
         {schema}.mark_{source}();\ndrop function if exists {schema}.move_from_{source}(bigint);\n"
    )
}

/// Statement that gives the rows that still wait in `event`, and the dead letters, back to their
/// table. Returns how many.
pub(super) fn give_back(
    schema: &SchemaName,
    source: i16,
    table: &Table,
    published_column: &str,
) -> String {
    let keys = table.key_columns.iter().map(|name| {
        let (column, kind) = (quoted(name), table.type_of(name).unwrap_or("text"));
        format!("t.{column} = (w.source_key ->> {})::{kind}", literal(name))
    });
    include_str!("../sql/adopt/give_back.sql")
        .replace("@schema@", &quoted(schema.as_str()))
        .replace("@table@", &table.quoted)
        .replace("@published@", &quoted(published_column))
        .replace("@same_key@", &keys.collect::<Vec<_>>().join(" and "))
        .replace("@source@", &source.to_string())
}
