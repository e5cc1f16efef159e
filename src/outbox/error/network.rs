//! Errors of sockets and of TLS -> a class and words. Pure.

use std::{error::Error, io};

use rustls::{AlertDescription, CertificateError};

use crate::{
    outbox::error::DatabaseError,
    report::ProblemClass::{TlsFailed, Unreachable},
};

/// Describes an IO error, or the failed TLS handshake inside it.
pub(super) fn by_io(error: &io::Error) -> DatabaseError {
    match error.get_ref().and_then(|inner| inner.downcast_ref()) {
        Some(handshake) => by_tls(handshake),
        None => DatabaseError::new(Unreachable, io_words(error)),
    }
}

fn io_words(error: &io::Error) -> &'static str {
    use io::ErrorKind::{
        BrokenPipe, ConnectionAborted, ConnectionRefused, ConnectionReset, HostUnreachable,
        NetworkUnreachable, TimedOut, UnexpectedEof,
    };
    match error.kind() {
        ConnectionRefused => {
            "nothing listens at this address: check host and port, and that the server runs"
        }
        TimedOut => {
            "no answer in time: check host and port, and that the network allows the connection"
        }
        ConnectionReset | ConnectionAborted | UnexpectedEof | BrokenPipe => {
            "the connection was closed by the other side: check that the server runs, and what is \
             between"
        }
        HostUnreachable | NetworkUnreachable => {
            "there is no route to this host: check the host, and that the network allows the \
             connection"
        }
        // Errors of the resolver have no kind of their own.
        _ if error.to_string().starts_with("failed to lookup address") => {
            "the host name cannot be resolved: check it"
        }
        _ => {
            "the connection failed: check host and port, and that the network allows the connection"
        }
    }
}

/// Describes an error from before the TLS handshake. Some of them have no type of their own.
pub(super) fn by_tls_setup(source: &(dyn Error + 'static)) -> DatabaseError {
    match source.downcast_ref::<rustls::Error>() {
        Some(error) => by_tls(error),
        None => DatabaseError::new(TlsFailed, setup_words(source)),
    }
}

fn setup_words(error: &dyn Error) -> &'static str {
    let text = error.to_string();
    if text == "server does not support TLS" {
        "the server does not offer TLS: enable it there, or set tls.mode to disable"
    } else if text.contains("dns name") {
        "the host is not a name that a certificate can have: correct the host"
    } else {
        "TLS could not be set up: check tls.ca and tls.clientCertSecretRef"
    }
}

/// Describes a failed TLS handshake.
pub(super) fn by_tls(error: &rustls::Error) -> DatabaseError {
    let words = match error {
        rustls::Error::InvalidCertificate(error) => certificate_words(error),
        rustls::Error::AlertReceived(alert) => alert_words(*alert),
        rustls::Error::InconsistentKeys(_) => {
            "the client certificate and its key do not match: correct the Secret of \
             tls.clientCertSecretRef"
        }
        rustls::Error::PeerIncompatible(_) => {
            "the server has no TLS version or cipher in common with the relay: let it offer TLS \
             1.2 or newer"
        }
        _ => "the TLS handshake failed: check that the server speaks TLS, and tls.ca",
    };
    DatabaseError::new(TlsFailed, words)
}

/// What is wrong with the server's certificate.
fn certificate_words(error: &CertificateError) -> &'static str {
    use CertificateError as Bad;
    match error {
        Bad::NotValidForNameContext { presented, .. } if presented.is_empty() => {
            "the server's certificate has no subjectAltName, which verify-full needs: issue it \
             with one (subjectAltName=DNS:<host>), or set tls.mode to verify-ca"
        }
        Bad::NotValidForName | Bad::NotValidForNameContext { .. } => {
            "the server's certificate is for another host name: correct the host, or set tls.mode \
             to verify-ca"
        }
        Bad::UnknownIssuer => {
            "the server's certificate is signed by an unknown authority: set tls.ca to the \
             certificate of that authority"
        }
        Bad::Expired | Bad::ExpiredContext { .. } => {
            "the server's certificate has expired: renew it"
        }
        Bad::NotValidYet | Bad::NotValidYetContext { .. } => {
            "the server's certificate is not valid yet: check the clocks of this node and of the \
             server"
        }
        Bad::InvalidPurpose | Bad::InvalidPurposeContext { .. } => {
            "the server's certificate is not meant for servers: issue it with \
             extendedKeyUsage=serverAuth"
        }
        Bad::BadSignature => {
            "the signature of the server's certificate is wrong: an authority of the same name, \
             but another key, signed it; set tls.ca to the present one"
        }
        Bad::UnsupportedSignatureAlgorithmContext { .. }
        | Bad::UnsupportedSignatureAlgorithmForPublicKeyContext { .. } => {
            "the server's certificate has a signature that is too weak or unknown: issue it with \
             SHA-256 and a key of RSA (2048 bits or more) or EC"
        }
        Bad::Other(other) => other_certificate_words(&other.to_string()),
        _ => {
            "the server's certificate was rejected: check it, and that tls.ca is the right \
             authority"
        }
    }
}

/// Errors of certificates that rustls has no names of its own for.
fn other_certificate_words(name: &str) -> &'static str {
    if name.contains("UnsupportedCertVersion") {
        "the server's certificate is X.509 version 1: issue it with a subjectAltName (openssl x509 \
         -req -extfile), which makes it version 3, or set tls.ca to this certificate itself"
    } else if name.contains("CaUsedAsEndEntity") {
        "the server presents the certificate of an authority (CA:TRUE) as its own: set tls.ca to \
         exactly this certificate, or issue one with basicConstraints=CA:FALSE"
    } else {
        "the server's certificate was rejected: check its extensions, and that tls.ca is the right \
         authority"
    }
}

/// Why the server ended the handshake.
fn alert_words(alert: AlertDescription) -> &'static str {
    match alert {
        AlertDescription::CertificateRequired => {
            "the server requires a client certificate: set tls.clientCertSecretRef"
        }
        AlertDescription::UnknownCA => {
            "the server does not trust the authority of the client certificate: correct \
             tls.clientCertSecretRef, or the server's ssl_ca_file"
        }
        AlertDescription::CertificateExpired => "the client certificate has expired: renew it",
        AlertDescription::ProtocolVersion => {
            "the server has no TLS version in common with the relay: let it offer TLS 1.2 or newer"
        }
        _ => {
            "the server ended the TLS handshake: check tls.clientCertSecretRef, and what the \
             server requires"
        }
    }
}
