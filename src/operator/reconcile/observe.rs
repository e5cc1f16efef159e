//! Reads what exists: the Deployment, migration Jobs, pods and ConfigMaps. IO only; what the
//! objects mean is read in the pure files below this one. No Secret is ever read.

mod deployment_state;
mod job_state;
mod pod_state;
pub(crate) mod relay_reports;

use std::collections::BTreeSet;

use k8s_openapi::api::{
    apps::v1::{Deployment, ReplicaSet},
    batch::v1::Job,
    core::v1::{ConfigMap, Event, Pod},
};
use kube::{
    Api, Client, Resource, ResourceExt,
    api::{ListParams, ObjectList},
};
use serde::de::DeserializeOwned;

pub(crate) use deployment_state::{RelayDeployment, WrittenFor};
pub(crate) use job_state::{JobOutcome, MigrationJob};
pub(crate) use pod_state::{MigrationPod, RelayPod};

use crate::{
    operator::{
        call::{CallError, call, call_opt},
        identity::Identity,
        ownership::{Ownership, ownership},
        reconcile::upgrade_queue::PodReplacement,
    },
    report::{Problem, ProblemClass, RelayReport},
};

/// What exists for one OutboxRelay.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Observed {
    pub deployment: Option<RelayDeployment>,
    pub jobs: Vec<MigrationJob>,
    pub pods: Vec<RelayPod>,
    /// One for each pod with an address; from the pods, not from the API server.
    pub reports: Vec<PodReport>,
    pub config_maps: Vec<ObjectKey>,
    /// ConfigMaps that a ReplicaSet with replicas or an unfinished Job still mounts.
    pub used_config_maps: BTreeSet<String>,
}

impl Observed {
    /// Returns the number of relays that exist, with those that drain: the Deployment does not
    /// count them any more.
    pub(crate) fn relays(&self) -> usize {
        let counted = self
            .deployment
            .as_ref()
            .map_or(0, |deployment| deployment.existing);
        let running = self.pods.iter().filter(|pod| pod.address.is_some()).count();
        running.max(usize::try_from(counted).unwrap_or(0))
    }

    /// Returns whether the Deployment is replacing its pods.
    pub(crate) fn pod_replacement(&self) -> PodReplacement {
        match &self.deployment {
            Some(deployment) if deployment.rolling && !deployment.rolled_out() => {
                PodReplacement::UnderWay
            }
            _ => PodReplacement::Done,
        }
    }

    /// Returns whether the rollout of the relays makes no progress.
    pub(crate) fn is_stuck(&self) -> bool {
        let deployment = self.deployment.as_ref();
        deployment.is_some_and(|deployment| deployment.stuck)
    }

    /// Returns the migration Job of this name.
    pub(crate) fn job(&self, name: &str) -> Option<&MigrationJob> {
        self.jobs.iter().find(|job| job.key.name == name)
    }

    /// Returns whether a relay has reported.
    pub(crate) fn has_reports(&self) -> bool {
        self.reports.iter().any(|one| one.report.is_some())
    }

    /// Returns the problem of the first relay that finds the schema missing or too old.
    pub(crate) fn lost_schema(&self) -> Option<&Problem> {
        let mut problems = self.problems().map(|(_, problem)| problem);
        problems.find(|problem| problem.class == ProblemClass::SchemaNotReady)
    }

    /// Returns the problems of all relays with their pods, the most urgent of each first.
    pub(crate) fn problems(&self) -> impl Iterator<Item = (&str, &Problem)> {
        let reports = self
            .reports
            .iter()
            .filter_map(|one| Some((one.pod.as_str(), one.report.as_ref()?)));
        reports.flat_map(|(pod, report)| report.problems.iter().map(move |problem| (pod, problem)))
    }

    /// Returns whether watches report every change of it. An unfinished Job may have no pod: the
    /// reason is in Events, which are not watched.
    pub(crate) fn is_watched(&self) -> bool {
        self.jobs
            .iter()
            .all(|job| job.outcome != JobOutcome::Unfinished)
    }
}

/// Report of one relay pod.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct PodReport {
    pub pod: String,
    /// Absent if the pod could not be asked, or did not answer with a report.
    pub report: Option<RelayReport>,
}

/// Name and uid: enough to delete this very object and no later one of its name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ObjectKey {
    pub name: String,
    pub uid: String,
}

impl ObjectKey {
    /// Returns the key of an object.
    pub(crate) fn of(object: &impl ResourceExt) -> Self {
        Self {
            name: object.name_any(),
            uid: object.uid().unwrap_or_default(),
        }
    }
}

/// Why the state could not be read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ObserveError {
    #[error("failed to read the Deployment")]
    GetDeployment(#[source] CallError),
    #[error("failed to list {kind}s")]
    List {
        kind: &'static str,
        source: CallError,
    },
}

