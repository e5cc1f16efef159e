//! SQLSTATE of an error -> a problem class and words: what, why, next step. Pure.
//!
//! Codes that users of this product can cause have words of their own. Every other code gets the
//! words of its class, and its number. The server's own message is only compared, never shown.

use std::borrow::Cow;

use crate::report::ProblemClass::{
    self, AdoptionFailed, AuthenticationFailed, DatabaseError as Failed, DatabaseFull,
    DatabaseMissing, DatabaseReadOnly, InsufficientPrivilege, InvalidSettings, LockTimeout,
    NewerSchema, RoleMissing, SchemaNotReady, SecretInvalid, Unreachable,
};

/// What was being done when the server answered with an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// A connection was being opened: no statement was sent yet.
    Connecting,
    /// A statement was sent.
    Working,
}

/// Problem class of an error, and its words.
pub(super) type Meaning = (ProblemClass, Cow<'static, str>);

/// Class and words that are fixed.
type Fixed = (ProblemClass, &'static str);

/// Meaning of an error that the server sent with `code` and `message`.
pub(super) fn meaning(code: &str, message: &str, phase: Phase) -> Meaning {
    let own = by_pooler(code, message)
        .or_else(|| match phase {
            Phase::Connecting => while_connecting(code, message),
            Phase::Working => None,
        })
        .or_else(|| by_message(code, message));
    if let Some((class, words)) = own {
        return (class, words.into());
    }
    let fixed = match phase {
        Phase::Working if code == "42501" => {
            return (InsufficientPrivilege, missing_privilege(message));
        }
        Phase::Connecting if is_of_statements(code) => None,
        _ => by_code(code),
    };
    match fixed {
        Some((class, words)) => (class, words.into()),
        None => with_number(by_class(code, phase), code),
    }
}

fn with_number((class, words): Fixed, code: &str) -> Meaning {
    (class, format!("{words} (SQLSTATE {code})").into())
}

/// Errors that a pooler sends, or that show that there is one.
fn by_pooler(code: &str, message: &str) -> Option<Fixed> {
    match code {
        "08P01" | "22P02" | "22023" | "26000" | "42P05" if is_by_pooler(code, message) => Some((
            InvalidSettings,
            "there is a pooler in front of the server, but spec.database.pooler is not set: set it \
             to true, or connect to the server directly",
        )),
        "08P01" if message.starts_with("transaction blocks not allowed") => Some((
            InvalidSettings,
            "the pooler is in statement mode: set its pool_mode to transaction, or connect to the \
             server directly",
        )),
        // PgBouncer sends this code for all errors of its own: only the message distinguishes them.
        "08P01" if message.ends_with("authentication failed") => Some((
            AuthenticationFailed,
            "the pooler rejected the user name or password: correct the Secret; the new value is \
             used automatically",
        )),
        "08P01" if message.starts_with("no such database") => Some((
            DatabaseMissing,
            "the pooler does not know this database: add it there, or correct its name",
        )),
        "08P01" => Some((
            Unreachable,
            "the pooler has no connection to the server, or closed this one; this is retried",
        )),
        _ => None,
    }
}

/// Whether an error shows that a pooler is in between: it concerns settings of the session, or a
/// prepared statement that went to another connection.
fn is_by_pooler(code: &str, message: &str) -> bool {
    let starts: &[&str] = match code {
        // PostgreSQL itself sends this code for a setting with a value out of its range.
        "22023" => &[],
        _ => &[
            "invalid value for parameter",
            "unsupported startup parameter",
            "prepared statement",
        ],
    };
    starts.iter().any(|start| message.starts_with(start))
}

/// Meaning of a code that comes before any statement: of the login, and of settings that come with
/// it.
fn while_connecting(code: &str, message: &str) -> Option<Fixed> {
    let fixed = match code {
        "42501" if message.starts_with("permission denied to set parameter") => (
            InvalidSettings,
            "this user may not set a parameter that comes with the login: remove it from parameter \
             'options' of the URL",
        ),
        "42501" => (
            InsufficientPrivilege,
            "this user may not connect to the database: GRANT CONNECT ON DATABASE to it",
        ),
        "42704" | "55P02" | "22023" | "42601" | "22P02" => (
            InvalidSettings,
            "the server refuses a setting that comes with the login: correct parameter 'options' \
             of the URL, or the setting of ALTER ROLE or ALTER DATABASE",
        ),
        "55000" => (
            DatabaseMissing,
            "the database accepts no connections: allow them (ALTER DATABASE .. ALLOW_CONNECTIONS \
             true), or correct its name",
        ),
        "0A000" => (
            InvalidSettings,
            "the peer does not support the protocol of PostgreSQL 15 or newer: check host and port",
        ),
        _ => return None,
    };
    Some(fixed)
}

/// Meaning of errors whose code says too little: their message is compared with known ones.
fn by_message(code: &str, message: &str) -> Option<Fixed> {
    let fixed = match code {
        // requeue() raises it.
        "55000" if message.starts_with("a row that could not be converted") => (
            AdoptionFailed,
            "a dead letter of class AdoptionFailed holds no event, so it cannot be requeued: \
             correct migration.adopt, insert the row into its table again, then discard the dead \
             letter; requeue others by their class",
        ),
        "53300" if message.starts_with("too many connections for role") => (
            Unreachable,
            "the CONNECTION LIMIT of this user is reached: raise it (ALTER ROLE .. CONNECTION \
             LIMIT) to maxConnections for each relay",
        ),
        "53300" if message.starts_with("too many connections for database") => (
            Unreachable,
            "the CONNECTION LIMIT of the database is reached: raise it (ALTER DATABASE .. \
             CONNECTION LIMIT)",
        ),
        _ => return None,
    };
    Some(fixed)
}

/// Words for a missing right. The server's message contains the object, and never a row.
fn missing_privilege(message: &str) -> Cow<'static, str> {
    match refused_object(message) {
        Some((kind, name)) => format!(
            "the database user lacks a right on {kind} {name}: run the migration again, or GRANT \
             {} ON {} {name} to it",
            rights_on(kind),
            kind.to_uppercase()
        )
        .into(),
        None => "the database user lacks a right, or is not the owner of an object: run the \
            migration again, or GRANT the right; outbox-relay migrate with policy Verify lists \
            what is missing"
            .into(),
    }
}

/// Kinds of objects in the server's messages about rights.
const OBJECT_KINDS: &[&str] = &[
    "table",
    "view",
    "sequence",
    "schema",
    "function",
    "database",
    "type",
    "language",
    "foreign server",
    "tablespace",
];

/// Kind and name of the object that a user has no right on.
fn refused_object(message: &str) -> Option<(&'static str, &str)> {
    let object = message
        .strip_prefix("permission denied for ")
        .or_else(|| message.strip_prefix("must be owner of "))?;
    OBJECT_KINDS.iter().find_map(|kind| {
        let name = object.strip_prefix(kind)?.strip_prefix(' ')?;
        Some((*kind, name))
    })
}

/// Rights that the outbox needs on an object of this kind.
fn rights_on(kind: &str) -> &'static str {
    match kind {
        "schema" | "type" | "language" | "foreign server" => "USAGE",
        "sequence" => "USAGE, SELECT",
        "function" => "EXECUTE",
        "database" | "tablespace" => "CREATE",
        _ => "SELECT",
    }
}

