//! The doorbell: opens its connection, carries out what the core requests of it, and passes rings
//! on.

use std::{
    future::pending,
    time::{Duration, Instant},
};

use crate::{
    outbox::{Bell, Lane, connect::Connect, error::DatabaseError},
    relay::{
        core::doorbell::{BellAnswer, BellRequest},
        session::{
            Session,
            tasks::{BellEnd, Task},
        },
    },
    settings::DatabaseSettings,
};

/// Pause before the connection is opened again after it was lost.
const REOPEN_PAUSE: Duration = Duration::from_secs(2);
/// Pause before the relay asks again whether it may sleep on this server.
const UNUSABLE_PAUSE: Duration = Duration::from_secs(60);
/// Connections of a relay without the doorbell's.
const OTHER_CONNECTIONS: u32 = 4;

/// The doorbell's connection, while no request uses it.
pub(super) struct BellLine {
    bell: Option<Bell>,
    /// When it is opened next; `None`: never.
    open_at: Option<Instant>,
}

impl BellLine {
    /// A line that is opened at `now`, if the settings leave a connection for it. Behind a pooler
    /// no session has one.
    pub(super) fn new(database: &DatabaseSettings, now: Instant) -> Self {
        let is_wanted = !database.pooler && database.max_connections > OTHER_CONNECTIONS;
        Self {
            bell: None,
            open_at: is_wanted.then_some(now),
        }
    }

    /// Waits for a ring; forever without a connection. `None`: the connection is gone.
    ///
    /// # Cancel safety
    /// Cancel safe: no ring is lost.
    pub(super) async fn ring(&mut self) -> Option<Lane> {
        match &mut self.bell {
            Some(bell) => bell.ring().await,
            None => pending().await,
        }
    }
}

impl Session<'_> {
    /// Starts the next request to the doorbell's connection, or opens it, if that is due.
    pub(super) fn start_bell(&mut self, now: Instant) {
        if !self.tasks.bell.is_idle() {
            return;
        }
        if self.line.bell.is_none() {
            self.open_bell(now);
        } else if let Some(request) = self.core.next_bell_request(now)
            && let Some(bell) = self.line.bell.take()
        {
            self.tasks.bell.start(carry_out(bell, request));
        }
        if self.core.take_silence() {
            tracing::info!("rows were found that did not ring: the relay polls for a minute");
        }
    }

    fn open_bell(&mut self, now: Instant) {
        let is_due = self.line.open_at.is_some_and(|open_at| open_at <= now);
        if !is_due || self.is_shutting_down() {
            return;
        }
        self.line.open_at = Some(now + REOPEN_PAUSE);
        let settings = &self.process.options.settings.database;
        let secrets = self.process.credentials.database.borrow();
        if let Ok(connect) = Connect::relay(settings, &secrets) {
            let schema = settings.schema.clone();
            self.tasks.bell.start(async move {
                match Bell::open(&connect, &schema).await {
                    Ok(Some(bell)) => BellEnd::Connected(bell),
                    Ok(None) => BellEnd::Unusable,
                    Err(error) => BellEnd::Failed(error),
                }
            });
        }
    }

    /// When [`Self::start_bell`] has something to do; `None` while a request is under way.
    pub(super) fn next_bell_at(&self, now: Instant) -> Option<Instant> {
        if !self.tasks.bell.is_idle() {
            return None;
        }
        match &self.line.bell {
            Some(_) => self.core.next_bell_request_at(now),
            None => self.line.open_at.filter(|_| !self.is_shutting_down()),
        }
    }

    /// Takes the connection back from a request.
    pub(super) fn on_bell(&mut self, end: BellEnd) {
        let now = Instant::now();
        match end {
            BellEnd::Connected(bell) => {
                self.line.bell = Some(bell);
                self.core.on_bell_opened(now);
            }
            BellEnd::Answered(bell, answer) => {
                self.line.bell = Some(bell);
                self.core.on_bell_answer(answer, now);
            }
            BellEnd::Unusable => self.line.open_at = Some(now + UNUSABLE_PAUSE),
            BellEnd::Failed(error) => {
                tracing::debug!("the doorbell's connection failed, the relay polls: {error}");
                self.lose_bell(now);
            }
        }
    }

    /// Passes a ring to the core, or that none can come any more.
    pub(super) fn on_ring(&mut self, ring: Option<Lane>) {
        let now = Instant::now();
        match ring {
            Some(lane) => self.core.on_ring(lane, now),
            None => self.lose_bell(now),
        }
    }

    /// Closes the doorbell's connection, which is opened again after a pause.
    pub(super) fn lose_bell(&mut self, now: Instant) {
        self.tasks.bell = Task::default();
        self.line.bell = None;
        self.line.open_at = self.line.open_at.map(|_| now + REOPEN_PAUSE);
        self.core.on_bell_lost(now);
    }

    /// Gives up all locks, before lanes are given back.
    ///
    /// # Cancel safety
    /// Cancel safe: the connection is closed, and its locks end with it.
    pub(super) async fn silence_bell(&mut self) {
        if let Some(mut bell) = self.line.bell.take() {
            let _ = bell.unlock().await;
        }
        self.lose_bell(Instant::now());
    }
}

/// Carries out a request.
async fn carry_out(mut bell: Bell, request: BellRequest) -> BellEnd {
    match answer(&mut bell, request).await {
        Ok(answer) => BellEnd::Answered(bell, answer),
        Err(error) => BellEnd::Failed(error),
    }
}

async fn answer(bell: &mut Bell, request: BellRequest) -> Result<BellAnswer, DatabaseError> {
    Ok(match request {
        BellRequest::Lock(lanes) => match bell.lock(lanes.lanes()).await? {
            true => BellAnswer::Locked,
            false => BellAnswer::Refused,
        },
        BellRequest::Unlock => bell.unlock().await.map(|()| BellAnswer::Unlocked)?,
        BellRequest::Ping => bell.ping().await.map(|()| BellAnswer::Alive)?,
    })
}