impl ObserveError {
    /// Returns the failed request.
    pub(crate) fn call(&self) -> &CallError {
        match self {
            Self::GetDeployment(source) | Self::List { source, .. } => source,
        }
    }
}

/// Reads the children of one OutboxRelay from the API server.
///
/// # Errors
/// When the API server refuses a request or does not answer.
///
/// # Cancel safety
/// Safe to drop: it writes nothing.
pub(crate) async fn observe(
    client: &Client,
    identity: &Identity,
) -> Result<Observed, ObserveError> {
    let relays = ListParams::default().labels(&identity.relay_selector_text());
    let migrations = ListParams::default().labels(&identity.migration_selector_text());
    let (deployment, jobs, replica_sets, pods, migration_pods, config_maps) = tokio::try_join!(
        get_deployment(client, identity),
        list::<Job>(client, identity, "Job", &migrations),
        list::<ReplicaSet>(client, identity, "ReplicaSet", &relays),
        list::<Pod>(client, identity, "Pod", &relays),
        list::<Pod>(client, identity, "Pod", &migrations),
        list_config_maps(client, identity, &relays),
    )?;
    let replica_sets = deployment_state::replica_sets(deployment.as_ref(), replica_sets);
    let mut jobs = job_state::migration_jobs(identity, jobs, &migration_pods);
    explain_missing_pods(client, identity, &mut jobs).await?;
    Ok(Observed {
        reports: Vec::new(),
        deployment: deployment.as_ref().map(RelayDeployment::of),
        pods: pod_state::relay_pods(&replica_sets, pods),
        config_maps,
        used_config_maps: used_config_maps(&replica_sets, &jobs),
        jobs,
    })
}

fn is_ours(object: &impl Resource, identity: &Identity) -> bool {
    ownership(object.meta(), identity) == Ownership::Ours
}

fn used_config_maps(replica_sets: &[ReplicaSet], jobs: &[MigrationJob]) -> BTreeSet<String> {
    let mut used = deployment_state::used_config_maps(replica_sets);
    let unfinished = jobs
        .iter()
        .filter(|job| job.outcome == JobOutcome::Unfinished);
    used.extend(unfinished.filter_map(|job| job.config_map.clone()));
    used
}

/// Reads the Deployment; nothing if the object of this name belongs to somebody else.
async fn get_deployment(
    client: &Client,
    identity: &Identity,
) -> Result<Option<Deployment>, ObserveError> {
    let api = Api::<Deployment>::namespaced(client.clone(), &identity.namespace);
    let found = call_opt(api.get(&identity.relay_name()))
        .await
        .map_err(ObserveError::GetDeployment)?;
    Ok(found.filter(|object| is_ours(object, identity)))
}

async fn list<K>(
    client: &Client,
    identity: &Identity,
    kind: &'static str,
    wanted: &ListParams,
) -> Result<Vec<K>, ObserveError>
where
    K: Resource<Scope = k8s_openapi::NamespaceResourceScope, DynamicType = ()>
        + Clone
        + DeserializeOwned
        + std::fmt::Debug,
{
    let api = Api::<K>::namespaced(client.clone(), &identity.namespace);
    let found: ObjectList<K> = call(api.list(wanted))
        .await
        .map_err(|source| ObserveError::List { kind, source })?;
    Ok(found.items)
}

/// Reads which ConfigMaps exist. Their metadata is enough: the name has the hash of the content.
async fn list_config_maps(
    client: &Client,
    identity: &Identity,
    wanted: &ListParams,
) -> Result<Vec<ObjectKey>, ObserveError> {
    let api = Api::<ConfigMap>::namespaced(client.clone(), &identity.namespace);
    let found = call(api.list_metadata(wanted))
        .await
        .map_err(|source| ObserveError::List {
            kind: "ConfigMap",
            source,
        })?;
    let ours = found.items.iter().filter(|map| is_ours(*map, identity));
    Ok(ours.map(ObjectKey::of).collect())
}

/// Reads why an unfinished Job has no pod: quota, admission or Pod Security may have refused it,
/// and only the Events of the Job have the reason.
async fn explain_missing_pods(
    client: &Client,
    identity: &Identity,
    jobs: &mut [MigrationJob],
) -> Result<(), ObserveError> {
    for job in jobs {
        if job.outcome == JobOutcome::Unfinished && job.pod.is_none() {
            let field = format!("involvedObject.uid={}", job.key.uid);
            let of_this_job = ListParams::default().fields(&field);
            let events = list::<Event>(client, identity, "Event", &of_this_job).await?;
            job.refusal = job_state::refusal(&events);
        }
    }
    Ok(())
}