/// Words for codes that users of the outbox can cause.
fn by_code(code: &str) -> Option<Fixed> {
    connection_code(code)
        .or_else(|| value_code(code))
        .or_else(|| schema_code(code))
        .or_else(|| transaction_code(code))
        .or_else(|| resource_code(code))
}

/// Codes of the connection and of the login: 08, 28, 3D, 57, and 58.
fn connection_code(code: &str) -> Option<Fixed> {
    let fixed = match code {
        "08000" | "08003" | "08006" => (
            Unreachable,
            "the connection to the server broke; this is retried",
        ),
        "08001" => (
            Unreachable,
            "a proxy could not connect to the server: check the proxy and its server",
        ),
        "08004" => (
            Unreachable,
            "the server refused the connection: check its limits, and what is allowed to connect",
        ),
        "08007" => (
            Unreachable,
            "the connection broke during a commit, whose result is unknown; this is retried",
        ),
        "28P01" => (
            AuthenticationFailed,
            "the server rejected the user name or password: correct the Secret; the new value is \
             used automatically",
        ),
        "28000" => (
            AuthenticationFailed,
            "the server does not allow this user to log in from here: check the user name, \
             pg_hba.conf, and whether TLS or a client certificate is required",
        ),
        "3D000" => (
            DatabaseMissing,
            "the database does not exist: create it, or correct its name",
        ),
        "57P01" | "57P02" | "57P03" => (
            Unreachable,
            "the server is starting or stopping, or somebody ended the connection; this is retried",
        ),
        "57P04" => (
            DatabaseMissing,
            "the database was dropped: create it again, or correct its name",
        ),
        "57P05" => (
            Unreachable,
            "the server closed a connection after its idle_session_timeout; the relay opens \
             another one automatically",
        ),
        "57014" => (
            Failed,
            "a statement took too long and was cancelled: check whether the server is overloaded, \
             or a transaction has been open for hours",
        ),
        "57000" => (Failed, "somebody stopped the statement; this is retried"),
        "58000" | "58030" => (
            Failed,
            "the server's system failed to read or write: check its disk and its log",
        ),
        "58P01" | "58P02" => (
            Failed,
            "the server lacks a file, or a file is in its way: check its installation, its \
             extensions and its disk",
        ),
        _ => return None,
    };
    Some(fixed)
}

