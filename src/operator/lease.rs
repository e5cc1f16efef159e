//! The Lease by which one operator of several leads: reads and writes it as [`Candidate`] decides.
//! IO.

use std::time::Duration;

use k8s_openapi::{
    api::coordination::v1::{Lease, LeaseSpec},
    apimachinery::pkg::apis::meta::v1::MicroTime,
    jiff::Timestamp,
};
use kube::{Api, Client, ResourceExt, api::PostParams};
use tokio::time::{Instant, sleep, timeout, timeout_at};

use super::{
    call::{CallError, call, call_opt},
    election::{Candidate, DURATION, Found, LOOK_EVERY, RENEW_DEADLINE, RENEW_EVERY, Step},
    fence::Fence,
};

/// Two requests must have time before the deadline.
const LONGEST: Duration = Duration::from_secs(4);
const RETRY_EVERY: Duration = Duration::from_millis(500);

/// Why an operator leads no more.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Lost {
    #[error("'{0}' holds it now")]
    Taken(String),
    #[error("it could not be renewed for {}s", RENEW_DEADLINE.as_secs())]
    NotRenewed,
}

/// Holds the Lease, or would like to.
pub(crate) struct Keeper {
    api: Api<Lease>,
    name: String,
    candidate: Candidate,
    fence: Fence,
    /// The Lease as the API server showed it last.
    known: Option<Lease>,
    /// Before the last request that wrote our name.
    renewed_at: Instant,
}

impl Keeper {
    pub(crate) fn new(
        client: Client,
        namespace: &str,
        name: &str,
        me: String,
        fence: Fence,
    ) -> Self {
        let api = Api::namespaced(client, namespace);
        Self {
            api,
            name: name.to_owned(),
            candidate: Candidate::new(me),
            fence,
            known: None,
            renewed_at: Instant::now(),
        }
    }

    /// Waits until this operator leads; `reached` hears of each time that the Lease could be read.
    pub(crate) async fn win(&mut self, reached: impl Fn()) {
        let mut told = None;
        loop {
            let pause = match self.look().await {
                Ok(Step::Wait(pause)) => {
                    reached();
                    self.tell_holder(&mut told);
                    pause
                }
                // Ours already, or free.
                Ok(_) => match self.write().await {
                    Ok(()) => return,
                    Err(error) => unreached(&error),
                },
                Err(error) => unreached(&error),
            };
            sleep(pause).await;
        }
    }

    fn tell_holder(&self, told: &mut Option<String>) {
        let holder = self
            .known
            .as_ref()
            .and_then(|lease| lease.spec.as_ref()?.holder_identity.clone());
        if *told != holder {
            tracing::info!(
                lease = self.name,
                holder,
                "standing by: another operator leads"
            );
            *told = holder;
        }
    }

    /// Renews until that fails for too long or another one holds the Lease.
    pub(crate) async fn keep(&mut self) -> Lost {
        loop {
            sleep(RENEW_EVERY).await;
            let deadline = self.renewed_at + RENEW_DEADLINE;
            match timeout_at(deadline, self.renew()).await {
                Ok(Ok(())) => {}
                Ok(Err(lost)) => return lost,
                Err(_) => return Lost::NotRenewed,
            }
        }
    }

    /// Until it is renewed; at once again when somebody else wrote, as our own request may have
    /// done whose answer was lost.
    async fn renew(&mut self) -> Result<(), Lost> {
        loop {
            match self.write().await {
                Ok(()) => return Ok(()),
                Err(error) if error.is_lost_race() => {}
                Err(error) => {
                    tracing::warn!(
                        error = &error as &dyn std::error::Error,
                        "the Lease was not renewed; it is tried again"
                    );
                    sleep(RETRY_EVERY).await;
                }
            }
            if let Ok(Step::Lost { holder }) = self.look().await {
                return Err(Lost::Taken(holder));
            }
        }
    }

    /// Names nobody as the holder, if it is ours, so that the next one need not wait. An earlier
    /// request may still be on its way, hence the second try.
    pub(crate) async fn release(mut self) {
        self.fence.close();
        for _ in 0..2 {
            let Ok(_) = self.look().await else { continue };
            let Some(mut lease) = self
                .known
                .take()
                .filter(|lease| found(lease).holder.as_deref() == Some(self.candidate.name()))
            else {
                return;
            };
            lease.spec.get_or_insert_default().holder_identity = Some(String::new());
            if self.replace(&lease).await.is_ok() {
                tracing::info!(lease = self.name, "the Lease was given back");
                return;
            }
        }
        tracing::warn!(
            lease = self.name,
            "the Lease could not be given back; it runs out"
        );
    }

    async fn look(&mut self) -> Result<Step, CallError> {
        self.known = within(call_opt(self.api.get(&self.name))).await?;
        Ok(self
            .candidate
            .see(self.known.as_ref().map(found), Instant::now().into_std()))
    }

    /// A request that fails when the Lease is not as it was known.
    async fn write(&mut self) -> Result<(), CallError> {
        let asked_at = Instant::now();
        let lease = claimed(
            self.known.clone(),
            &self.name,
            self.candidate.name(),
            Timestamp::now(),
        );
        let written = match &self.known {
            Some(_) => self.replace(&lease).await?,
            None => within(call(self.api.create(&PostParams::default(), &lease))).await?,
        };
        self.candidate
            .wrote(found(&written), Instant::now().into_std());
        self.known = Some(written);
        self.renewed_at = asked_at;
        self.fence.open(asked_at.into_std());
        Ok(())
    }

    async fn replace(&self, lease: &Lease) -> Result<Lease, CallError> {
        within(call(self.api.replace(
            &self.name,
            &PostParams::default(),
            lease,
        )))
        .await
    }
}

async fn within<T>(request: impl Future<Output = Result<T, CallError>>) -> Result<T, CallError> {
    timeout(LONGEST, request)
        .await
        .unwrap_or(Err(CallError::Timeout))
}

fn unreached(error: &CallError) -> Duration {
    // Another candidate was faster.
    if !error.is_lost_race() {
        tracing::warn!(
            error = error as &dyn std::error::Error,
            "failed to ask for the Lease; it is tried again"
        );
    }
    LOOK_EVERY
}

fn found(lease: &Lease) -> Found {
    let spec = lease.spec.as_ref();
    Found {
        version: lease.resource_version().unwrap_or_default(),
        holder: spec
            .and_then(|spec| spec.holder_identity.clone())
            .filter(|holder| !holder.is_empty()),
        duration: spec
            .and_then(|spec| spec.lease_duration_seconds)
            .and_then(|seconds| u64::try_from(seconds).ok())
            .map_or(DURATION, Duration::from_secs),
    }
}

/// The Lease with our name in it.
fn claimed(lease: Option<Lease>, name: &str, me: &str, now: Timestamp) -> Lease {
    let mut lease = lease.unwrap_or_default();
    lease.metadata.name = Some(name.to_owned());
    let LeaseSpec {
        holder_identity,
        acquire_time,
        renew_time,
        lease_duration_seconds,
        lease_transitions,
        ..
    } = lease.spec.get_or_insert_default();
    if holder_identity.as_deref() != Some(me) {
        *acquire_time = Some(MicroTime(now));
        *lease_transitions = Some(lease_transitions.map_or(0, |before| before.saturating_add(1)));
        *holder_identity = Some(me.to_owned());
    }
    *renew_time = Some(MicroTime(now));
    *lease_duration_seconds = Some(i32::try_from(DURATION.as_secs()).expect("some seconds"));
    lease
}

#[cfg(test)]
mod tests;
