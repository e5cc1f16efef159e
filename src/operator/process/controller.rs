//! Runs the controllers: watches start reconciliations, and failures pause them. Wiring.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use futures::{
    Stream, StreamExt, TryStreamExt,
    stream::{BoxStream, select_all},
};
use k8s_openapi::{
    NamespaceResourceScope,
    api::{apps::v1::Deployment, batch::v1::Job, core::v1::Pod},
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use kube::{
    Api, Client, Resource, ResourceExt,
    core::PartialObjectMeta,
    runtime::{
        Predicate, WatchStreamExt,
        controller::{self, Action, Controller},
        predicates,
        reflector::{ObjectRef, store::Writer},
        watcher::{self, ExponentialBackoff, watcher},
    },
};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use crate::operator::{
    Operator, ReconcileError,
    call::ErrorClass,
    identity::{MANAGED_BY, MIGRATION_LABEL, OPERATOR, RELAY_LABEL, RelayKey},
    ownership::relay_name,
    process::{
        health::HealthState,
        requeue_rate::RequeueRate,
        watch_scope::{GuardedRelay, RelayStore, WatchScope, WatchScopes},
    },
    reconcile::{Requeue, cache::Cache},
};

/// Reconciliations at the same time, in all namespaces together.
const CONCURRENCY: u16 = 8;
/// Changes of one object within this time lead to one reconciliation.
const DEBOUNCE: Duration = Duration::from_millis(300);
/// Longest time that one reconciliation may take.
const RECONCILE_TIMEOUT: Duration = Duration::from_secs(60);
/// Longest pause after a failure that ends automatically.
const RETRY_PAUSE_MAX: Duration = Duration::from_secs(8);
/// Pause after a failure that only a person can resolve, unless there are many OutboxRelays: no
/// watch reports that the person did.
const PERMANENT_RETRY_PAUSE: Duration = Duration::from_secs(15);
/// Shortest and longest pause before a watch that failed is opened again, without jitter.
const WATCH_BACKOFF: (Duration, Duration) = (Duration::from_millis(800), Duration::from_secs(3));

/// What all reconciliations share: the operator, and what the process records about it.
pub(crate) struct Context {
    operator: Operator,
    health: Arc<HealthState>,
    relays: RelayStore,
    requeue_rate: RequeueRate,
    /// Limits reconciliations at the same time, in all scopes together, to [`CONCURRENCY`].
    permits: Semaphore,
}

impl Context {
    pub(crate) fn new(operator: Operator, health: Arc<HealthState>, relays: RelayStore) -> Self {
        Self {
            operator,
            health,
            relays,
            requeue_rate: RequeueRate::default(),
            permits: Semaphore::new(CONCURRENCY.into()),
        }
    }
}

/// Watches and reconciles until `stop` is cancelled and the reconciliations under way have ended.
/// `watch_timeout` is the time after which a watch ends and is opened again.
///
/// # Cancel safety
///
/// Reconciliations under way are dropped where they wait. The API server may still carry out a
/// write that was sent, so a caller that drops this future must not give the Lease back.
pub(crate) async fn run_controllers(
    context: Arc<Context>,
    scopes: WatchScopes,
    watch_timeout: Duration,
    stop: CancellationToken,
) {
    let start = |(number, scope)| {
        controller(
            Arc::clone(&context),
            number,
            scope,
            watch_timeout,
            stop.clone(),
        )
    };
    select_all(scopes.0.into_iter().enumerate().map(start))
        .for_each(|outcome| {
            on_outcome(&context, outcome);
            std::future::ready(())
        })
        .await;
}

/// The controller of one scope, with watches and a back-off of its own. Yields the outcome of each
/// reconciliation.
fn controller(
    context: Arc<Context>,
    number: usize,
    scope: WatchScope,
    watch_timeout: Duration,
    stop: CancellationToken,
) -> BoxStream<'static, Outcome> {
    let children = ChildWatches::new(&context.operator, &scope, watch_timeout);
    let api = api(&context.operator.client, scope.namespace.as_deref());
    let relays = watcher(api, watch_config(watch_timeout)).backoff(watch_backoff());
    let relays = changed_relays(relays, scope.writer, number, Arc::clone(&context));
    Controller::for_stream(relays, scope.store)
        .with_config(controller_config())
        .trigger_backoff(watch_backoff())
        .watches_stream(children.changes::<Deployment>(), relay_of)
        .watches_stream(children.changes::<Job>(), relay_of)
        .watches_stream(children.changes::<Pod>(), relay_of)
        .graceful_shutdown_on(async move { stop.cancelled().await })
        .run(reconcile, error_policy, context)
        .boxed()
}

fn controller_config() -> controller::Config {
    controller::Config::default()
        .concurrency(CONCURRENCY)
        .debounce(DEBOUNCE)
}

fn watch_config(timeout: Duration) -> watcher::Config {
    watcher::Config::default().timeout(u32::try_from(timeout.as_secs()).unwrap_or(u32::MAX))
}

