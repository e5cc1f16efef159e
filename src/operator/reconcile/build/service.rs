//! A headless Service: DNS names for the relay pods, and a target to scrape metrics from.

use k8s_openapi::{
    api::core::v1::{Service, ServicePort, ServiceSpec},
    apimachinery::pkg::util::intstr::IntOrString,
};

use crate::{
    operator::reconcile::{build::pod::HTTP, validate::ValidatedRelay},
    report::HTTP_PORT,
};

/// Builds the Service.
pub(super) fn build(relay: &ValidatedRelay) -> Service {
    let identity = &relay.identity;
    let spec = ServiceSpec {
        cluster_ip: Some("None".to_owned()),
        selector: identity.relay_selector().match_labels,
        ports: Some(vec![http_port()]),
        // Metrics of a relay that is not ready are the most useful ones.
        publish_not_ready_addresses: Some(true),
        ..ServiceSpec::default()
    };
    Service {
        metadata: identity.relay_meta(),
        spec: Some(spec),
        status: None,
    }
}

fn http_port() -> ServicePort {
    ServicePort {
        name: Some(HTTP.to_owned()),
        port: HTTP_PORT.into(),
        target_port: Some(IntOrString::String(HTTP.to_owned())),
        ..ServicePort::default()
    }
}
