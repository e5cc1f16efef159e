//! References from a manifest to Secrets and ConfigMaps in its own namespace, never in another; and
//! the TLS settings of both PostgreSQL and Kafka.

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// One key of a Secret in the namespace of the OutboxRelay.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct SecretKey {
    /// Name of the Secret.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
    /// Key inside the Secret.
    #[schemars(length(min = 1, max = 253))]
    pub key: String,
}

/// One key of a ConfigMap in the namespace of the OutboxRelay.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct ConfigMapKey {
    /// Name of the ConfigMap.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
    /// Key inside the ConfigMap.
    #[schemars(length(min = 1, max = 253))]
    pub key: String,
}

/// User name and password from one Secret.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct UserCredentials {
    /// Name of the Secret.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
    /// Key of the user name. Default: username.
    #[serde(default = "username_key")]
    #[schemars(length(min = 1, max = 253))]
    pub username_key: String,
    /// Key of the password. Default: password.
    #[serde(default = "password_key")]
    #[schemars(length(min = 1, max = 253))]
    pub password_key: String,
}

/// Default of `usernameKey`.
pub(super) fn username_key() -> String {
    "username".to_owned()
}

/// Default of `passwordKey`.
pub(super) fn password_key() -> String {
    "password".to_owned()
}

/// How the server's certificate is verified.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum TlsMode {
    /// Encrypted; the certificate chain and the host name are verified.
    #[default]
    #[serde(rename = "verify-full")]
    VerifyFull,
    /// Encrypted; only the certificate chain is verified, any host name is accepted.
    #[serde(rename = "verify-ca")]
    VerifyCa,
    /// Encrypted, but nothing is verified: any server at the address gets passwords and
    /// payloads. The operator reports it in a Warning.
    #[serde(rename = "require")]
    Require,
    /// Plaintext: passwords and payloads can be read on the network. The operator reports it in a
    /// Warning.
    #[serde(rename = "disable")]
    Disable,
}

/// Source of CA certificates in PEM form. Set exactly one of the two.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = (
    "has(self.secretRef) != has(self.configMapRef)",
    "set exactly one of secretRef and configMapRef"
))]
pub struct CertificateSource {
    /// Key of a Secret that contains the PEM bundle.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret_ref: Option<SecretKey>,
    /// Key of a ConfigMap that contains the PEM bundle.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config_map_ref: Option<ConfigMapKey>,
}

/// A client certificate and its key from one Secret, for mutual TLS.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct ClientCertificate {
    /// Name of the Secret.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
    /// Key of the certificate chain in PEM form. Default: tls.crt.
    #[serde(default = "certificate_key")]
    #[schemars(length(min = 1, max = 253))]
    pub cert_key: String,
    /// Key of the private key in PEM form. Default: tls.key.
    #[serde(default = "private_key_key")]
    #[schemars(length(min = 1, max = 253))]
    pub key_key: String,
}

fn certificate_key() -> String {
    "tls.crt".to_owned()
}

fn private_key_key() -> String {
    "tls.key".to_owned()
}

/// TLS to a server. If absent, `mode` is verify-full with the system's root certificates.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = (
    "self.mode != 'disable' || (!has(self.ca) && !has(self.clientCertSecretRef))",
    "mode disable leaves no use for ca and clientCertSecretRef: remove them or set mode verify-full"
))]
#[x_kube(validation = (
    "self.mode != 'require' || !has(self.ca)",
    "mode require leaves no use for ca: remove it or set mode verify-full"
))]
pub struct Tls {
    /// How the server's certificate is verified; overrides `sslmode` of a URL. verify-full: chain
    /// and host name. verify-ca: the chain only. require: encrypted, but nothing is verified.
    /// disable: no TLS; passwords and payloads can be read on the network. Default: verify-full.
    #[serde(default)]
    pub mode: TlsMode,
    /// CA that signed the server's certificate. If absent, the system's root certificates in the
    /// relay's image apply.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca: Option<CertificateSource>,
    /// Client certificate for mutual TLS.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_cert_secret_ref: Option<ClientCertificate>,
}
