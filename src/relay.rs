//! The relay: outbox row -> record -> delivery report -> settled row. [`run`] is the life of the
//! process; one [`session`] is a lease and the loop that works under it.

pub(crate) mod connect;
pub mod core;
mod credentials;
mod http;
mod lease;
mod memory_limit;
mod metrics;
mod own_migration;
mod problem_log;
mod row_log;
mod session;
mod status;
pub(crate) mod topic_metadata;

use std::{net::SocketAddr, sync::Arc, time::Instant};

use tokio_util::sync::CancellationToken;

pub use metrics::Metrics;
pub use own_migration::MigratedBy;
pub use status::{ProblemSource, Status};

use crate::{listen::listen, secrets::Secrets, settings::RelaySettings};

/// What a relay needs to run.
pub struct RunOptions {
    pub settings: RelaySettings,
    pub secrets: Secrets,
    /// Address of `/healthz`, `/readyz`, `/metrics` and `/status`.
    pub listen: SocketAddr,
    /// Name of this replica for people, such as the pod's.
    pub pod: String,
    /// Who migrates the schema.
    pub migrated_by: MigratedBy,
}

/// Why a relay could not start.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    #[error("cannot listen on {address}: choose another address with --listen")]
    Listen {
        address: SocketAddr,
        #[source]
        source: std::io::Error,
    },
}

/// Relays until `stop`, then drains: finishes what is in flight and gives the lanes back.
///
/// No failure of a server ends it. An unreachable database, a wrong password and a missing topic
/// are problems in its status report, which end when their cause is gone.
///
/// # Errors
/// When it cannot listen.
///
/// # Cancel safety
/// If dropped midway, rows in flight are published again by the next owner of their lanes, once the
/// lease has run out.
pub async fn run(options: RunOptions, stop: CancellationToken) -> Result<(), RunError> {
    let address = options.listen;
    let listener = listen(address)
        .await
        .map_err(|source| RunError::Listen { address, source })?;
    let status = Arc::new(new_status(&options.settings));
    let server = tokio::spawn(http::serve(listener, Arc::clone(&status)));
    run_sessions(&Arc::new(options), &status, &stop).await;
    status.row_log.end();
    server.abort();
    Ok(())
}

/// Runs one session after the other, each with a lease of its own, until `stop`.
async fn run_sessions(options: &Arc<RunOptions>, status: &Arc<Status>, stop: &CancellationToken) {
    let mut credentials = credentials::follow(options, status);
    let mut metadata = topic_metadata::TopicMetadataWatch::start(
        Arc::clone(options),
        Arc::clone(status),
        credentials.kafka.clone(),
    );
    let mut memory = core::sequence_check::SequenceMemory::default();
    let mut migration = own_migration::OwnMigration::new(options.migrated_by);
    while let Some(connected) = connect::connect(
        connect::Connecting {
            options,
            status,
            secrets: &mut credentials.database,
            memory: &mut memory,
            migration: &mut migration,
        },
        stop,
    )
    .await
    {
        let process = session::Process {
            options,
            status,
            metadata: &mut metadata,
            credentials: &mut credentials,
            memory: &mut memory,
        };
        let session = session::Session::new(process, connected);
        let end = Box::pin(session.run(stop)).await;
        if end == session::SessionEnd::Stopped {
            return;
        }
        log_new_session(end);
        status.set_not_ready();
    }
}

fn new_status(settings: &RelaySettings) -> Status {
    Status::new(&topic_names(settings), Instant::now())
}

fn topic_names(settings: &RelaySettings) -> Vec<String> {
    let topics = settings.topics.iter();
    topics.map(|topic| topic.name.clone()).collect()
}

fn log_new_session(end: session::SessionEnd) {
    match end {
        session::SessionEnd::Stopped => {}
        session::SessionEnd::LeaseLost => {
            tracing::warn!("the lease was lost; a new session begins without lanes");
        }
        session::SessionEnd::SchemaChanged => {
            tracing::warn!("a new session begins once the schema is repaired");
        }
        session::SessionEnd::SequenceRegressed => tracing::warn!(
            "ids may have been drawn twice; a new session begins once the sequence is moved forward"
        ),
    }
}
