//! The HTTP surface of a relay: `/healthz`, `/readyz`, `/metrics`, `/status`. Reads only.

use std::{sync::Arc, time::Instant};

use axum::{
    Json, Router,
    extract::State,
    http::{StatusCode, header::CONTENT_TYPE},
    response::IntoResponse,
    routing::get,
};
use tokio::net::TcpListener;

use crate::relay::Status;

/// Serves until the process ends.
///
/// # Errors
/// When the listener fails.
pub async fn serve(listener: TcpListener, status: Arc<Status>) -> std::io::Result<()> {
    let routes = Router::new()
        .route("/healthz", get(healthz))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics))
        .route("/status", get(report))
        .with_state(status);
    axum::serve(listener, routes).await
}

async fn healthz(State(status): State<Arc<Status>>) -> impl IntoResponse {
    answer(
        status.is_alive(Instant::now()),
        "the relay's loop has not turned for 30 s",
    )
}

async fn readyz(State(status): State<Arc<Status>>) -> impl IntoResponse {
    let problems = status.report(Instant::now()).problems;
    let why = problems.first().map_or_else(
        || "no lease yet".to_owned(),
        |problem| format!("{}: {}", problem.class, problem.message),
    );
    answer(status.is_ready(), &why)
}

async fn metrics(State(status): State<Arc<Status>>) -> impl IntoResponse {
    (
        [(CONTENT_TYPE, "text/plain; version=0.0.4")],
        status.metrics.render(),
    )
}

async fn report(State(status): State<Arc<Status>>) -> impl IntoResponse {
    Json(status.report(Instant::now()))
}

fn answer(good: bool, otherwise: &str) -> (StatusCode, String) {
    if good {
        (StatusCode::OK, "ok\n".to_owned())
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, format!("{otherwise}\n"))
    }
}
