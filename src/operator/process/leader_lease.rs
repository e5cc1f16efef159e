//! The Lease that selects the leader among several operators: reads and writes it as
//! [`LeaderElection`] decides. IO.

use std::time::Duration;

use k8s_openapi::{
    api::coordination::v1::{Lease, LeaseSpec},
    apimachinery::pkg::apis::meta::v1::MicroTime,
    jiff::Timestamp,
};
use kube::{Api, Client, ResourceExt, api::PostParams};
use tokio::time::{Instant, sleep, timeout, timeout_at};

use crate::operator::{
    call::{CallError, call, call_opt},
    process::{
        election::{
            LEASE_DURATION, LeaderElection, ObservedLease, POLL_INTERVAL, RENEW_DEADLINE,
            RENEW_INTERVAL, Step,
        },
        fence::Fence,
    },
};

/// Longest wait for a response, so that two requests fit before the renewal deadline.
const CALL_TIMEOUT: Duration = Duration::from_secs(4);
/// Pause between two attempts to renew.
const RETRY_INTERVAL: Duration = Duration::from_millis(500);
/// Attempts to give the Lease back.
const RELEASE_ATTEMPTS_MAX: usize = 2;

/// Why an operator no longer leads.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LeaseLost {
    #[error("'{0}' holds it now")]
    Taken(String),
    #[error("it could not be renewed for {}s", RENEW_DEADLINE.as_secs())]
    NotRenewed,
}

/// Acquires the Lease, holds it, and gives it back.
pub(crate) struct LeaderLease {
    api: Api<Lease>,
    name: String,
    election: LeaderElection,
    fence: Fence,
    /// The Lease as the API server returned it last.
    last: Option<Lease>,
    /// When the last request was sent that wrote our name.
    renewed_at: Instant,
}

impl LeaderLease {
    pub(crate) fn new(
        client: Client,
        namespace: &str,
        name: &str,
        identity: String,
        fence: Fence,
    ) -> Self {
        let api = Api::namespaced(client, namespace);
        Self {
            api,
            name: name.to_owned(),
            election: LeaderElection::new(identity),
            fence,
            last: None,
            renewed_at: Instant::now(),
        }
    }

    /// Waits until this operator leads. `on_read` is called each time that the Lease was read and
    /// has another holder.
    ///
    /// # Cancel safety
    ///
    /// A write that was sent may still make this operator the holder. Call [`Self::release`] after
    /// dropping the future, or the Lease runs out only after its duration.
    pub(crate) async fn acquire(&mut self, on_read: impl Fn()) {
        let (mut logged, mut failed) = (None, None);
        loop {
            match self.read().await {
                Ok(Step::Wait(pause)) => {
                    on_read();
                    failed = None;
                    self.log_holder(&mut logged);
                    sleep(pause).await;
                    continue;
                }
                // Free, or ours already.
                Ok(_) => match self.write().await {
                    Ok(()) => return,
                    Err(error) => log_failure(&error, &mut failed),
                },
                Err(error) => log_failure(&error, &mut failed),
            }
            sleep(POLL_INTERVAL).await;
        }
    }

    /// Logs the holder when it is another one than `logged`.
    fn log_holder(&self, logged: &mut Option<String>) {
        let holder = self.last_holder();
        if *logged == holder {
            return;
        }
        tracing::info!(
            lease = self.name,
            holder,
            "standing by: another operator leads"
        );
        *logged = holder;
    }

    /// The holder that the Lease had when it was last read.
    fn last_holder(&self) -> Option<String> {
        self.last.as_ref()?.spec.as_ref()?.holder_identity.clone()
    }

    /// Renews the Lease until that fails for too long, or another operator holds it.
    ///
    /// # Cancel safety
    ///
    /// A renewal that was sent may still be written. The next call or [`Self::release`] reads the
    /// Lease again, so nothing else is lost.
    pub(crate) async fn hold(&mut self) -> LeaseLost {
        loop {
            sleep(RENEW_INTERVAL).await;
            let deadline = self.renewed_at + RENEW_DEADLINE;
            match timeout_at(deadline, self.renew()).await {
                Ok(Ok(())) => {}
                Ok(Err(lost)) => return lost,
                Err(_) => return LeaseLost::NotRenewed,
            }
        }
    }

    /// Tries until the Lease is renewed. It tries again at once when the Lease was written in the
    /// meantime, possibly by an own request whose response was lost.
    async fn renew(&mut self) -> Result<(), LeaseLost> {
        loop {
            match self.write().await {
                Ok(()) => return Ok(()),
                Err(error) if error.is_lost_race() => {}
                Err(error) => {
                    log_not_renewed(&error);
                    sleep(RETRY_INTERVAL).await;
                }
            }
            if let Ok(Step::LeaseLost { holder }) = self.read().await {
                return Err(LeaseLost::Taken(holder));
            }
        }
    }

