//! Certificates and keys among the secrets: PEM, and pairs that belong together, before a client is
//! made of them. Pure but for reading.

use rustls::{
    InconsistentKeys,
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    sign::CertifiedKey,
};
use secrecy::{ExposeSecret, SecretString};

use crate::{
    secrets::{SecretError, Secrets},
    settings::{SecretFile, TlsFiles},
};

impl Secrets {
    /// Certificates of authorities, PEM.
    ///
    /// # Errors
    /// When there is none, or the file cannot be used.
    pub(crate) fn ca_certificates(&self, file: SecretFile) -> Result<SecretString, SecretError> {
        let pem = self.get(file)?;
        self.parsed_certificates(file, &pem)?;
        Ok(pem)
    }

    /// Certificate and key of a client, PEM; they belong to each other.
    ///
    /// # Errors
    /// When one is missing or cannot be used, or they are no pair.
    pub(crate) fn client_certificate(
        &self,
        files: &TlsFiles,
    ) -> Result<(SecretString, SecretString), SecretError> {
        let (certificate, key) = (self.get(files.certificate)?, self.get(files.key)?);
        let chain = self.parsed_certificates(files.certificate, &certificate)?;
        let parsed = PrivateKeyDer::from_pem_slice(key.expose_secret().as_bytes());
        let parsed = parsed.map_err(|_| self.not_pem(files.key, "private key"))?;
        // Only a certain no counts: the servers may know kinds of keys that this check does not.
        match CertifiedKey::from_der(chain, parsed, &ring::default_provider()) {
            Err(rustls::Error::InconsistentKeys(InconsistentKeys::KeyMismatch)) => {
                Err(SecretError::KeyMismatch {
                    file: files.certificate,
                    location: self.location(files.certificate),
                })
            }
            _ => Ok((certificate, key)),
        }
    }

    fn parsed_certificates(
        &self,
        file: SecretFile,
        pem: &SecretString,
    ) -> Result<Vec<CertificateDer<'static>>, SecretError> {
        let all: Result<Vec<_>, _> =
            CertificateDer::pem_slice_iter(pem.expose_secret().as_bytes()).collect();
        all.ok()
            .filter(|all| !all.is_empty())
            .ok_or_else(|| self.not_pem(file, "certificate"))
    }

    fn not_pem(&self, file: SecretFile, what: &'static str) -> SecretError {
        SecretError::Pem {
            file,
            location: self.location(file),
            what,
        }
    }
}