/// Codes of values and constraints: 22 and 23.
fn value_code(code: &str) -> Option<Fixed> {
    let fixed = match code {
        "22021" | "22P05" => (
            Failed,
            "a text of a row cannot be converted to UTF-8: find the row and correct it; a database \
             with encoding UTF8 takes no such text",
        ),
        "2200H" => (
            Failed,
            "a sequence has reached its end: the outbox's own has none, so undo the change to it \
             (ALTER SEQUENCE .. NO MAXVALUE)",
        ),
        "22001" | "22003" | "22008" | "22026" => (
            Failed,
            "a value does not fit its column: check columns and triggers that were changed by hand",
        ),
        "22P02" | "22P03" | "22007" | "22018" => (
            Failed,
            "a value does not have the form that its type needs: check triggers and functions that \
             were added to the outbox",
        ),
        "22023" => (
            Failed,
            "a function refused a value: check triggers and settings that were changed by hand",
        ),
        "22004" | "22012" => (
            Failed,
            "an expression cannot be evaluated: check triggers and functions that were added to \
             the outbox",
        ),
        "23502" | "23514" | "23503" | "23505" | "23P01" => (
            Failed,
            "a constraint of a table was violated: check constraints and triggers that were added \
             to the outbox",
        ),
        _ => return None,
    };
    Some(fixed)
}

/// Codes of names, types and features: 0A, 26, 2B, 3F and 42.
fn schema_code(code: &str) -> Option<Fixed> {
    let fixed = match code {
        "3F000" | "42P01" | "42883" | "42703" => (
            SchemaNotReady,
            "the outbox schema is missing or older than this version needs: run the migration",
        ),
        "42804" | "42846" | "0A000" => (
            SchemaNotReady,
            "a column of the outbox does not have the type that the migrations gave it, probably \
             changed by hand: undo the change; outbox-relay migrate shows which one",
        ),
        "42P10" | "42809" | "428C9" => (
            SchemaNotReady,
            "an index, column or table of the outbox is not as the migrations made it, probably \
             changed by hand: undo the change; outbox-relay migrate shows which one",
        ),
        "42704" => (
            RoleMissing,
            "a role or another object does not exist: create it; a role in migration.grants can \
             also be removed there",
        ),
        "0P000" => (
            RoleMissing,
            "a role cannot be used: create it, or correct migration.grants",
        ),
        "0LP01" | "0L000" => (
            InsufficientPrivilege,
            "this user may not grant these rights: run the migration as the owner of the schema",
        ),
        "2BP01" | "2B000" => (
            Failed,
            "other objects depend on one that should be dropped or changed: drop them first",
        ),
        "42P07" | "42710" | "42723" | "42701" | "42P06" => (
            Failed,
            "an object of this name exists already: rename or drop it, or use another schema",
        ),
        "42601" | "42P02" | "42P08" | "42P18" | "42702" | "42725" => (
            NewerSchema,
            "the server does not understand a statement of this version: check that it is \
             PostgreSQL 15 or newer, and that the schema has no objects with names of functions",
        ),
        "42939" | "42602" | "42622" => (
            InvalidSettings,
            "a name cannot be used: correct the names of schema, roles and tables in the manifest",
        ),
        "42P17" | "42P16" | "42P13" | "42611" | "42830" => (
            Failed,
            "the server refuses a definition: check objects of the schema that were changed by \
             hand",
        ),
        "26000" | "42P05" => (
            Failed,
            "a prepared statement is gone or exists already: something closed or shared the \
             session; if a pooler is in front of the server, set spec.database.pooler",
        ),
        _ => return None,
    };
    Some(fixed)
}

