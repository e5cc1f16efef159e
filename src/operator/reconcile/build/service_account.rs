//! The relays' own ServiceAccount: it has no right and no token, and keeps them from running as
//! `default`, which may have some.

use k8s_openapi::api::core::v1::ServiceAccount;

use crate::operator::reconcile::validate::ValidatedRelay;

/// Builds the ServiceAccount.
pub(super) fn build(relay: &ValidatedRelay) -> ServiceAccount {
    ServiceAccount {
        metadata: relay.identity.relay_meta(),
        automount_service_account_token: Some(false),
        ..ServiceAccount::default()
    }
}
