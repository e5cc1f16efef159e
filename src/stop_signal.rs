//! The signals that ask a program to stop: SIGTERM, as a pod's end sends it, and SIGINT, as Ctrl-C
//! does. IO.

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// Handlers for SIGTERM and SIGINT, which have received no signal yet.
///
/// The kernel drops a signal to process 1 of a container while there is no handler. So a program
/// that runs in a pod makes this before anything else: a signal that arrives from then on is kept
/// until somebody waits for it.
pub struct StopSignal {
    terminate: Signal,
    interrupt: Signal,
}

impl StopSignal {
    /// Installs the handlers. The default action, which ends the process, is off from then on.
    ///
    /// # Errors
    /// If the system refuses a handler.
    ///
    /// # Panics
    /// Outside of a Tokio runtime.
    pub fn install() -> std::io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    /// Waits for the first signal since the handlers were installed.
    ///
    /// # Cancel safety
    /// Cancel safe: a signal that arrived meanwhile is not lost.
    pub async fn received(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }

    /// A token that the first signal cancels. A task of the runtime waits for the signal.
    #[must_use]
    pub fn into_token(mut self) -> CancellationToken {
        let stop = CancellationToken::new();
        let stopped = stop.clone();
        tokio::spawn(async move {
            self.received().await;
            stopped.cancel();
        });
        stop
    }
}
