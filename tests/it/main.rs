//! Integration tests against the rig's real servers (`tests/rig/rig up`), one binary. A missing server fails a test; none is skipped.

#[macro_use]
mod harness;
mod command_line;
mod connecting;
mod migration;
mod migration_failures;
mod migration_functions;
mod migration_rights;
mod migration_table;
mod relay_order;
mod relay_problems;
