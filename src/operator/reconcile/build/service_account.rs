//! The relays' own ServiceAccount: it has no right and no token, and keeps them from running as
//! `default`, which may have some.

use k8s_openapi::api::core::v1::ServiceAccount;

use crate::operator::reconcile::validate::ValidatedRelay;

/// Builds the ServiceAccount.
pub(super) fn build(relay: &ValidatedRelay) -> ServiceAccount {
    let identity = &relay.identity;
    ServiceAccount {
        metadata: identity.child_meta(identity.relay_name(), identity.relay_labels()),
        automount_service_account_token: Some(false),
        ..ServiceAccount::default()
    }
}
