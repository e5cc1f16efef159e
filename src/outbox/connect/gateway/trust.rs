//! Which certificate of a server is trusted: one that is equal to a given one, or one whose chain
//! ends at a given authority or one of the system. Pure but for reading the system's authorities.

use std::sync::Arc;

use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme,
    client::{
        WebPkiServerVerifier,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
        verify_server_name,
    },
    crypto::{
        CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature,
        verify_tls13_signature_with_raw_key,
    },
    pki_types::{
        CertificateDer, PrivateKeyDer, ServerName, SubjectPublicKeyInfoDer, UnixTime,
        pem::PemObject,
    },
    server::ParsedCertificate,
};

use crate::{outbox::connect::gateway::certificate::Certificate, settings::TlsMode};

/// Certificates and key for one server, in PEM form.
pub(crate) struct TlsMaterial<'a> {
    pub(crate) mode: TlsMode,
    pub(crate) ca: &'a str,
    /// Client certificate and its key.
    pub(crate) client: Option<(&'a str, &'a str)>,
}

/// Whether a PEM text has a certificate that may be a server's own.
pub(crate) fn may_hold_server_certificate(pem: &str) -> bool {
    certificates(pem).iter().any(|der| {
        let certificate = Certificate::read(der);
        certificate.is_some_and(|certificate| certificate.may_be_of_server())
    })
}

/// TLS of a client that trusts `material`.
///
/// # Errors
/// If the client certificate and its key cannot be used.
pub(crate) fn client_config(material: &TlsMaterial<'_>) -> Result<ClientConfig, Error> {
    let provider = Arc::new(ring::default_provider());
    let trust = Trust::new(material, Arc::clone(&provider));
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(trust));
    match material.client {
        None => Ok(config.with_no_client_auth()),
        Some((certificate, key)) => {
            let key = PrivateKeyDer::from_pem_slice(key.as_bytes())
                .map_err(|_| Error::General("no key".to_owned()))?;
            config.with_client_auth_cert(certificates(certificate), key)
        }
    }
}

fn certificates(pem: &str) -> Vec<CertificateDer<'static>> {
    CertificateDer::pem_slice_iter(pem.as_bytes())
        .filter_map(Result::ok)
        .collect()
}

#[derive(Debug)]
struct Trust {
    mode: TlsMode,
    given: Vec<(CertificateDer<'static>, Certificate)>,
    /// Checks chains; `None` without any authority.
    chains: Option<Arc<WebPkiServerVerifier>>,
    provider: Arc<CryptoProvider>,
}

impl Trust {
    fn new(material: &TlsMaterial<'_>, provider: Arc<CryptoProvider>) -> Self {
        let given = certificates(material.ca);
        let chains = chains_to(&given, &provider);
        let read = |der: CertificateDer<'static>| Certificate::read(&der).map(|read| (der, read));
        Self {
            mode: material.mode,
            given: given.into_iter().filter_map(read).collect(),
            chains,
            provider,
        }
    }

    /// The given certificate that is equal to this one.
    fn equal(&self, presented: &CertificateDer<'_>) -> Option<&Certificate> {
        let mut given = self.given.iter();
        given
            .find(|(der, _)| der == presented)
            .map(|(_, certificate)| certificate)
    }
}

/// Checks chains that end at a given authority or one of the system; `None` without any.
fn chains_to(
    given: &[CertificateDer<'static>],
    provider: &Arc<CryptoProvider>,
) -> Option<Arc<WebPkiServerVerifier>> {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    roots.add_parsable_certificates(given.to_vec());
    WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(provider))
        .build()
        .ok()
}

/// Checks dates and name of a certificate that is trusted.
fn check_own(
    mode: TlsMode,
    certificate: &Certificate,
    presented: &CertificateDer<'_>,
    name: &ServerName<'_>,
    now: UnixTime,
) -> Result<(), CertificateError> {
    let now = i64::try_from(now.as_secs()).unwrap_or(i64::MAX);
    if now < certificate.not_before {
        return Err(CertificateError::NotValidYet);
    }
    if now > certificate.not_after {
        return Err(CertificateError::Expired);
    }
    match mode {
        TlsMode::VerifyFull if !has_name(certificate, presented, name) => {
            Err(CertificateError::NotValidForName)
        }
        _ => Ok(()),
    }
}

/// Whether the certificate is for the host. As for libpq, the common name counts if there is no
/// subjectAltName.
fn has_name(
    certificate: &Certificate,
    presented: &CertificateDer<'_>,
    name: &ServerName<'_>,
) -> bool {
    if certificate.has_alt_names {
        return ParsedCertificate::try_from(presented)
            .is_ok_and(|parsed| verify_server_name(&parsed, name).is_ok());
    }
    certificate.has_common_name(&name.to_str())
}

impl ServerCertVerifier for Trust {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        if self.mode == TlsMode::Require {
            return Ok(ServerCertVerified::assertion());
        }
        if let Some(own) = self.equal(end_entity) {
            check_own(self.mode, own, end_entity, name, now)?;
            return Ok(ServerCertVerified::assertion());
        }
        let chains = self
            .chains
            .as_ref()
            .ok_or(CertificateError::UnknownIssuer)?;
        match chains.verify_server_cert(end_entity, intermediates, name, ocsp, now) {
            Err(Error::InvalidCertificate(
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
            )) if self.mode == TlsMode::VerifyCa => Ok(ServerCertVerified::assertion()),
            verified => verified,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signed, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        let is_trusted = self.mode == TlsMode::Require || self.equal(certificate).is_some();
        // rustls does not read a certificate of version 1, but its key.
        match Certificate::read(certificate).filter(|_| is_trusted) {
            Some(Certificate { public_key, .. }) => {
                let key = SubjectPublicKeyInfoDer::from(public_key);
                verify_tls13_signature_with_raw_key(message, &key, signed, algorithms)
            }
            None => verify_tls13_signature(message, certificate, signed, algorithms),
        }
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider
            .signature_verification_algorithms
            .supported_schemes()
    }
}