    /// Removes our name from the Lease if it is there, so that the next operator need not wait. An
    /// earlier request may still be under way, hence the second attempt.
    ///
    /// # Cancel safety
    ///
    /// The fence is closed from the first poll on. If the request has not taken effect, the Lease
    /// runs out after its duration.
    pub(crate) async fn release(mut self) {
        self.fence.close();
        for _ in 0..RELEASE_ATTEMPTS_MAX {
            let Ok(_) = self.read().await else { continue };
            let Some(lease) = self.without_our_name() else {
                return;
            };
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

    /// The Lease without a holder; `None` if it is not ours.
    fn without_our_name(&mut self) -> Option<Lease> {
        let mut lease = self.last.take()?;
        if observed(&lease).holder.as_deref() != Some(self.election.identity()) {
            return None;
        }
        lease.spec.get_or_insert_default().holder_identity = Some(String::new());
        Some(lease)
    }

    async fn read(&mut self) -> Result<Step, CallError> {
        self.last = within_timeout(call_opt(self.api.get(&self.name))).await?;
        let lease = self.last.as_ref().map(observed);
        Ok(self.election.observe(lease, Instant::now().into_std()))
    }

    /// Writes our name, in a request that fails if the Lease has changed since it was read.
    async fn write(&mut self) -> Result<(), CallError> {
        let requested_at = Instant::now();
        let identity = self.election.identity();
        let lease = claimed(self.last.clone(), &self.name, identity, Timestamp::now());
        let written = match &self.last {
            Some(_) => self.replace(&lease).await?,
            None => self.create(&lease).await?,
        };
        self.election
            .record_write(observed(&written), Instant::now().into_std());
        self.last = Some(written);
        self.renewed_at = requested_at;
        self.fence.open(requested_at.into_std());
        Ok(())
    }

    async fn create(&self, lease: &Lease) -> Result<Lease, CallError> {
        within_timeout(call(self.api.create(&PostParams::default(), lease))).await
    }

    async fn replace(&self, lease: &Lease) -> Result<Lease, CallError> {
        let params = PostParams::default();
        within_timeout(call(self.api.replace(&self.name, &params, lease))).await
    }
}

async fn within_timeout<T>(
    request: impl Future<Output = Result<T, CallError>>,
) -> Result<T, CallError> {
    timeout(CALL_TIMEOUT, request).await?
}

/// Logs a failure, unless it is the one that was logged last.
fn log_failure(error: &CallError, logged: &mut Option<String>) {
    // Another candidate was faster.
    if error.is_lost_race() || logged.as_deref() == Some(&*error.to_string()) {
        return;
    }
    *logged = Some(error.to_string());
    tracing::warn!(
        error = error as &dyn std::error::Error,
        "failed to read or write the Lease; retrying"
    );
}

fn log_not_renewed(error: &CallError) {
    tracing::warn!(
        error = error as &dyn std::error::Error,
        "the Lease was not renewed; retrying"
    );
}

fn observed(lease: &Lease) -> ObservedLease {
    let spec = lease.spec.clone().unwrap_or_default();
    ObservedLease {
        version: lease.resource_version().unwrap_or_default(),
        duration: duration(&spec),
        holder: holder(spec),
    }
}

fn duration(spec: &LeaseSpec) -> Duration {
    spec.lease_duration_seconds
        .and_then(|seconds| u64::try_from(seconds).ok())
        .map_or(LEASE_DURATION, Duration::from_secs)
}

/// The holder's name; `None` after the Lease was given back, which leaves it empty.
fn holder(spec: LeaseSpec) -> Option<String> {
    spec.holder_identity.filter(|holder| !holder.is_empty())
}

/// The Lease with `identity` as its holder, renewed at `now`.
fn claimed(lease: Option<Lease>, name: &str, identity: &str, now: Timestamp) -> Lease {
    let mut lease = lease.unwrap_or_default();
    lease.metadata.name = Some(name.to_owned());
    let spec = lease.spec.get_or_insert_default();
    if spec.holder_identity.as_deref() != Some(identity) {
        change_holder(spec, identity, now);
    }
    spec.renew_time = Some(MicroTime(now));
    let seconds = i32::try_from(LEASE_DURATION.as_secs()).expect("some seconds");
    spec.lease_duration_seconds = Some(seconds);
    lease
}

fn change_holder(spec: &mut LeaseSpec, identity: &str, now: Timestamp) {
    spec.acquire_time = Some(MicroTime(now));
    let transitions = spec
        .lease_transitions
        .map(|before| before.saturating_add(1));
    spec.lease_transitions = Some(transitions.unwrap_or(0));
    spec.holder_identity = Some(identity.to_owned());
}

#[cfg(test)]
mod tests;
