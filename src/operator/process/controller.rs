//! Watches in, passes out, pauses after failures. Wiring.

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
        reflector::ObjectRef,
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
        health::Pulse,
        requeue_rate::Pace,
        watch_scope::{Guarded, Known, Scope, Scopes},
    },
    reconcile::{Requeue, cache::Cache},
};
/// Passes at the same time, however many namespaces there are.
const CONCURRENCY: u16 = 8;
/// Changes that come together are worked through together.
const DEBOUNCE: Duration = Duration::from_millis(300);
const RECONCILE_TIME_MAX: Duration = Duration::from_secs(60);
/// Longest pause after a failure that passes by itself.
const RETRY_PAUSE_MAX: Duration = Duration::from_secs(8);

/// The operator and its signs of life.
pub(crate) struct Context {
    operator: Operator,
    pulse: Arc<Pulse>,
    known: Known,
    pace: Pace,
    /// Passes at the same time, in all scopes together.
    permits: Semaphore,
}

impl Context {
    pub(crate) fn new(operator: Operator, pulse: Arc<Pulse>, known: Known) -> Self {
        Self {
            operator,
            pulse,
            known,
            pace: Pace::default(),
            permits: Semaphore::new(CONCURRENCY.into()),
        }
    }
}

/// Watches and passes until it is stopped, and the passes at work have ended.
pub(crate) async fn work(
    context: Arc<Context>,
    scopes: Scopes,
    round: Duration,
    stop: CancellationToken,
) {
    let run = |(number, scope)| outcomes(Arc::clone(&context), number, scope, round, stop.clone());
    select_all(scopes.0.into_iter().enumerate().map(run))
        .for_each(|outcome| {
            note(&context, outcome);
            std::future::ready(())
        })
        .await;
}

/// One controller, with watches and a back-off of its own.
fn outcomes(
    context: Arc<Context>,
    number: usize,
    scope: Scope,
    round: Duration,
    stop: CancellationToken,
) -> BoxStream<'static, Outcome> {
    let client = context.operator.client.clone();
    let namespace = scope.namespace.as_deref();
    let pulse = Arc::clone(&context.pulse);
    let rounds =
        || watcher::Config::default().timeout(u32::try_from(round.as_secs()).unwrap_or(u32::MAX));
    let ours = rounds().labels(&format!("{MANAGED_BY}={OPERATOR}"));
    let marking = Arc::clone(&context);
    let relays = watcher(api::<Guarded>(&client, namespace), rounds())
        .backoff(short_backoff())
        .modify(|relay| relay.managed_fields_mut().clear())
        .reflect(scope.writer)
        // Not by waiting for the store: it wakes only one of those who wait, and the controller is
        // one.
        .inspect_ok(move |event| {
            if matches!(event, watcher::Event::InitDone) {
                pulse.listed(number);
            }
        })
        .applied_objects()
        // Our own status writes are no news.
        .predicate_filter(
            predicates::generation.combine(predicates::annotations),
            Default::default(),
        )
        .inspect_ok(move |relay| {
            marking.operator.mark_changed(&key_of(relay));
        });
    let cache = &context.operator.cache;
    Controller::for_stream(relays, scope.known.clone())
        .with_config(
            controller::Config::default()
                .concurrency(CONCURRENCY)
                .debounce(DEBOUNCE),
        )
        .trigger_backoff(short_backoff())
        .watches_stream(
            children::<Deployment>(cache, &client, namespace, &ours),
            relay_of,
        )
        .watches_stream(children::<Job>(cache, &client, namespace, &ours), relay_of)
        .watches_stream(children::<Pod>(cache, &client, namespace, &ours), relay_of)
        .graceful_shutdown_on(async move { stop.cancelled().await })
        .run(reconcile, error_policy, context)
        .boxed()
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

/// Children that changed; the memory hears of them before the pass does that follows.
fn children<K>(
    cache: &Arc<Cache>,
    client: &Client,
    namespace: Option<&str>,
    ours: &watcher::Config,
) -> impl Stream<Item = Result<Child<K>, watcher::Error>> + Send + use<K>
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope>
        + Clone
        + std::fmt::Debug
        + Send
        + Sync
        + 'static,
{
    let (cache, scope) = (Arc::clone(cache), namespace.map(str::to_owned));
    watcher(api::<Child<K>>(client, namespace), ours.clone())
        .inspect_ok(move |event| hear(&cache, scope.as_deref(), event))
        .touched_objects()
}

fn hear<K>(cache: &Cache, namespace: Option<&str>, event: &watcher::Event<Child<K>>)
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

/// While this back-off lasts no watch of its scope is polled at all, and with its jitter it may be
/// twice as long.
fn short_backoff() -> ExponentialBackoff {
    let doubling = backon::ExponentialBuilder::default()
        .with_min_delay(Duration::from_millis(800))
        .with_max_delay(Duration::from_secs(3));
    ExponentialBackoff::from(doubling.with_jitter().without_max_times())
}

