//! The settings of relays and migration. The ConfigMap is immutable and named by the hash of its
//! content: a pod that restarts gets the settings that it was created with.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::ConfigMap;

use crate::operator::reconcile::validate::ValidatedRelay;

/// Key of the only file.
pub(super) const SETTINGS: &str = "settings.yaml";

/// Builds the ConfigMap.
pub(super) fn build(relay: &ValidatedRelay) -> ConfigMap {
    let identity = &relay.identity;
    ConfigMap {
        metadata: identity.child_meta(relay.config_map.clone(), identity.relay_labels()),
        data: Some(BTreeMap::from([(
            SETTINGS.to_owned(),
            relay.settings.clone(),
        )])),
        immutable: Some(true),
        binary_data: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{operator::fixtures::validated, settings::RelaySettings};

    #[test]
    fn the_relay_can_read_what_the_operator_writes() {
        let data = build(&validated()).data.expect("one file");
        let settings: RelaySettings = serde_yaml::from_str(&data[SETTINGS]).expect("settings");
        assert_eq!(settings.owner.to_string(), "cluster/essays/file-service");
        assert!(
            !data[SETTINGS].contains("file-service-db-app"),
            "names of Secrets are not the relay's business"
        );
    }
}
