//! What users and other programs rely on, compared with files below `contract/files`. The first
//! version of these files was written from commit e53be2f. Only a commit whose title says so may
//! change one of them. This command writes them again:
//!
//! `UPDATE_CONTRACT=1 cargo test --lib --test it -- contract:: contract_of --skip producer_`
//!
//! No server is needed, but the rig's helm is: `RIG` is the rig's folder if it is not `target/rig`.
//! The library's own tests `contract_of_*` compare what only they can reach: reasons, metrics, and
//! the JSON of the command line.

mod children;
mod commands;
mod crd;
mod golden;
mod helm;
mod migrations;
mod reports;

use serde_json::Value;

/// Removes these fields from all maps in a value.
fn remove(value: &mut Value, fields: &[&str]) {
    match value {
        Value::Object(map) => {
            map.retain(|name, _| !fields.contains(&name.as_str()));
            map.values_mut().for_each(|inner| remove(inner, fields));
        }
        Value::Array(list) => list.iter_mut().for_each(|inner| remove(inner, fields)),
        _ => {}
    }
}
