//! The relay: outbox row -> record -> report -> settled row. [`run`] is its life; one [`session`]
//! is a lease and the loop that works under it.

pub mod breaker;
pub mod clock;
pub mod core;
mod credentials;
pub mod jitter;
pub mod lanes;
mod lease;
pub mod marks;
mod metrics;
mod open;
mod openers;
pub mod outstanding;
mod partitions;
mod resume;
pub mod routes;
mod session;
pub mod stale_leaders;
mod status;
pub mod stops;
mod sweep;
pub mod trials;
mod watch;
pub mod window;

use std::{net::SocketAddr, sync::Arc, time::Instant};

use tokio_util::sync::CancellationToken;

pub use metrics::Metrics;
pub use status::{Source, Status};

use crate::{http, listen::listen, secrets::Secrets, settings::RelaySettings};

/// What a relay needs to run.
pub struct RunOptions {
    pub settings: RelaySettings,
    pub secrets: Secrets,
    /// Address of `/healthz`, `/readyz`, `/metrics` and `/status`.
    pub listen: SocketAddr,
    /// Name of this replica for people, such as the pod's.
    pub pod: String,
}

/// A relay could not start.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    #[error("cannot listen on {address}: choose another --listen")]
    Listen {
        address: SocketAddr,
        #[source]
        source: std::io::Error,
    },
}

/// Relays until `stop`, then drains: what is in flight is finished and the lanes are given back.
///
/// Nothing that a server does ends it: an unreachable database, a wrong password, a missing topic
/// are problems in its report, and end by themselves when their cause is gone.
///
/// # Errors
/// When it cannot listen.
pub async fn run(options: RunOptions, stop: CancellationToken) -> Result<(), RunError> {
    let address = options.listen;
    let listener = listen(address)
        .await
        .map_err(|source| RunError::Listen { address, source })?;
    let topics: Vec<String> = options
        .settings
        .topics
        .iter()
        .map(|topic| topic.name.clone())
        .collect();
    let status = Arc::new(Status::new(&topics, Instant::now()));
    let server = tokio::spawn(http::serve(listener, Arc::clone(&status)));
    let options = Arc::new(options);
    let mut credentials = credentials::follow(&options, &status);
    let mut watch = watch::Watch::start(
        Arc::clone(&options),
        Arc::clone(&status),
        credentials.kafka.clone(),
    );
    let mut memory = resume::Memory::default();
    while let Some(opened) =
        open::open(&options, &status, &mut credentials, &mut memory, &stop).await
    {
        let session = session::Session::begin(
            &options,
            &status,
            opened,
            &mut watch,
            &mut credentials,
            &mut memory,
        );
        match Box::pin(session.run(&stop)).await {
            session::Ended::Stopped => break,
            session::Ended::LeaseLost => {
                tracing::warn!("the lease was lost; starting again without any lane")
            }
            session::Ended::SequenceBroke => {
                tracing::warn!(
                    "ids of the outbox may have come again; starting again when the sequence is \
                     moved on"
                );
            }
        }
        status.set_ready(false);
    }
    server.abort();
    Ok(())
}