#[expect(
    clippy::needless_pass_by_value,
    reason = "as the controller asks for it"
)]
fn relay_of<K>(child: Child<K>) -> Option<ObjectRef<Guarded>> {
    let key = owner(&child.metadata)?;
    Some(ObjectRef::new(&key.name).within(&key.namespace))
}

fn key_of(relay: &Guarded) -> RelayKey {
    RelayKey::new(relay.namespace().unwrap_or_default(), relay.name_any())
}

/// The OutboxRelay that it was made for; of a pod, its labels say so.
fn owner(child: &ObjectMeta) -> Option<RelayKey> {
    let label = |name| child.labels.as_ref()?.get(name).map(String::as_str);
    let name = relay_name(child)
        .or_else(|| label(RELAY_LABEL))
        .or_else(|| label(MIGRATION_LABEL))?;
    Some(RelayKey::new(child.namespace.as_deref()?, name))
}

async fn reconcile(relay: Arc<Guarded>, context: Arc<Context>) -> Result<Action, ReconcileError> {
    let key = key_of(&relay);
    let _permit = context.permits.acquire().await;
    let started = Instant::now();
    let limited = tokio::time::timeout(
        RECONCILE_TIME_MAX,
        Box::pin(context.operator.reconcile(&key)),
    );
    let ended = limited
        .await
        .unwrap_or(Err(ReconcileError::timeout(RECONCILE_TIME_MAX)));
    context.pulse.passed(Instant::now());
    context.pace.passed(started.elapsed());
    match ended {
        Ok(requeue) => {
            context.operator.metrics.passed(started.elapsed());
            context.operator.cache.clear_failures(&key);
            let shortest = context.pace.pause(context.known.count(), CONCURRENCY);
            Ok(match requeue {
                Requeue::OnChange => Action::await_change(),
                Requeue::After(pause) => Action::requeue(pause.max(shortest)),
            })
        }
        Err(error) => {
            context
                .operator
                .metrics
                .failed(started.elapsed(), error.class());
            Err(error)
        }
    }
}

fn error_policy(relay: Arc<Guarded>, error: &ReconcileError, context: Arc<Context>) -> Action {
    let key = key_of(&relay);
    let failures = context.operator.cache.count_failure(&key);
    let pause = pause(error.class(), failures).max(error.retry_after().unwrap_or_default());
    tracing::warn!(
        namespace = key.namespace,
        name = key.name,
        class = error.class().name(),
        failures,
        ?pause,
        error = error as &dyn std::error::Error,
        "a pass failed"
    );
    Action::requeue(pause)
}

/// Doubling. What only a person can change is tried ever more rarely. What passes by itself is
/// mostly the API server's, and each object goes on soon when it is back: that is less than what a
/// healthy object asks for.
fn pause(class: ErrorClass, failures: u32) -> Duration {
    let (first, longest) = match class {
        ErrorClass::Conflict => (Duration::from_millis(200), RETRY_PAUSE_MAX),
        ErrorClass::Transient => (Duration::from_secs(1), RETRY_PAUSE_MAX),
        ErrorClass::Permanent => (Duration::from_secs(15), Duration::from_mins(5)),
    };
    first
        .saturating_mul(2_u32.saturating_pow(failures.saturating_sub(1)))
        .min(longest)
}

type Outcome =
    Result<(ObjectRef<Guarded>, Action), controller::Error<ReconcileError, watcher::Error>>;

fn note(context: &Context, outcome: Outcome) {
    match outcome {
        // Failed passes are logged where their pause is decided.
        Ok(_) | Err(controller::Error::ReconcilerFailed(..)) => {}
        Err(controller::Error::ObjectNotFound(gone)) => {
            let namespace = gone.namespace.unwrap_or_default();
            context
                .operator
                .forget(&RelayKey::new(namespace, gone.name));
        }
        // Told once for its namespace, by the client.
        Err(controller::Error::QueueError(error)) if is_forbidden(&error) => {}
        Err(error) => tracing::warn!(
            error = &error as &dyn std::error::Error,
            "a watch failed; it is opened again"
        ),
    }
}

fn is_forbidden(error: &watcher::Error) -> bool {
    use watcher::Error::{InitialListFailed, WatchStartFailed};
    matches!(error, InitialListFailed(kube::Error::Api(status)) | WatchStartFailed(kube::Error::Api(status)) if status.code == 403)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_from_what_the_class_deserves_up_to_its_longest() {
        assert_eq!(pause(ErrorClass::Conflict, 1), Duration::from_millis(200));
        assert_eq!(pause(ErrorClass::Transient, 1), Duration::from_secs(1));
        assert_eq!(pause(ErrorClass::Transient, 4), Duration::from_secs(8));
        assert_eq!(pause(ErrorClass::Transient, u32::MAX), RETRY_PAUSE_MAX);
        assert_eq!(pause(ErrorClass::Conflict, u32::MAX), RETRY_PAUSE_MAX);
        assert_eq!(pause(ErrorClass::Permanent, 1), Duration::from_secs(15));
        assert_eq!(
            pause(ErrorClass::Permanent, u32::MAX),
            Duration::from_mins(5)
        );
    }
}
