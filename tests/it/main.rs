//! Integration tests against the rig's real servers (`tests/rig/rig up`), one binary. A missing server fails a test; none is skipped.

#[macro_use]
mod harness;
mod architecture;
mod cli;
mod cli_parked;
mod cli_relay;
mod command_line;
mod connecting;
mod crd_rules;
mod database_faults;
mod examples;
mod generated_files;
mod migration;
mod migration_failures;
mod migration_functions;
mod migration_rights;
mod migration_table;
mod observed;
mod operator_children;
mod operator_migration;
mod operator_rights;
mod pages;
mod parking;
mod pooler;
mod producer_contract;
mod producer_keys;
mod record_headers;
mod relay_altered;
mod relay_limits;
mod relay_order;
mod relay_outages;
mod relay_poison;
mod relay_pooler;
mod relay_problems;
mod relay_stragglers;
mod requeueing;
