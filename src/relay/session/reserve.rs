//! Clients beside the main producer. They know the topics and have a producer id before they are
//! needed: to be added when there are many requests, or to replace the main producer.

use std::{
    thread,
    time::{Duration, Instant},
};

use tokio::sync::oneshot::{self, Receiver, error::TryRecvError};

use crate::{kafka::Producer, relay::session::producer_factory::ProducerFactory};

/// Pause before another attempt after one client could not be made or got no producer id.
const RETRY_PAUSE: Duration = Duration::from_secs(5);

/// Clients that take no records yet.
pub(super) struct Reserve {
    warming: Vec<Receiver<Producer>>,
    ready: Vec<Producer>,
    /// No client is made before.
    retry_at: Instant,
}

impl Reserve {
    /// No client.
    pub(super) fn new(now: Instant) -> Self {
        Self {
            warming: Vec::new(),
            ready: Vec::new(),
            retry_at: now,
        }
    }

    /// Whether [`Self::take`] returns a client.
    pub(super) fn is_ready(&self) -> bool {
        !self.ready.is_empty()
    }

    /// Takes a client that is ready.
    pub(super) fn take(&mut self) -> Option<Producer> {
        self.ready.pop()
    }

    /// Takes in the clients that became ready, and begins one of those that are missing.
    pub(super) fn maintain(&mut self, wanted: usize, factory: &ProducerFactory<'_>, now: Instant) {
        self.take_in_warm(now);
        self.serve_errors();
        // One in a turn of the loop: to make one takes some milliseconds.
        if self.ready.len() + self.warming.len() < wanted {
            self.begin(factory, now);
        }
    }

    /// Drops all clients: they were made for other secrets, sizes or topics, or are not needed.
    pub(super) fn clear(&mut self) {
        // One that is warming up is dropped by its own thread.
        self.warming.clear();
        self.ready
            .drain(..)
            .for_each(|client| drop(destroy_beside(client)));
    }

    fn take_in_warm(&mut self, now: Instant) {
        let Self {
            warming,
            ready,
            retry_at,
        } = self;
        warming.retain_mut(|receiver| match receiver.try_recv() {
            Ok(producer) => {
                ready.push(producer);
                false
            }
            Err(TryRecvError::Empty) => true,
            Err(TryRecvError::Closed) => {
                *retry_at = now + RETRY_PAUSE;
                false
            }
        });
    }

    /// Serves what librdkafka reports, so that it does not pile up.
    fn serve_errors(&self) {
        self.ready
            .iter()
            .for_each(|producer| producer.poll(&mut Vec::new()));
    }

    fn begin(&mut self, factory: &ProducerFactory<'_>, now: Instant) {
        if now < self.retry_at {
            return;
        }
        let Ok(producer) = factory.make() else {
            self.retry_at = now + RETRY_PAUSE;
            return;
        };
        self.warming
            .push(warm_up_beside(producer, factory.topics()));
    }
}

/// Warms a client up on a thread of its own, since that blocks. The receiver gets it if it has a
/// producer id then.
fn warm_up_beside(producer: Producer, topics: Vec<String>) -> Receiver<Producer> {
    let (sender, receiver) = oneshot::channel();
    // Not a task of the runtime, which would wait for it at the end of the process.
    thread::spawn(move || {
        if producer.warm_up(topics.iter().map(String::as_str)) {
            // Fails if nobody waits for it any more: then it is dropped here.
            let _ = sender.send(producer);
        }
    });
    receiver
}

/// Destroys a producer on a thread of its own: that joins the threads of librdkafka, one of which
/// may wait for a name server. The receiver learns when it is done.
pub(super) fn destroy_beside(producer: impl Send + 'static) -> Receiver<()> {
    let (sender, receiver) = oneshot::channel();
    thread::spawn(move || {
        drop(producer);
        // Fails if nobody waits.
        let _ = sender.send(());
    });
    receiver
}
