//! Addresses of the rig's servers, from environment variables or from the file of the rig.

use std::path::PathBuf;

/// The value of a variable of the rig, such as `RIG_POSTGRES_URL_15`.
///
/// # Panics
///
/// If the variable is unknown, with the command that starts the servers.
#[track_caller]
pub(crate) fn rig(name: &str) -> String {
    let value = std::env::var(name).ok().or_else(|| from_file(name));
    value.unwrap_or_else(|| {
        panic!(
            "{name} is unknown: start the servers with `tests/rig/rig up \
        postgres:15,16,17,18 pgbouncer kafka kafka-3.8`"
        )
    })
}

/// Content of a file in the rig's folder of certificates.
pub(crate) fn certificate(file: &str) -> String {
    let path = PathBuf::from(rig("RIG_TLS")).join(file);
    std::fs::read_to_string(&path)
        .unwrap_or_else(|error| panic!("cannot read {}: {error}", path.display()))
}

fn from_file(name: &str) -> Option<String> {
    let folder = std::env::var("RIG").unwrap_or_else(|_| "target/rig".to_owned());
    let text = std::fs::read_to_string(PathBuf::from(folder).join("env")).ok()?;
    let start = format!("export {name}=");
    text.lines()
        .find_map(|line| line.strip_prefix(&start).map(str::to_owned))
}