/// Stores the watched OutboxRelays and yields those whose spec or annotations changed.
fn changed_relays(
    watched: impl Stream<Item = watcher::Result<watcher::Event<GuardedRelay>>> + Send + 'static,
    writer: Writer<GuardedRelay>,
    number: usize,
    context: Arc<Context>,
) -> impl Stream<Item = watcher::Result<GuardedRelay>> + Send + 'static {
    let health = Arc::clone(&context.health);
    watched
        .modify(|relay| relay.managed_fields_mut().clear())
        .reflect(writer)
        // Not by waiting for the store: it wakes only one of those that wait, and the controller
        // is one.
        .inspect_ok(move |event| {
            if matches!(event, watcher::Event::InitDone) {
                health.listed(number);
            }
        })
        .applied_objects()
        // The operator's own status writes must not start a reconciliation.
        .predicate_filter(
            predicates::generation.combine(predicates::annotations),
            Default::default(),
        )
        .inspect_ok(move |relay| context.operator.mark_changed(&key_of(relay)))
}

fn api<K>(client: &Client, namespace: Option<&str>) -> Api<K>
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope>,
{
    match namespace {
        Some(namespace) => Api::namespaced(client.clone(), namespace),
        None => Api::all(client.clone()),
    }
}

type Child<K> = PartialObjectMeta<K>;

/// What the watches of one scope's children have in common.
struct ChildWatches {
    cache: Arc<Cache>,
    client: Client,
    namespace: Option<String>,
    config: watcher::Config,
}

impl ChildWatches {
    fn new(operator: &Operator, scope: &WatchScope, watch_timeout: Duration) -> Self {
        Self {
            cache: Arc::clone(&operator.cache),
            client: operator.client.clone(),
            namespace: scope.namespace.clone(),
            config: watch_config(watch_timeout).labels(&format!("{MANAGED_BY}={OPERATOR}")),
        }
    }

    /// Children of one kind that changed. The cache drops what depends on a child before the
    /// reconciliation that follows.
    fn changes<K>(&self) -> impl Stream<Item = watcher::Result<Child<K>>> + Send + use<K>
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope>
            + Clone
            + std::fmt::Debug
            + Send
            + Sync
            + 'static,
    {
        let (cache, namespace) = (Arc::clone(&self.cache), self.namespace.clone());
        let api = api::<Child<K>>(&self.client, namespace.as_deref());
        watcher(api, self.config.clone())
            .inspect_ok(move |event| mark_changed(&cache, namespace.as_deref(), event))
            .touched_objects()
    }
}

fn mark_changed<K>(cache: &Cache, namespace: Option<&str>, event: &watcher::Event<Child<K>>)
where
    K: Resource<DynamicType = ()>,
{
    match event {
        watcher::Event::Init => cache.all_changed(namespace),
        watcher::Event::InitDone => {}
        watcher::Event::Apply(child)
        | watcher::Event::InitApply(child)
        | watcher::Event::Delete(child) => {
            if let Some(key) = owner(&child.metadata) {
                cache.changed(&key);
            }
        }
    }
}

/// Short, because no watch of a scope is polled while its back-off lasts. Jitter may double it.
fn watch_backoff() -> ExponentialBackoff {
    let (shortest, longest) = WATCH_BACKOFF;
    let doubling = backon::ExponentialBuilder::default()
        .with_min_delay(shortest)
        .with_max_delay(longest);
    ExponentialBackoff::from(doubling.with_jitter().without_max_times())
}

#[expect(
    clippy::needless_pass_by_value,
    reason = "the controller passes children by value"
)]
fn relay_of<K>(child: Child<K>) -> Option<ObjectRef<GuardedRelay>> {
    let key = owner(&child.metadata)?;
    Some(ObjectRef::new(&key.name).within(&key.namespace))
}

fn key_of(relay: &GuardedRelay) -> RelayKey {
    RelayKey::new(relay.namespace().unwrap_or_default(), relay.name_any())
}

/// The OutboxRelay that a child was made for. A pod refers to it by its labels.
fn owner(child: &ObjectMeta) -> Option<RelayKey> {
    let name = relay_name(child).or_else(|| name_in_labels(child))?;
    Some(RelayKey::new(child.namespace.as_deref()?, name))
}

/// The name of the OutboxRelay in the labels of a relay pod or a migration pod.
fn name_in_labels(child: &ObjectMeta) -> Option<&str> {
    let labels = child.labels.as_ref()?;
    labels
        .get(RELAY_LABEL)
        .or_else(|| labels.get(MIGRATION_LABEL))
        .map(String::as_str)
}

async fn reconcile(
    relay: Arc<GuardedRelay>,
    context: Arc<Context>,
) -> Result<Action, ReconcileError> {
    let key = key_of(&relay);
    let _permit = context.permits.acquire().await;
    let started = Instant::now();
    let reconciled = Box::pin(context.operator.reconcile(&key));
    let ended = tokio::time::timeout(RECONCILE_TIMEOUT, reconciled)
        .await
        .unwrap_or(Err(ReconcileError::timeout(RECONCILE_TIMEOUT)));
    context.record(&key, started.elapsed(), ended.as_ref().err());
    ended.map(|requeue| context.action(requeue))
}

