//! The life of an operator's process: it stands by, leads, and ends when it is stopped or may lead
//! no more. Wiring.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use k8s_openapi::api::core::v1::Namespace;
use kube::{Api, Client, Config, ResourceExt};
use tokio::{
    signal::unix::{SignalKind, signal},
    time::{Instant, sleep},
};
use tokio_util::sync::CancellationToken;

use crate::{
    listen::listen,
    operator::{
        Operator, Settings,
        call::{ErrorClass, call},
        process::{
            api_client::{Wire, plain, wired},
            controller::{Context, work},
            fence::Fence,
            health::{Expected, Pulse},
            http::{Surface, serve},
            leader_lease::{Keeper, Lost},
            metrics::Metrics,
            watch_scope::Scopes,
        },
        reconcile::cache::Cache,
    },
};

/// Passes at work have so long to end before they are cut: less than a pod has.
const DRAIN: Duration = Duration::from_secs(20);

/// How an operator's process is started.
#[derive(Clone, Debug)]
pub struct Options {
    pub settings: Settings,
    /// Where /healthz, /readyz and /metrics are served.
    pub listen: SocketAddr,
    /// Whose OutboxRelays it looks at; empty: those of all namespaces.
    pub namespaces: Vec<String>,
    /// The Lease that one of several operators holds, in their namespace.
    pub lease_name: String,
    /// For how long a watch is opened at a time.
    pub watch_round: Duration,
}

/// Why the operator cannot run, or not any longer.
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
    #[error("failed to listen for SIGTERM")]
    Signal(#[source] std::io::Error),
    #[error(
        "lost the Lease: another operator may lead, so this one ends at once, to stand by when it \
         is started again"
    )]
    Lost(#[source] Lost),
}

/// Runs until SIGTERM or SIGINT, then lets the passes at work come to their ends and gives the
/// Lease back.
///
/// # Errors
/// When it cannot start, its HTTP surface breaks, or it may lead no more.
pub async fn run(options: Options) -> Result<(), RunError> {
    if !options.namespaces.is_empty() && options.settings.installation.cluster_name.is_empty() {
        return Err(RunError::NoClusterName);
    }
    let address = options.listen;
    let listener = listen(address)
        .await
        .map_err(|source| RunError::Listen { address, source })?;
    let config = Config::infer().await.map_err(RunError::Configure)?;
    let scopes = Scopes::new(&options.namespaces);
    let known = scopes.known(&options.settings.operator_name);
    let pulse = Pulse::new(Expected {
        scopes: scopes.watched(),
        round: options.watch_round,
    });
    let surface = Surface {
        pulse: Arc::new(pulse),
        metrics: Metrics::new(),
        memory: Arc::new(Cache::default()),
        known,
    };
    let stop = stop_at_signal()?;
    tokio::select! {
        ended = Box::pin(live(options, config, surface.clone(), scopes, stop)) => ended,
        served = serve(listener, surface) => served.map_err(RunError::Serve),
    }
}

/// SIGTERM (a pod is stopped) or SIGINT (Ctrl-C).
fn stop_at_signal() -> Result<CancellationToken, RunError> {
    let mut terminate = signal(SignalKind::terminate()).map_err(RunError::Signal)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(RunError::Signal)?;
    let stop = CancellationToken::new();
    let stopped = stop.clone();
    tokio::spawn(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        tracing::info!("stopping");
        stopped.cancel();
    });
    Ok(stop)
}

async fn live(
    options: Options,
    config: Config,
    surface: Surface,
    scopes: Scopes,
    stop: CancellationToken,
) -> Result<(), RunError> {
    let fence = Fence::default();
    let apart = plain(config.clone()).map_err(RunError::Connect)?;
    let client = plain(config).map_err(RunError::Connect)?;
    let wire = Wire {
        fence: fence.clone(),
        pulse: Arc::clone(&surface.pulse),
        metrics: surface.metrics.clone(),
    };
    let client = wired(client, wire);

    let me = options
        .settings
        .pod_name
        .clone()
        .unwrap_or_else(|| format!("outbox-operator-{}", uuid::Uuid::new_v4()));
    let namespace = options
        .settings
        .installation
        .namespace
        .clone()
        .unwrap_or_else(|| apart.default_namespace().to_owned());
    tell(&options, &me, &namespace);
    let mut keeper = Keeper::new(apart, &namespace, &options.lease_name, me, fence);
    tokio::select! {
        () = keeper.win(|| surface.pulse.lease_seen()) => {}
        () = stop.cancelled() => {
            keeper.release().await;
            return Ok(());
        }
    }
    tracing::info!("this operator leads");
    surface.pulse.leads(Instant::now().into_std());
    surface.metrics.leads();

    let drained = tokio::select! {
        lost = keeper.keep() => return Err(RunError::Lost(lost)),
        drained = Box::pin(lead(options, client, surface, scopes, stop)) => drained?,
    };
    // A write that was cut may still come to pass: the Lease then runs out, as it does when the
    // process dies.
    if drained {
        keeper.release().await;
    }
    Ok(())
}

fn tell(options: &Options, me: &str, namespace: &str) {
    let Options {
        settings:
            Settings {
                installation,
                operator_name,
                ..
            },
        listen,
        namespaces,
        lease_name,
        ..
    } = options;
    let (relay_image, cluster_name) = (&installation.relay_image, &installation.cluster_name);
    tracing::info!(relay_image, cluster_name, operator_name, %listen, ?namespaces, me, lease = format!("{namespace}/{lease_name}"), "started");
}

/// Whether all passes came to their ends when it was stopped.
async fn lead(
    mut options: Options,
    client: Client,
    surface: Surface,
    scopes: Scopes,
    stop: CancellationToken,
) -> Result<bool, RunError> {
    if options.settings.installation.cluster_name.is_empty() {
        tokio::select! {
            uid = uid_of_kube_system(&client) => options.settings.installation.cluster_name = uid?,
            () = stop.cancelled() => return Ok(true),
        }
    }
    let (cache, metrics) = (surface.memory, surface.metrics);
    let operator = Operator {
        cache,
        metrics,
        ..Operator::new(client, options.settings)
    };
    let context = Arc::new(Context::new(operator, surface.pulse, surface.known));
    let cut = async {
        stop.cancelled().await;
        sleep(DRAIN).await;
    };
    tokio::select! {
        () = work(context, scopes, options.watch_round, stop.clone()) => Ok(true),
        () = cut => Ok(false),
    }
}

/// Waits for an API server that is away; one that refuses will go on doing so.
async fn uid_of_kube_system(client: &Client) -> Result<String, RunError> {
    let api = Api::<Namespace>::all(client.clone());
    loop {
        match call(api.get("kube-system")).await {
            Ok(namespace) => return Ok(namespace.uid().unwrap_or_default()),
            Err(error) if error.class() == ErrorClass::Permanent => {
                return Err(RunError::ClusterName(Box::new(error)));
            }
            Err(error) => {
                tracing::warn!(
                    error = &error as &dyn std::error::Error,
                    "failed to read the uid of kube-system; it is tried again"
                );
                sleep(Duration::from_secs(1)).await;
            }
        }
    }
}
