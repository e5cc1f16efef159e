//! `/healthz`, `/readyz` and `/metrics` of the operator.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use axum::{Router, extract::State, http::StatusCode, routing::get};
use kube::runtime::watcher;
use tokio::net::TcpListener;

use super::metrics::Metrics;

/// Every object is looked at each 15 s, in back-off each 5 min. Longer silence means that the loop hangs.
const LONGEST_SILENCE: Duration = Duration::from_mins(12);

/// Signs of life of the loop.
#[derive(Debug)]
pub(crate) struct Pulse {
    started: Instant,
    last_pass_seconds: AtomicU64,
    objects: AtomicUsize,
    ready: AtomicBool,
}

impl Pulse {
    pub(crate) fn new() -> Self {
        let (last_pass_seconds, objects, ready) = (AtomicU64::new(0), AtomicUsize::new(0), AtomicBool::new(false));
        Self { started: Instant::now(), last_pass_seconds, objects, ready }
    }

    /// A pass ended, whatever came of it; so many objects are known.
    pub(crate) fn beat(&self, objects: usize) {
        self.last_pass_seconds.store(self.started.elapsed().as_secs(), Ordering::Relaxed);
        self.objects.store(objects, Ordering::Relaxed);
    }

    /// Ready once all OutboxRelays have been listed.
    pub(crate) fn note<K>(&self, event: &watcher::Event<K>) {
        if matches!(event, watcher::Event::InitDone) {
            self.ready.store(true, Ordering::Relaxed);
        }
    }

    /// Without objects there is nothing to do, and silence is no sign.
    fn is_alive(&self, elapsed: Duration) -> bool {
        let last = Duration::from_secs(self.last_pass_seconds.load(Ordering::Relaxed));
        self.objects.load(Ordering::Relaxed) == 0 || elapsed.saturating_sub(last) < LONGEST_SILENCE
    }
}

type Shared = State<(Arc<Pulse>, Metrics)>;

/// Serves until the process ends.
pub(crate) async fn serve(listener: TcpListener, pulse: Arc<Pulse>, metrics: Metrics) -> std::io::Result<()> {
    let routes = Router::new()
        .route("/healthz", get(|State((pulse, _)): Shared| async move { code(pulse.is_alive(pulse.started.elapsed())) }))
        .route("/readyz", get(|State((pulse, _)): Shared| async move { code(pulse.ready.load(Ordering::Relaxed)) }))
        .route("/metrics", get(|State((_, metrics)): Shared| async move { metrics.text() }));
    axum::serve(listener, routes.with_state((pulse, metrics))).await
}

fn code(fine: bool) -> StatusCode {
    if fine { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn silence_is_death_only_when_there_is_something_to_do() {
        let pulse = Pulse::new();
        assert!(pulse.is_alive(LONGEST_SILENCE * 2));
        pulse.beat(1);
        assert!(pulse.is_alive(LONGEST_SILENCE / 2));
        assert!(!pulse.is_alive(LONGEST_SILENCE * 2));
    }
}