impl Context {
    /// Records a reconciliation that ended after `took`, with `error` if it failed.
    fn record(&self, key: &RelayKey, took: Duration, error: Option<&ReconcileError>) {
        let Operator { cache, metrics, .. } = &self.operator;
        self.health.reconciled(Instant::now());
        self.requeue_rate.record(took);
        match error {
            None => {
                metrics.succeeded(took);
                log_success(key, cache.clear_failures(key));
            }
            Some(error) => metrics.failed(took, error.class()),
        }
    }

    fn action(&self, requeue: Requeue) -> Action {
        match requeue {
            Requeue::OnChange => Action::await_change(),
            Requeue::After(pause) => Action::requeue(pause.max(self.min_pause())),
        }
    }

    /// Shortest pause before an object is reconciled again without a change.
    fn min_pause(&self) -> Duration {
        self.requeue_rate
            .min_pause(self.relays.count(), CONCURRENCY)
    }
}

/// Logs that a reconciliation succeeded after a number of failures in a row.
fn log_success(key: &RelayKey, failures: u32) {
    if failures > 0 {
        let (namespace, name) = (&key.namespace, &key.name);
        tracing::info!(
            namespace,
            name,
            failures,
            "resolved: a reconciliation succeeded again"
        );
    }
}

fn error_policy(relay: Arc<GuardedRelay>, error: &ReconcileError, context: Arc<Context>) -> Action {
    let key = key_of(&relay);
    let failures = context.operator.cache.count_failure(&key);
    let requested = error.retry_after().unwrap_or_default();
    let pause = retry_pause(error.class(), failures)
        .max(requested)
        .max(context.min_pause());
    log_failure(&key, error, failures);
    Action::requeue(pause)
}

/// Logs the first of several failures in a row. Those that follow are in the metrics, and in the
/// status of the OutboxRelay.
fn log_failure(key: &RelayKey, error: &ReconcileError, failures: u32) {
    let (namespace, name, class) = (&key.namespace, &key.name, error.class().name());
    let error = error as &dyn std::error::Error;
    if failures == 1 {
        tracing::warn!(namespace, name, class, error, "a reconciliation failed");
    } else {
        tracing::debug!(
            namespace,
            name,
            class,
            failures,
            error,
            "a reconciliation failed again"
        );
    }
}

/// The pause after a number of failures in a row: it doubles up to the longest of the class.
///
/// A failure that ends automatically is mostly the API server's; its longest pause is shorter than
/// the one after a success, so that all objects continue soon after the API server is back.
fn retry_pause(class: ErrorClass, failures: u32) -> Duration {
    let (first, longest) = match class {
        ErrorClass::Conflict => (Duration::from_millis(200), RETRY_PAUSE_MAX),
        ErrorClass::Transient => (Duration::from_secs(1), RETRY_PAUSE_MAX),
        ErrorClass::Permanent => (PERMANENT_RETRY_PAUSE, PERMANENT_RETRY_PAUSE),
    };
    first
        .saturating_mul(2_u32.saturating_pow(failures.saturating_sub(1)))
        .min(longest)
}

type Outcome =
    Result<(ObjectRef<GuardedRelay>, Action), controller::Error<ReconcileError, watcher::Error>>;

fn on_outcome(context: &Context, outcome: Outcome) {
    match outcome {
        // `error_policy` logs reconciliations that failed.
        Ok(_) | Err(controller::Error::ReconcilerFailed(..)) => {}
        Err(controller::Error::ObjectNotFound(gone)) => {
            let namespace = gone.namespace.unwrap_or_default();
            context
                .operator
                .forget(&RelayKey::new(namespace, gone.name));
        }
        // The client logs it once for its namespace.
        Err(controller::Error::QueueError(error)) if is_forbidden(&error) => {}
        Err(error) => tracing::warn!(
            error = &error as &dyn std::error::Error,
            "a watch failed; it is opened again"
        ),
    }
}

fn is_forbidden(error: &watcher::Error) -> bool {
    use watcher::Error::{InitialListFailed, WatchStartFailed};
    match error {
        InitialListFailed(kube::Error::Api(status))
        | WatchStartFailed(kube::Error::Api(status)) => status.code == 403,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_from_the_first_of_the_class_up_to_its_longest() {
        let pause = retry_pause;
        assert_eq!(pause(ErrorClass::Conflict, 1), Duration::from_millis(200));
        assert_eq!(pause(ErrorClass::Transient, 1), Duration::from_secs(1));
        assert_eq!(pause(ErrorClass::Transient, 4), Duration::from_secs(8));
        assert_eq!(pause(ErrorClass::Transient, u32::MAX), RETRY_PAUSE_MAX);
        assert_eq!(pause(ErrorClass::Conflict, u32::MAX), RETRY_PAUSE_MAX);
        assert_eq!(pause(ErrorClass::Permanent, 1), PERMANENT_RETRY_PAUSE);
        assert_eq!(
            pause(ErrorClass::Permanent, u32::MAX),
            PERMANENT_RETRY_PAUSE
        );
    }
}
