//! The life of an operator's process: it stands by, leads, and ends when it is stopped or may no
//! longer lead. Wiring.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use k8s_openapi::api::core::v1::Namespace;
use kube::{Api, Client, Config, ResourceExt};
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use crate::{
    listen::listen,
    operator::{
        Operator, Settings,
        call::{CallError, ErrorClass, call},
        process::{
            api_client::{ClientHooks, base_client, instrumented},
            controller::{Context, run_controllers},
            fence::Fence,
            health::{Expected, HealthState},
            http::{HttpState, serve},
            leader_lease::{LeaderLease, LeaseLost},
            metrics::Metrics,
            watch_scope::WatchScopes,
        },
        reconcile::cache::Cache,
    },
};

/// Time that reconciliations under way have to end after a stop, before they are dropped.
/// Kubernetes gives a pod 30 s.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(20);
/// Pause between two attempts to read the uid of kube-system.
const RETRY_INTERVAL: Duration = Duration::from_secs(1);

/// How an operator's process is started.
#[derive(Clone, Debug)]
pub struct Options {
    pub settings: Settings,
    /// Address that serves /healthz, /readyz and /metrics.
    pub listen: SocketAddr,
    /// Namespaces whose OutboxRelays are reconciled. Empty means all namespaces.
    pub namespaces: Vec<String>,
    /// Name of the Lease that selects the leader among several operators, in their namespace.
    pub lease_name: String,
    /// Time after which a watch ends and is opened again.
    pub watch_timeout: Duration,
}

/// Why the operator cannot start, or ended before it was stopped.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    #[error("failed to find a cluster: set KUBECONFIG, or run in a pod")]
    Configure(#[source] kube::config::InferConfigError),
    #[error("failed to set up a client for the cluster")]
    Connect(#[source] kube::Error),
    #[error(
        "--watch-namespaces needs --cluster-name: the name of the cluster is read from namespace \
         kube-system otherwise"
    )]
    NoClusterName,
    #[error(
        "failed to read the uid of namespace kube-system: set --cluster-name, or grant 'get' on it"
    )]
    ClusterName(#[source] Box<dyn std::error::Error + Send + Sync>),
    #[error("failed to listen on {address}: set --listen to a free one")]
    Listen {
        address: SocketAddr,
        source: std::io::Error,
    },
    #[error("failed to serve /healthz and /metrics")]
    Serve(#[source] std::io::Error),
    #[error(
        "lost the Lease: another operator may lead, so this one ends immediately and stands by \
         when it is restarted"
    )]
    LeaseLost(#[source] LeaseLost),
}

/// Runs until `stop`. Then it lets the reconciliations under way end and gives the Lease
/// back.
///
/// # Errors
///
/// When the operator cannot start, its HTTP server fails, or it may no longer lead.
///
/// # Cancel safety
///
/// Reconciliations under way are dropped, and the Lease is not given back: it runs out.
pub async fn run(options: Options, stop: CancellationToken) -> Result<(), RunError> {
    check(&options)?;
    let address = options.listen;
    let listener = listen(address)
        .await
        .map_err(|source| RunError::Listen { address, source })?;
    let config = Config::infer().await.map_err(RunError::Configure)?;
    let scopes = WatchScopes::new(&options.namespaces);
    let state = http_state(&options, &scopes);
    tokio::spawn(log_stop(stop.clone()));
    let lead = stand_by_and_lead(options, config, state.clone(), scopes, stop);
    tokio::select! {
        ended = Box::pin(lead) => ended,
        served = serve(listener, state) => served.map_err(RunError::Serve),
    }
}

async fn log_stop(stop: CancellationToken) {
    stop.cancelled().await;
    tracing::info!("stopping");
}

/// An operator of some namespaces may have no right to read kube-system.
fn check(options: &Options) -> Result<(), RunError> {
    let is_unnamed = options.settings.installation.cluster_name.is_empty();
    if is_unnamed && !options.namespaces.is_empty() {
        return Err(RunError::NoClusterName);
    }
    Ok(())
}

fn http_state(options: &Options, scopes: &WatchScopes) -> HttpState {
    let health = HealthState::new(Expected {
        scopes: scopes.watched(),
        watch_timeout: options.watch_timeout,
    });
    HttpState {
        health: Arc::new(health),
        metrics: Metrics::new(),
        cache: Arc::new(Cache::default()),
        relays: scopes.relay_store(&options.settings.operator_name),
    }
}

