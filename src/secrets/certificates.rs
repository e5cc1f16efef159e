//! Checks certificates and private keys before a client is created with them: they must be PEM, and
//! must match each other. Pure but for reading files.

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
    /// CA certificates in PEM form, as they are in the file.
    ///
    /// # Errors
    /// If the file cannot be used, or holds no certificate.
    pub(crate) fn ca_certificates(&self, file: SecretFile) -> Result<SecretString, SecretError> {
        let pem = self.get(file)?;
        self.parsed_certificates(file, &pem)?;
        Ok(pem)
    }

    /// Client certificate and its private key, in PEM form.
    ///
    /// # Errors
    /// If one is missing or cannot be used, or if they do not match.
    pub(crate) fn client_certificate(
        &self,
        files: &TlsFiles,
    ) -> Result<(SecretString, SecretString), SecretError> {
        let (certificate, key) = (self.get(files.certificate)?, self.get(files.key)?);
        let chain = self.parsed_certificates(files.certificate, &certificate)?;
        let private_key = PrivateKeyDer::from_pem_slice(key.expose_secret().as_bytes())
            .map_err(|_| self.not_pem(files.key, "private key"))?;
        if is_mismatch(chain, private_key) {
            return Err(SecretError::KeyMismatch {
                file: files.certificate,
                location: self.location(files.certificate),
            });
        }
        Ok((certificate, key))
    }

    fn parsed_certificates(
        &self,
        file: SecretFile,
        pem: &SecretString,
    ) -> Result<Vec<CertificateDer<'static>>, SecretError> {
        let certificates: Result<Vec<_>, _> =
            CertificateDer::pem_slice_iter(pem.expose_secret().as_bytes()).collect();
        match certificates {
            Ok(certificates) if !certificates.is_empty() => Ok(certificates),
            _ => Err(self.not_pem(file, "certificate")),
        }
    }

    fn not_pem(&self, file: SecretFile, what: &'static str) -> SecretError {
        SecretError::Pem {
            file,
            location: self.location(file),
            what,
        }
    }
}

/// Only a certain mismatch is an error: servers may support kinds of keys that rustls does not.
fn is_mismatch(chain: Vec<CertificateDer<'static>>, key: PrivateKeyDer<'static>) -> bool {
    let checked = CertifiedKey::from_der(chain, key, &ring::default_provider());
    matches!(
        checked,
        Err(rustls::Error::InconsistentKeys(
            InconsistentKeys::KeyMismatch
        ))
    )
}
