//! Checks of the server and the login. Pure.

use crate::{
    api::TlsMode,
    doctor::{
        checks::skip,
        codes::{Code, Group},
        facts::{DatabaseFacts, Fact, SettingsFacts},
        report::Finding,
    },
    outbox::doctor::ServerFacts,
};

/// Oldest version of PostgreSQL that can hold an outbox.
const VERSION_MIN: i32 = 15;
/// Difference between two clocks that is tolerated, in seconds.
const CLOCK_TOLERATED: f64 = 60.0;
/// Shortest timeout of a session that leaves room for work, in ms.
const TIMEOUT_MIN_MS: i64 = 1000;
/// Connecting slower than this is worth a warning, in ms.
const CONNECT_SLOW_MS: u64 = 2000;
/// Age of a transaction from which dead rows pile up, in seconds.
const TRANSACTION_OLD: f64 = 3600.0;

/// Whether the connection is protected, by the settings alone.
pub(super) fn tls(settings: &SettingsFacts) -> Finding {
    by_mode(Code::DatabaseTls, settings.database_tls)
}

/// What a TLS mode means.
pub(super) fn by_mode(code: Code, mode: TlsMode) -> Finding {
    match mode {
        TlsMode::VerifyFull => Finding::ok(code, "verify-full"),
        TlsMode::VerifyCa => Finding::ok(code, "verify-ca: the host name is not verified"),
        TlsMode::Require => Finding::warning(
            code,
            "require: encrypted, but the server is not verified; set verify-full and a CA",
        ),
        TlsMode::Disable => Finding::warning(
            code,
            "disable: passwords and payloads can be read on the network; set verify-full",
        ),
    }
}

/// All checks of the group but [`tls`].
pub(super) fn all(
    database: Option<&Fact<DatabaseFacts>>,
    settings: &SettingsFacts,
) -> Vec<Finding> {
    let is_other = |code: Code| {
        code.group() == Group::Database && !matches!(code, Code::DatabaseLogin | Code::DatabaseTls)
    };
    match database {
        Some(Ok(database)) => logged_in(database, settings),
        Some(Err(problem)) => {
            let mut findings = skip(Code::DatabaseLogin, is_other);
            findings.push(Finding::problem(Code::DatabaseLogin, problem));
            findings
        }
        None => skip(Code::Settings, |code| {
            is_other(code) || code == Code::DatabaseLogin
        }),
    }
}

fn logged_in(database: &DatabaseFacts, settings: &SettingsFacts) -> Vec<Finding> {
    let mut findings = vec![login(database), clock(database.here_ahead_seconds)];
    match &database.server {
        Ok(server) => findings.extend([
            version(database.product.as_deref(), server),
            primary(server),
            encoding(server),
            functions(server),
            timeouts(server),
            connections(server, settings),
            autovacuum(server),
            transactions(server),
        ]),
        Err(problem) => {
            let of_server = Code::ALL.into_iter().filter(|code| is_of_server(*code));
            findings.extend(of_server.map(|code| Finding::unknown(code, problem)));
        }
    }
    findings
}

/// Whether a check needs what was read of the server.
fn is_of_server(code: Code) -> bool {
    let others = [Code::DatabaseLogin, Code::DatabaseTls, Code::ServerClock];
    code.group() == Group::Database && !others.contains(&code)
}

fn login(database: &DatabaseFacts) -> Finding {
    let (location, ms) = (&database.location, database.connect_ms);
    if let Err(problem) = &database.server {
        let (class, why) = (problem.class, &problem.message);
        let message = format!("{location}: connected, but statements fail: {class}: {why}");
        return Finding::fault(Code::DatabaseLogin, message);
    }
    let message = format!("{location}: connected in {ms} ms");
    if ms < CONNECT_SLOW_MS {
        Finding::ok(Code::DatabaseLogin, message)
    } else {
        let why = "check the name server, the network, and the load of the server";
        Finding::warning(Code::DatabaseLogin, format!("{message}: {why}"))
    }
}

/// The difference says only that one of the two is wrong. Published is by the database's.
fn clock(here_ahead: f64) -> Finding {
    let direction = if here_ahead < 0.0 {
        "ahead of"
    } else {
        "behind"
    };
    let seconds = here_ahead.abs();
    if seconds <= CLOCK_TOLERATED {
        let message = format!("{seconds:.1} s {direction} the clock here");
        return Finding::ok(Code::ServerClock, message);
    }
    let message = format!(
        "the clock of the database is {seconds:.0} s {direction} the clock here: if the database's \
         is the wrong one, brokers reject records or delete them early; correct the clock that is \
         wrong (NTP)"
    );
    Finding::warning(Code::ServerClock, message)
}

