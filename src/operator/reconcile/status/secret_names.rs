//! Paths of secret files in messages -> the Secrets and ConfigMaps that a person has to correct.
//! Pure.
//!
//! A pod knows its files by their paths. Which object is behind a file only the manifest has.

use crate::{
    operator::{
        reason::Reason,
        reconcile::{
            status::{
                ConditionInputs,
                conditions::{ConditionType, Finding},
            },
            validate::ValidatedRelay,
        },
    },
    report::ProblemClass,
    settings::{Projection, SecretFile, SecretSource},
};

/// Beginning of a file's location in a message of a relay or a migration.
const FILE: &str = "ecret file '";
/// Next step of a message about a rejected login.
const CORRECT: &str = "correct the Secret;";

/// Objects that a manifest refers to.
pub(super) struct SecretNames<'a> {
    relay: &'a ValidatedRelay,
    /// The migration failed, so messages may be its own.
    migration_fails: bool,
}

impl<'a> SecretNames<'a> {
    /// Returns the objects of the manifest that conditions are found for.
    pub(super) fn of(inputs: &ConditionInputs<'a>) -> Self {
        Self {
            relay: inputs.relay,
            migration_fails: inputs.plan.migration.is_failing(),
        }
    }

    /// Returns the finding with the names of objects instead of paths of files.
    pub(super) fn inserted(&self, finding: Finding) -> Finding {
        let mut message = finding.message.clone();
        for projection in self.files() {
            message = with_name(&message, projection);
        }
        if finding.reason == Reason::Problem(ProblemClass::AuthenticationFailed)
            && let Some(login) = self.login(finding.type_)
        {
            let named = format!("correct {};", in_words(&login.source));
            message = message.replace(CORRECT, &named);
        }
        Finding::new(finding.type_, finding.state, finding.reason, message)
    }

    fn files(&self) -> impl Iterator<Item = &Projection> {
        let migration = self.relay.migration.iter();
        let of_migration = migration.flat_map(|target| &target.files);
        self.relay.relay_files.iter().chain(of_migration)
    }

    /// Returns what holds the password of the login that a condition reports.
    fn login(&self, condition: ConditionType) -> Option<&Projection> {
        use SecretFile::{DatabasePassword, DatabaseUrl, MigrationPassword, MigrationUrl};
        let find = |wanted: [SecretFile; 2]| {
            let mut files = self.files();
            files.find(|projection| wanted.contains(&projection.file))
        };
        let is_of_relays = matches!(
            condition,
            ConditionType::Publishing | ConditionType::Available
        );
        let own = (self.migration_fails && !is_of_relays)
            .then(|| find([MigrationPassword, MigrationUrl]));
        own.flatten()
            .or_else(|| find([DatabasePassword, DatabaseUrl]))
    }
}

fn with_name(message: &str, projection: &Projection) -> String {
    let path = projection.file.path();
    let name = in_words(&projection.source);
    let capital = name.replacen('k', "K", 1);
    message
        .replace(&format!("s{FILE}{path}'"), &name)
        .replace(&format!("S{FILE}{path}'"), &capital)
}

fn in_words(source: &SecretSource) -> String {
    match source {
        SecretSource::Secret { name, key } => format!("key '{key}' of Secret '{name}'"),
        SecretSource::ConfigMap { name, key } => format!("key '{key}' of ConfigMap '{name}'"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        api::DatabaseConnection,
        operator::{fixtures::validated_with, reconcile::status::conditions::State::False},
    };

    fn relay() -> ValidatedRelay {
        validated_with(|relay| {
            relay.spec.migration.database = Some(DatabaseConnection {
                credentials_secret_ref: serde_json::from_str(
                    r#"{"name": "owner", "passwordKey": "pw"}"#,
                )
                .ok(),
                ..relay.spec.database.connection()
            });
        })
    }

    fn message(
        type_: ConditionType,
        class: ProblemClass,
        migration_fails: bool,
        text: &str,
    ) -> String {
        let relay = relay();
        let names = SecretNames {
            relay: &relay,
            migration_fails,
        };
        let finding = Finding::new(type_, False, Reason::Problem(class), text);
        names.inserted(finding).message
    }

    #[test]
    fn a_file_is_named_by_its_object_and_key() {
        for (text, named) in [
            (
                "Secret file 'database/username' is missing: create it.",
                "Key 'username' of Secret 'file-service-db-app' is missing: create it.",
            ),
            (
                "Pod 'p': the URL in secret file 'migration/password' x.",
                "Pod 'p': the URL in key 'pw' of Secret 'owner' x.",
            ),
            (
                "Secret file 'kafka/nothing' is missing.",
                "Secret file 'kafka/nothing' is missing.",
            ),
        ] {
            let class = ProblemClass::SecretMissing;
            assert_eq!(message(ConditionType::Ready, class, true, text), named);
        }
    }

    #[test]
    fn a_rejected_login_names_the_password_of_who_reports_it() {
        let class = ProblemClass::AuthenticationFailed;
        for (type_, migration_fails, secret) in [
            (
                ConditionType::SchemaReady,
                true,
                "key 'pw' of Secret 'owner'",
            ),
            (
                ConditionType::SecretsResolved,
                false,
                "key 'password' of Secret 'file-service-db-app'",
            ),
            (
                ConditionType::Publishing,
                true,
                "key 'password' of Secret 'file-service-db-app'",
            ),
        ] {
            let text = "rejected: correct the Secret; it is used.";
            assert_eq!(
                message(type_, class, migration_fails, text),
                format!("rejected: correct {secret}; it is used.")
            );
        }
    }
}
