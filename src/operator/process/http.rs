//! `/healthz`, `/readyz` and `/metrics` of the operator.

use std::{sync::Arc, time::Instant};

use axum::{Router, extract::State, http::StatusCode, routing::get};
use tokio::net::TcpListener;

use crate::operator::{
    process::{
        health::Pulse,
        metrics::{Census, Metrics},
        watch_scope::Known,
    },
    reconcile::cache::Cache,
};

/// What is told of.
#[derive(Clone)]
pub(crate) struct Surface {
    pub pulse: Arc<Pulse>,
    pub metrics: Metrics,
    pub memory: Arc<Cache>,
    pub known: Known,
}

/// Serves until the process ends.
pub(crate) async fn serve(listener: TcpListener, surface: Surface) -> std::io::Result<()> {
    let routes = Router::new()
        .route("/healthz", get(healthz))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics));
    axum::serve(listener, routes.with_state(surface)).await
}

async fn healthz(State(surface): State<Surface>) -> (StatusCode, String) {
    let well = surface
        .pulse
        .is_alive(surface.known.count(), Instant::now());
    if let Err(why) = &well {
        tracing::error!(why, "this operator hangs and should be started anew");
    }
    answer(well)
}

async fn readyz(State(surface): State<Surface>) -> (StatusCode, String) {
    answer(surface.pulse.is_ready())
}

async fn metrics(State(surface): State<Surface>) -> String {
    let relays = surface.known.relays();
    let relays = relays.iter().filter_map(|relay| relay.0.as_ref().ok());
    surface.metrics.text(Census {
        relays,
        in_backoff: surface.memory.failing(),
        refused: surface.pulse.refused(),
    })
}

fn answer(well: Result<(), String>) -> (StatusCode, String) {
    match well {
        Ok(()) => (StatusCode::OK, "ok\n".to_owned()),
        Err(why) => (StatusCode::SERVICE_UNAVAILABLE, format!("{why}\n")),
    }
}