/// Codes of transactions and locks: 25, 40 and 55.
fn transaction_code(code: &str) -> Option<Fixed> {
    let fixed = match code {
        "25006" => (
            DatabaseReadOnly,
            "the database is read-only: if it is a standby, connect to the primary; else set \
             default_transaction_read_only to off",
        ),
        "25P02" => (
            Failed,
            "a statement failed in this transaction before; it is retried as a whole",
        ),
        "25P03" => (
            Failed,
            "the server ended a transaction after its idle_in_transaction_session_timeout: the \
             relay or the network was too slow; this is retried",
        ),
        "25P04" => (
            Failed,
            "the server ended a transaction after its transaction_timeout: raise it for this user, \
             ALTER ROLE .. SET transaction_timeout = '10min'",
        ),
        "25001" | "25P01" | "25000" => (
            Failed,
            "a statement came inside or outside of a transaction against its rules: if a pooler is \
             in front of the server, set spec.database.pooler",
        ),
        "40P01" | "40001" | "40000" | "40002" | "40003" => (
            Failed,
            "a statement conflicted with another session; this is retried",
        ),
        "55P03" => (
            LockTimeout,
            "a lock was not available in time, because another session holds it; this is retried",
        ),
        "55000" => (
            Failed,
            "an object is not in the state that a statement needs: check settings and extensions \
             of the server, and objects of the schema that were changed by hand",
        ),
        "55006" => (
            LockTimeout,
            "another session uses an object that should change; this is retried",
        ),
        "55P02" => (
            InvalidSettings,
            "a setting cannot be changed in a session: undo what ALTER ROLE or ALTER DATABASE set",
        ),
        "55P04" => (
            Failed,
            "a value of an enum is too new for this transaction; this is retried",
        ),
        _ => return None,
    };
    Some(fixed)
}

/// Codes of limits and of damage: 53, 54, F0, P0 and XX.
fn resource_code(code: &str) -> Option<Fixed> {
    let fixed = match code {
        "53300" => (
            Unreachable,
            "no connection is free: the server's max_connections, or the CONNECTION LIMIT of user \
             or database, is reached: raise it, or lower maxConnections or replicas",
        ),
        "53100" | "53400" => (
            DatabaseFull,
            "the server has no space left, on its disk or within a limit: free some space",
        ),
        "53200" => (
            Failed,
            "the server has no memory left: raise its memory, or max_locks_per_transaction if its \
             log mentions locks",
        ),
        "53000" => (
            Failed,
            "the server lacks a resource: check its memory, its disk and its limits",
        ),
        "54001" => (
            Failed,
            "a statement needs too deep a stack: raise max_stack_depth, and look for triggers that \
             call each other",
        ),
        "54000" | "54011" | "54023" => (
            Failed,
            "a limit of the server is exceeded: check rows, columns and indexes that were added to \
             the outbox",
        ),
        "F0000" | "F0001" => (
            Failed,
            "the server's configuration files are wrong: correct them, its log reports the line",
        ),
        "P0001" => (
            Failed,
            "a trigger or function raised an exception: check those that were added to the outbox",
        ),
        "P0002" | "P0003" | "P0004" => (
            Failed,
            "a function in PL/pgSQL failed: check triggers and functions that were added to the \
             outbox",
        ),
        "XX000" => (
            Failed,
            "the server has an internal error: check extensions and proxies, and update PostgreSQL",
        ),
        "XX001" => (
            Failed,
            "data of the server is damaged: check its disk, and restore from a backup",
        ),
        "XX002" => (
            Failed,
            "an index is damaged: REINDEX it, and check the server's disk",
        ),
        _ => return None,
    };
    Some(fixed)
}

/// Words for each class of codes, for codes without words of their own.
fn by_class(code: &str, phase: Phase) -> Fixed {
    let class = code.get(..2).unwrap_or_default();
    match class_words(class) {
        Some(_) if phase == Phase::Connecting && is_of_statements(code) => (
            InvalidSettings,
            "the server ended the login with an error: check parameter 'options' of the URL, \
             settings of ALTER ROLE or ALTER DATABASE, and event triggers on login",
        ),
        Some(fixed) => fixed,
        None => (
            Failed,
            "the server returned an error that PostgreSQL does not have: check that it is \
             PostgreSQL, and what proxies and extensions do",
        ),
    }
}