fn version(product: Option<&str>, server: &ServerFacts) -> Finding {
    let (code, major) = (Code::ServerVersion, server.version_major);
    match product {
        Some(why) => Finding::fault(code, why),
        None if major < VERSION_MIN => Finding::fault(
            code,
            format!("PostgreSQL {major}: an outbox needs {VERSION_MIN} or newer; upgrade it"),
        ),
        None => Finding::ok(code, format!("PostgreSQL {major}")),
    }
}

fn primary(server: &ServerFacts) -> Finding {
    let code = Code::ServerPrimary;
    if server.in_recovery {
        let message = "the server is a standby: use the address of the primary";
        Finding::fault(code, message)
    } else if server.read_only {
        let message = "default_transaction_read_only is on for this role, database or server: \
            reset it";
        Finding::fault(code, message)
    } else {
        Finding::ok(code, "it accepts writes")
    }
}

fn encoding(server: &ServerFacts) -> Finding {
    let (code, encoding) = (Code::ServerEncoding, &server.encoding);
    if encoding == "UTF8" {
        return Finding::ok(code, "UTF8");
    }
    let message = format!(
        "{encoding}: a row whose text cannot become UTF-8 is parked with its key; use a database \
         in UTF8, or write ASCII only"
    );
    Finding::warning(code, message)
}

fn functions(server: &ServerFacts) -> Finding {
    let code = Code::ServerFunctions;
    if server.refused_functions.is_empty() {
        return Finding::ok(code, "the server answers all questions");
    }
    let refused: Vec<String> = server
        .refused_functions
        .iter()
        .map(|refused| format!("{} (SQLSTATE {})", refused.function, refused.sqlstate))
        .collect();
    let message = format!(
        "the server refuses {}: the outbox works without, but notices fewer restores and \
         failovers; GRANT EXECUTE on them, or see docs/servers.md",
        refused.join(", ")
    );
    Finding::warning(code, message)
}

fn timeouts(server: &ServerFacts) -> Finding {
    let code = Code::SessionTimeouts;
    let is_short = |ms: i64| ms > 0 && ms < TIMEOUT_MIN_MS;
    let short: Vec<String> = server
        .timeouts
        .iter()
        .filter(|(_, ms)| is_short(*ms))
        .map(|(name, ms)| format!("{name}={ms}ms"))
        .collect();
    if short.is_empty() {
        return Finding::ok(code, "none below a second");
    }
    let message = format!(
        "{} for this role, database or server: work that takes longer fails; ALTER ROLE {} RESET \
         it",
        short.join(", "),
        server.role
    );
    Finding::fault(code, message)
}

/// A relay opens as many connections as `maxConnections`.
fn connections(server: &ServerFacts, settings: &SettingsFacts) -> Finding {
    let (code, needed) = (Code::ConnectionLimit, i64::from(settings.max_connections));
    if let Some((of, limit)) = low_limit(server, needed) {
        let message = format!(
            "CONNECTION LIMIT {limit} of the {of} is less than spec.database.maxConnections \
             ({needed}) of one relay: raise the limit, or lower maxConnections"
        );
        return Finding::fault(code, message);
    }
    let (used, max) = (server.connections_used, server.connections_max);
    let message = format!("{used} of {max} connections of the server are used");
    if max - used >= needed {
        return Finding::ok(code, message);
    }
    let next = "raise max_connections, or end sessions";
    Finding::warning(
        code,
        format!("{message}: another relay needs {needed}; {next}"),
    )
}

/// A limit that is too low. Limits of -1 are none.
fn low_limit(server: &ServerFacts, needed: i64) -> Option<(&'static str, i64)> {
    let limits = [
        ("role", server.role_connection_limit),
        ("database", server.database_connection_limit),
    ];
    let is_low = |(_, limit): &(&str, i64)| (0..needed).contains(limit);
    limits.into_iter().find(is_low)
}

fn autovacuum(server: &ServerFacts) -> Finding {
    let code = Code::Autovacuum;
    let off = match (server.autovacuum, server.table_autovacuum) {
        (false, _) => "autovacuum is off on the server",
        (true, Some(false)) => "autovacuum is off for table event",
        (true, _) => return Finding::ok(code, "on"),
    };
    let message = format!("{off}: dead rows pile up, and fetches get slower; switch it on");
    Finding::warning(code, message)
}

fn transactions(server: &ServerFacts) -> Finding {
    let code = Code::OldTransactions;
    match server.oldest_transaction_seconds {
        Some(seconds) if seconds >= TRANSACTION_OLD => {
            let message = format!(
                "a transaction is open for {:.0} min: dead rows cannot be removed meanwhile; end \
                 it",
                seconds / 60.0
            );
            Finding::warning(code, message)
        }
        Some(seconds) => Finding::ok(code, format!("the oldest is {seconds:.0} s old")),
        None => Finding::ok(
            code,
            "none visible to this user (GRANT pg_read_all_stats shows all)",
        ),
    }
}
