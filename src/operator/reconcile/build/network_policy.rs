//! Access to the relays: the operator, for their reports, and the Prometheus server, both on the
//! HTTP port alone. Probes come from the node, which no NetworkPolicy excludes. Pure.

use std::collections::BTreeMap;

use k8s_openapi::{
    api::networking::v1::{
        NetworkPolicy, NetworkPolicyIngressRule, NetworkPolicyPeer, NetworkPolicyPort,
        NetworkPolicySpec,
    },
    apimachinery::pkg::{apis::meta::v1::LabelSelector, util::intstr::IntOrString},
};

use crate::{operator::reconcile::validate::ValidatedRelay, report::HTTP_PORT};

/// Label that the API server sets on each namespace.
const NAMESPACE_NAME: &str = "kubernetes.io/metadata.name";

/// Builds a NetworkPolicy that admits pods of these namespaces.
pub(super) fn build(relay: &ValidatedRelay, allowed_namespaces: &[String]) -> NetworkPolicy {
    let identity = &relay.identity;
    let spec = NetworkPolicySpec {
        pod_selector: Some(identity.relay_selector()),
        policy_types: Some(vec!["Ingress".to_owned()]),
        // A rule with an empty `from` would admit all sources.
        ingress: (!allowed_namespaces.is_empty()).then(|| vec![rule(allowed_namespaces)]),
        egress: None,
    };
    NetworkPolicy {
        metadata: identity.relay_meta(),
        spec: Some(spec),
    }
}

fn rule(allowed_namespaces: &[String]) -> NetworkPolicyIngressRule {
    NetworkPolicyIngressRule {
        from: Some(peers(allowed_namespaces)),
        ports: Some(vec![http_port()]),
    }
}

fn peers(namespaces: &[String]) -> Vec<NetworkPolicyPeer> {
    namespaces.iter().map(|name| namespace(name)).collect()
}

fn http_port() -> NetworkPolicyPort {
    NetworkPolicyPort {
        port: Some(IntOrString::Int(HTTP_PORT.into())),
        protocol: Some("TCP".to_owned()),
        end_port: None,
    }
}

fn namespace(name: &str) -> NetworkPolicyPeer {
    let label = BTreeMap::from([(NAMESPACE_NAME.to_owned(), name.to_owned())]);
    let selector = LabelSelector {
        match_labels: Some(label),
        match_expressions: None,
    };
    NetworkPolicyPeer {
        namespace_selector: Some(selector),
        ..NetworkPolicyPeer::default()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::operator::fixtures::validated;

    fn built(allowed_namespaces: &[&str]) -> serde_json::Value {
        let allowed_namespaces: Vec<String> = allowed_namespaces
            .iter()
            .map(|name| (*name).to_owned())
            .collect();
        serde_json::to_value(build(&validated(), &allowed_namespaces)).expect("JSON")["spec"]
            .clone()
    }

    #[test]
    fn only_allowed_namespaces_reach_the_http_port() {
        let from = |name: &str| {
            let labels = json!({"kubernetes.io/metadata.name": name});
            json!({"namespaceSelector": {"matchLabels": labels}})
        };
        let rule = json!({
            "from": [from("monitoring"), from("outbox-system")],
            "ports": [{"port": 9090, "protocol": "TCP"}],
        });
        let spec = built(&["monitoring", "outbox-system"]);
        assert_eq!(spec["ingress"], json!([rule]));
        assert_eq!(spec["policyTypes"], json!(["Ingress"]));
        assert_eq!(
            spec["podSelector"],
            json!({"matchLabels": {"outboxrelay.dev/relay": "file-service"}})
        );
    }

    #[test]
    fn without_allowed_namespaces_nothing_is_admitted() {
        assert_eq!(built(&[]).get("ingress"), None);
    }
}
