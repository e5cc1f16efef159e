//! Dumps and restores of databases, by PostgreSQL's own programs.

use std::process::{Command, Stdio};

use super::postgres::Database;

/// Starts a client program of PostgreSQL with the login of the database's owner.
fn client(program: &str, database: &Database) -> Command {
    let address = database.address();
    let mut command = Command::new(program);
    command.env("PGPASSWORD", database.password()).args([
        "--host",
        &address.ip().to_string(),
        "--port",
        &address.port().to_string(),
    ]);
    command.args(["--username", &database.owner, "--dbname", &database.name]);
    command
}

/// Dumps a database with `pg_dump` and these arguments.
pub(crate) fn dump(database: &Database, arguments: &[&str]) -> Vec<u8> {
    let dump = client("pg_dump", database)
        .args(["--no-owner", "--no-privileges", "--no-toast-compression"])
        .args(arguments)
        .output()
        .expect("pg_dump");
    assert!(
        dump.status.success(),
        "{}",
        String::from_utf8_lossy(&dump.stderr)
    );
    dump.stdout
}

/// Restores a dump with this program as the owner of the database, in one transaction.
pub(crate) fn restore(database: &Database, program: &str, dump: &[u8]) {
    let mut restore = client(program, database);
    let restore = match program {
        "psql" => restore.args(["--no-psqlrc", "--quiet", "--set=ON_ERROR_STOP=1"]),
        _ => restore.args(["--exit-on-error", "--no-owner", "--no-privileges"]),
    };
    let mut running = restore
        .arg("--single-transaction")
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the program");
    std::io::Write::write_all(&mut running.stdin.take().expect("a pipe"), dump).expect("read");
    let done = running.wait_with_output().expect("it ran");
    assert!(
        done.status.success(),
        "{}",
        String::from_utf8_lossy(&done.stderr)
    );
}
