//! Serves `/healthz`, `/readyz` and `/metrics` of the operator. IO.

use std::{sync::Arc, time::Instant};

use axum::{Router, extract::State, http::StatusCode, routing::get};
use tokio::net::TcpListener;

use crate::operator::{
    process::{
        health::HealthState,
        metrics::{Metrics, MetricsSnapshot},
        watch_scope::RelayStore,
    },
    reconcile::cache::Cache,
};

/// Status and text of the response to a probe.
type ProbeResponse = (StatusCode, String);

/// What the handlers read.
#[derive(Clone)]
pub(crate) struct HttpState {
    pub health: Arc<HealthState>,
    pub metrics: Metrics,
    pub cache: Arc<Cache>,
    pub relays: RelayStore,
}

/// Serves until the process ends.
///
/// # Cancel safety
///
/// Dropping the future closes the listener. Requests under way may get no response.
pub(crate) async fn serve(listener: TcpListener, state: HttpState) -> std::io::Result<()> {
    let routes = Router::new()
        .route("/healthz", get(healthz))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics));
    axum::serve(listener, routes.with_state(state)).await
}

async fn healthz(State(state): State<HttpState>) -> ProbeResponse {
    let result = state.health.is_alive(state.relays.count(), Instant::now());
    if let Err(why) = &result {
        tracing::error!(why, "this operator hangs and must be restarted");
    }
    response(result)
}

async fn readyz(State(state): State<HttpState>) -> ProbeResponse {
    response(state.health.is_ready())
}

async fn metrics(State(state): State<HttpState>) -> String {
    let relays = state.relays.relays();
    let relays = relays.iter().filter_map(|relay| relay.0.as_ref().ok());
    state.metrics.encode(MetricsSnapshot {
        relays,
        in_backoff: state.cache.failing(),
        refused: state.health.forbidden_count(),
    })
}

fn response(result: Result<(), String>) -> ProbeResponse {
    match result {
        Ok(()) => (StatusCode::OK, "ok\n".to_owned()),
        Err(why) => (StatusCode::SERVICE_UNAVAILABLE, format!("{why}\n")),
    }
}