/// Whether a code is about statements, which a login does not send.
fn is_of_statements(code: &str) -> bool {
    !matches!(
        code.get(..2).unwrap_or_default(),
        "08" | "25" | "28" | "3D" | "53" | "55" | "57" | "58" | "F0" | "XX"
    )
}

/// Words for a class of PostgreSQL's codes: 43 in version 18, and one that 17 dropped.
fn class_words(class: &str) -> Option<Fixed> {
    statement_class_words(class).or_else(|| other_class_words(class))
}

/// Words for classes of statements, values and code in the database.
fn statement_class_words(class: &str) -> Option<Fixed> {
    let fixed = match class {
        "00" | "01" | "02" => (
            Failed,
            "the server reported a success or a warning as an error: check proxies and triggers",
        ),
        "03" | "0B" | "25" | "2D" | "3B" => (
            Failed,
            "the state of a transaction does not allow a statement: check poolers and proxies in \
             front of the server; this is retried",
        ),
        "08" => (
            Unreachable,
            "the connection failed: check host, port and proxies; this is retried",
        ),
        "09" | "27" | "2F" | "38" | "39" | "P0" => (
            Failed,
            "a trigger or function failed: check those that were added to the outbox",
        ),
        "0A" => (
            Failed,
            "the server does not support a statement: check that it is PostgreSQL 15 or newer",
        ),
        "0F" | "0Z" | "10" | "20" | "21" | "22" => (
            Failed,
            "a value or expression cannot be evaluated: check triggers and functions that were \
             added to the outbox",
        ),
        "0L" => (
            InsufficientPrivilege,
            "this user may not grant these rights: run the migration as the owner of the schema",
        ),
        "0P" => (
            RoleMissing,
            "a role cannot be used: create it, or correct migration.grants",
        ),
        "23" | "44" => (
            Failed,
            "a constraint was violated: check constraints and triggers that were added to the \
             outbox",
        ),
        "24" | "26" | "34" => (
            Failed,
            "a cursor or statement of the session is gone: check poolers and proxies in front of \
             the server",
        ),
        _ => return None,
    };
    Some(fixed)
}

/// Words for the other classes: logins, names, transactions and the server.
fn other_class_words(class: &str) -> Option<Fixed> {
    let fixed = match class {
        "28" => (
            AuthenticationFailed,
            "the server rejected the login: correct the user name or password in the Secret",
        ),
        "2B" => (
            Failed,
            "other objects depend on one that should be dropped or changed: drop them first",
        ),
        "3D" => (
            DatabaseMissing,
            "the database does not exist: create it, or correct its name",
        ),
        "3F" => (
            SchemaNotReady,
            "the outbox schema is missing: run the migration",
        ),
        "40" | "72" => (
            Failed,
            "the server rolled a transaction back; this is retried",
        ),
        "42" => (
            SchemaNotReady,
            "an object of the schema is not as the migrations made it, or was changed by hand: run \
             outbox-relay migrate, which shows what differs",
        ),
        "53" | "54" => (
            Failed,
            "a resource or limit of the server is exhausted: check its memory, disk and settings",
        ),
        "55" => (
            Failed,
            "an object is not in the state that a statement needs; this is retried",
        ),
        "57" => (
            Unreachable,
            "an operator or the server itself stopped the work; this is retried",
        ),
        "58" => (
            Failed,
            "the server's system failed: check its disk and its installation",
        ),
        "F0" => (
            Failed,
            "the server's configuration is wrong: correct its configuration files",
        ),
        "HV" => (
            Failed,
            "a foreign table or server failed: keep foreign tables out of the outbox and its \
             triggers",
        ),
        "XX" => (
            Failed,
            "the server has an internal error or damaged data: check its disk, and update \
             PostgreSQL",
        ),
        _ => return None,
    };
    Some(fixed)
}

/// Problem of secrets that the client library refuses before it connects.
pub(super) const UNUSABLE_SECRETS: Fixed = (
    SecretInvalid,
    "the connection's secrets cannot be used: check the URL, and that certificate and key match \
     and are in PEM form",
);

#[cfg(test)]
mod tests;