async fn stand_by_and_lead(
    options: Options,
    config: Config,
    state: HttpState,
    scopes: WatchScopes,
    stop: CancellationToken,
) -> Result<(), RunError> {
    let fence = Fence::default();
    // The Lease has a connection pool of its own: its requests wait behind no others.
    let lease_client = base_client(config.clone()).map_err(RunError::Connect)?;
    let client = base_client(config).map_err(RunError::Connect)?;
    let client = instrumented(client, hooks(&fence, &state));

    let mut lease = leader_lease(&options, lease_client, fence);
    let acquire = lease.acquire(|| state.health.lease_seen());
    if Box::pin(stop.run_until_cancelled(acquire)).await.is_none() {
        lease.release().await;
        return Ok(());
    }
    record_leading(&state);
    let end = tokio::select! {
        lost = lease.hold() => return Err(RunError::LeaseLost(lost)),
        end = Box::pin(lead(options, client, state, scopes, stop)) => end?,
    };
    match end {
        End::Drained => lease.release().await,
        // The API server may still carry out a write that was dropped. The Lease runs out, as it
        // does when the process dies.
        End::Dropped => {}
    }
    Ok(())
}

fn record_leading(state: &HttpState) {
    tracing::info!("this operator leads");
    state.health.leads(Instant::now().into_std());
    state.metrics.leads();
}

fn hooks(fence: &Fence, state: &HttpState) -> ClientHooks {
    ClientHooks {
        fence: fence.clone(),
        health: Arc::clone(&state.health),
        metrics: state.metrics.clone(),
    }
}

/// The Lease in the operators' namespace, with the pod's name as identity. Also logs the start.
fn leader_lease(options: &Options, client: Client, fence: Fence) -> LeaderLease {
    let Settings {
        installation,
        pod_name,
        ..
    } = &options.settings;
    let identity = pod_name
        .clone()
        .unwrap_or_else(|| format!("outbox-operator-{}", uuid::Uuid::new_v4()));
    let namespace = installation
        .namespace
        .clone()
        .unwrap_or_else(|| client.default_namespace().to_owned());
    log_start(options, &identity, &namespace);
    LeaderLease::new(client, &namespace, &options.lease_name, identity, fence)
}

fn log_start(options: &Options, identity: &str, namespace: &str) {
    let Options {
        listen,
        namespaces,
        lease_name,
        ..
    } = options;
    let installation = &options.settings.installation;
    tracing::info!(
        relay_image = installation.relay_image,
        cluster_name = installation.cluster_name,
        operator_name = options.settings.operator_name,
        %listen,
        ?namespaces,
        me = identity,
        lease = format!("{namespace}/{lease_name}"),
        "started"
    );
}

/// How reconciling ended after a stop.
enum End {
    /// All reconciliations came to their ends.
    Drained,
    /// Some were dropped after [`DRAIN_TIMEOUT`].
    Dropped,
}

/// Reconciles until `stop` is cancelled and the reconciliations under way have ended.
async fn lead(
    mut options: Options,
    client: Client,
    state: HttpState,
    scopes: WatchScopes,
    stop: CancellationToken,
) -> Result<End, RunError> {
    let cluster_name = &mut options.settings.installation.cluster_name;
    if cluster_name.is_empty() {
        let uid = uid_of_kube_system(&client);
        match stop.run_until_cancelled(uid).await {
            Some(uid) => *cluster_name = uid?,
            None => return Ok(End::Drained),
        }
    }
    let operator = Operator {
        cache: state.cache,
        metrics: state.metrics,
        ..Operator::new(client, options.settings)
    };
    let context = Arc::new(Context::new(operator, state.health, state.relays));
    let drain_timeout = async {
        stop.cancelled().await;
        tracing::info!("stopping");
        sleep(DRAIN_TIMEOUT).await;
    };
    tokio::select! {
        () = run_controllers(context, scopes, options.watch_timeout, stop.clone()) => {
            Ok(End::Drained)
        }
        () = drain_timeout => Ok(End::Dropped),
    }
}

/// Waits while the API server is unavailable. A refusal is final.
async fn uid_of_kube_system(client: &Client) -> Result<String, RunError> {
    let api = Api::<Namespace>::all(client.clone());
    loop {
        match call(api.get("kube-system")).await {
            Ok(namespace) => return Ok(namespace.uid().unwrap_or_default()),
            Err(error) if error.class() == ErrorClass::Permanent => {
                return Err(RunError::ClusterName(Box::new(error)));
            }
            Err(error) => log_retry(&error),
        }
        sleep(RETRY_INTERVAL).await;
    }
}

fn log_retry(error: &CallError) {
    tracing::warn!(
        error = error as &dyn std::error::Error,
        "failed to read the uid of kube-system; retrying"
    );
}
