//! HTTP surface of a relay: `/healthz`, `/readyz`, `/metrics`, `/status`. Reads the status only.
//! IO.

use std::{sync::Arc, time::Instant};

use axum::{
    Json, Router,
    extract::State,
    http::{StatusCode, header::CONTENT_TYPE},
    response::IntoResponse,
    routing::get,
};
use tokio::net::TcpListener;

use crate::relay::status::Status;

/// Serves until the process ends.
///
/// # Errors
/// When the listener fails.
///
/// # Cancel safety
/// If dropped, the listener is closed and requests under way are cut off.
pub(super) async fn serve(listener: TcpListener, status: Arc<Status>) -> std::io::Result<()> {
    let routes = Router::new()
        .route("/healthz", get(healthz))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics))
        .route("/status", get(report))
        .with_state(status);
    axum::serve(listener, routes).await
}

async fn healthz(State(status): State<Arc<Status>>) -> impl IntoResponse {
    if status.is_alive(Instant::now()) {
        ok()
    } else {
        unavailable("the relay's loop has not run for 30 s")
    }
}

async fn readyz(State(status): State<Arc<Status>>) -> impl IntoResponse {
    if status.is_ready() {
        ok()
    } else {
        unavailable(&why_not_ready(&status))
    }
}

/// The first problem of a relay without a valid lease; without a problem, that it has no lease yet.
fn why_not_ready(status: &Status) -> String {
    let problems = status.report(Instant::now()).problems;
    match problems.first() {
        Some(problem) => format!("{}: {}", problem.class, problem.message),
        None => "no lease yet".to_owned(),
    }
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

fn ok() -> (StatusCode, String) {
    (StatusCode::OK, "ok\n".to_owned())
}

fn unavailable(why: &str) -> (StatusCode, String) {
    (StatusCode::SERVICE_UNAVAILABLE, format!("{why}\n"))
}
