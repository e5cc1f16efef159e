//! Wiring: watches in, passes out, pauses after failures, shutdown.

use std::{
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use futures::{StreamExt, TryStreamExt};
use k8s_openapi::api::{
    apps::v1::Deployment,
    batch::v1::Job,
    core::v1::{Namespace, Pod},
};
use kube::{
    Api, Client, Config, ResourceExt,
    core::{DeserializeGuard, PartialObjectMeta},
    runtime::{
        Predicate, WatchStreamExt,
        controller::{self, Action, Controller},
        predicates,
        reflector::{self, ObjectRef, Store},
        watcher::{self, ExponentialBackoff, watcher},
    },
};
use tokio::net::TcpListener;

use super::{
    Operator, PassError,
    call::{CallError, ErrorClass, call},
    health::{Pulse, serve},
    identity::{MANAGED_BY, MIGRATION_LABEL, OPERATOR, RELAY_LABEL},
    installation::Installation,
};
use crate::api::OutboxRelay;

type Guarded = DeserializeGuard<OutboxRelay>;

/// Passes at the same time.
const CONCURRENCY: u16 = 8;
/// Changes that come together are worked through together.
const DEBOUNCE: Duration = Duration::from_millis(300);
const LONGEST_PASS: Duration = Duration::from_secs(60);

/// What the process is started with.
#[derive(Clone, Debug)]
pub struct Settings {
    pub installation: Installation,
    /// Where /healthz, /readyz and /metrics are served.
    pub listen: SocketAddr,
    /// Name of this pod, for Events.
    pub pod_name: Option<String>,
}

/// Why the operator cannot run.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    #[error("failed to find a cluster: set KUBECONFIG, or run in a pod")]
    Configure(#[source] kube::config::InferConfigError),
    #[error("failed to set up a client for the cluster")]
    Connect(#[source] kube::Error),
    #[error("failed to read the uid of namespace kube-system: set --cluster-name, or grant 'get' on it")]
    ClusterName(#[source] Box<dyn std::error::Error + Send + Sync>),
    #[error("failed to listen on {address}: set --listen to a free one")]
    Listen { address: SocketAddr, source: std::io::Error },
    #[error("failed to serve /healthz and /metrics")]
    Serve(#[source] std::io::Error),
}

/// The operator and its signs of life.
struct Context {
    operator: Operator,
    pulse: Arc<Pulse>,
    known: Store<Guarded>,
}

/// Runs until SIGTERM or SIGINT, then lets the passes at work come to their ends.
///
/// # Errors
/// When it cannot start, or its HTTP surface breaks.
pub async fn run(mut settings: Settings) -> Result<(), RunError> {
    let client = connect().await?;
    let installation = &mut settings.installation;
    if installation.cluster_name.is_empty() {
        installation.cluster_name = uid_of_kube_system(&client).await.map_err(|error| RunError::ClusterName(Box::new(error)))?;
    }
    let address = settings.listen;
    let listener = TcpListener::bind(address).await.map_err(|source| RunError::Listen { address, source })?;
    tracing::info!(relay_image = settings.installation.relay_image, cluster_name = settings.installation.cluster_name, %address, "started");

    let (known, writer) = reflector::store();
    let context = Arc::new(Context { operator: Operator::new(client, settings), pulse: Arc::new(Pulse::new()), known });
    let work = Box::pin(work(Arc::clone(&context), writer));
    tokio::select! {
        () = work => Ok(()),
        served = serve(listener, Arc::clone(&context.pulse), context.operator.metrics.clone()) => served.map_err(RunError::Serve),
    }
}

async fn connect() -> Result<Client, RunError> {
    let mut config = Config::infer().await.map_err(RunError::Configure)?;
    // Failed requests are retried by the object's back-off, where they can be seen.
    config.default_retry = false;
    config.connect_timeout = Some(Duration::from_secs(5));
    Client::try_from(config).map_err(RunError::Connect)
}

async fn uid_of_kube_system(client: &Client) -> Result<String, CallError> {
    let api = Api::<Namespace>::all(client.clone());
    Ok(call(api.get("kube-system")).await?.uid().unwrap_or_default())
}

async fn work(context: Arc<Context>, writer: reflector::store::Writer<Guarded>) {
    let client = context.operator.client.clone();
    let pulse = Arc::clone(&context.pulse);
    let relays = watcher(Api::<Guarded>::all(client.clone()), watcher::Config::default())
        .default_backoff()
        .modify(|relay| relay.managed_fields_mut().clear())
        .reflect(writer)
        // Not by waiting for the store: it wakes only one of those who wait, and the controller is one.
        .inspect_ok(move |event| pulse.note(event))
        .applied_objects()
        // Our own status writes are no news.
        .predicate_filter(predicates::generation.combine(predicates::annotations), Default::default());
    let ours = || watcher::Config::default().labels(&format!("{MANAGED_BY}={OPERATOR}"));
    Controller::for_stream(relays, context.known.clone())
        .with_config(controller::Config::default().concurrency(CONCURRENCY).debounce(DEBOUNCE))
        .trigger_backoff(short_backoff())
        .owns(Api::<Deployment>::all(client.clone()), ours())
        .owns(Api::<Job>::all(client.clone()), ours())
        .watches(Api::<PartialObjectMeta<Pod>>::all(client), ours(), relay_of_pod)
        .shutdown_on_signal()
        .run(reconcile, error_policy, Arc::clone(&context))
        .for_each(|outcome| {
            note(&context, outcome);
            std::future::ready(())
        })
        .await;
}

/// While this back-off lasts no watch is polled at all: a long one would starve those that are just reconnecting.
fn short_backoff() -> ExponentialBackoff {
    let doubling = backon::ExponentialBuilder::default().with_min_delay(Duration::from_millis(800)).with_max_delay(Duration::from_secs(5));
    ExponentialBackoff::from(doubling.with_jitter().without_max_times())
}

fn relay_of_pod(pod: PartialObjectMeta<Pod>) -> Option<ObjectRef<Guarded>> {
    let labels = pod.labels();
    let name = labels.get(RELAY_LABEL).or_else(|| labels.get(MIGRATION_LABEL))?;
    Some(ObjectRef::new(name).within(&pod.namespace()?))
}

async fn reconcile(relay: Arc<Guarded>, context: Arc<Context>) -> Result<Action, PassError> {
    let (namespace, name) = (relay.namespace().unwrap_or_default(), relay.name_any());
    let started = Instant::now();
    let limited = tokio::time::timeout(LONGEST_PASS, Box::pin(context.operator.work_through(&namespace, &name)));
    let ended = limited.await.unwrap_or(Err(PassError::Timeout(LONGEST_PASS)));
    context.pulse.beat(context.known.len());
    match ended {
        Ok(again) => {
            context.operator.metrics.passed(started.elapsed());
            context.operator.memory.clear_failures((&namespace, &name));
            Ok(again.map_or_else(Action::await_change, Action::requeue))
        }
        Err(error) => {
            context.operator.metrics.failed(started.elapsed(), error.class());
            Err(error)
        }
    }
}

fn error_policy(relay: Arc<Guarded>, error: &PassError, context: Arc<Context>) -> Action {
    let (namespace, name) = (relay.namespace().unwrap_or_default(), relay.name_any());
    let failures = context.operator.memory.count_failure((&namespace, &name));
    let pause = pause(error.class(), failures);
    tracing::warn!(
        namespace,
        name,
        class = error.class().name(),
        failures,
        ?pause,
        error = error as &dyn std::error::Error,
        "a pass failed"
    );
    Action::requeue(pause)
}

/// At once after a lost race, the first times; else doubling up to five minutes.
fn pause(class: ErrorClass, failures: u32) -> Duration {
    let first = match class {
        ErrorClass::Conflict => Duration::from_millis(200),
        ErrorClass::Transient => Duration::from_secs(1),
        ErrorClass::Permanent => Duration::from_secs(15),
    };
    first.saturating_mul(2_u32.saturating_pow(failures.saturating_sub(1))).min(Duration::from_mins(5))
}

type Outcome = Result<(ObjectRef<Guarded>, Action), controller::Error<PassError, watcher::Error>>;

fn note(context: &Context, outcome: Outcome) {
    match outcome {
        // Failed passes are logged where their pause is decided.
        Ok(_) | Err(controller::Error::ReconcilerFailed(..)) => {}
        Err(controller::Error::ObjectNotFound(gone)) => {
            context.operator.forget((gone.namespace.as_deref().unwrap_or_default(), &gone.name));
        }
        Err(error) => tracing::warn!(error = &error as &dyn std::error::Error, "a watch failed; it is opened again"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_from_what_the_class_deserves_up_to_five_minutes() {
        assert_eq!(pause(ErrorClass::Conflict, 1), Duration::from_millis(200));
        assert_eq!(pause(ErrorClass::Transient, 1), Duration::from_secs(1));
        assert_eq!(pause(ErrorClass::Transient, 4), Duration::from_secs(8));
        assert_eq!(pause(ErrorClass::Permanent, 1), Duration::from_secs(15));
        assert_eq!(pause(ErrorClass::Transient, u32::MAX), Duration::from_mins(5));
    }
}
