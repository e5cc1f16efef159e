//! The client's side of SCRAM-SHA-256 (RFC 5802) with the bytes of the password as they are, as
//! libpq uses them when SASLprep refuses a password. Without channel binding. Pure.

use std::num::NonZeroU32;

use base64::prelude::{BASE64_STANDARD, Engine};
use ring::{digest, hmac, pbkdf2};

const MECHANISM: &[u8] = b"SCRAM-SHA-256";
/// `n,,` in base64: no channel binding.
const BINDING: &str = "biws";
/// Most iterations that are computed; PostgreSQL's default is 4,096.
const ITERATIONS_MAX: u32 = 10_000_000;

/// Whether a server offers the mechanism in its list, whose items end in NUL.
pub(super) fn is_offered(mechanisms: &[u8]) -> bool {
    mechanisms
        .split(|byte| *byte == 0)
        .any(|name| name == MECHANISM)
}

/// The client's first message with its mechanism. The user is known from the start of the session.
pub(super) fn initial_response(nonce: &str) -> Vec<u8> {
    let message = format!("n,,{}", first_bare(nonce));
    let length = u32::try_from(message.len()).unwrap_or(u32::MAX);
    [MECHANISM, b"\0", &length.to_be_bytes(), message.as_bytes()].concat()
}

fn first_bare(nonce: &str) -> String {
    format!("n=,r={nonce}")
}

/// Proof that the client knows the password, and what the server must prove.
pub(super) struct Proof {
    response: String,
    server_signature: Vec<u8>,
}

impl Proof {
    /// Answers the server's first message; `None` if it is none, or not for this nonce.
    pub(super) fn new(password: &[u8], nonce: &str, server_first: &[u8]) -> Option<Self> {
        let server_first = std::str::from_utf8(server_first).ok()?;
        let server_nonce = attribute(server_first, "r=").filter(|full| full.starts_with(nonce))?;
        let salt = BASE64_STANDARD
            .decode(attribute(server_first, "s=")?)
            .ok()?;
        let iterations: NonZeroU32 = attribute(server_first, "i=")?.parse().ok()?;
        if iterations.get() > ITERATIONS_MAX {
            return None;
        }
        let mut salted = [0; digest::SHA256_OUTPUT_LEN];
        pbkdf2::derive(
            pbkdf2::PBKDF2_HMAC_SHA256,
            iterations,
            &salt,
            password,
            &mut salted,
        );
        let without_proof = format!("c={BINDING},r={server_nonce}");
        let messages = format!("{},{server_first},{without_proof}", first_bare(nonce));
        let client_key = sign(&salted, b"Client Key");
        let stored_key = digest::digest(&digest::SHA256, client_key.as_ref());
        let signature = sign(stored_key.as_ref(), messages.as_bytes());
        let proof: Vec<u8> = std::iter::zip(client_key.as_ref(), signature.as_ref())
            .map(|(key, signed)| key ^ signed)
            .collect();
        let server_key = sign(&salted, b"Server Key");
        Some(Self {
            response: format!("{without_proof},p={}", BASE64_STANDARD.encode(proof)),
            server_signature: sign(server_key.as_ref(), messages.as_bytes())
                .as_ref()
                .to_vec(),
        })
    }

    /// The client's last message.
    pub(super) fn response(&self) -> &str {
        &self.response
    }

    /// Whether the server's last message shows that it knows the password, too.
    pub(super) fn is_of_server(&self, server_last: &[u8]) -> bool {
        let signature = std::str::from_utf8(server_last)
            .ok()
            .and_then(|message| attribute(message, "v="))
            .and_then(|signature| BASE64_STANDARD.decode(signature).ok());
        signature.is_some_and(|signature| signature == self.server_signature)
    }
}

/// Value of an attribute of a message.
fn attribute<'a>(message: &'a str, name: &str) -> Option<&'a str> {
    message.split(',').find_map(|part| part.strip_prefix(name))
}

fn sign(key: &[u8], data: &[u8]) -> hmac::Tag {
    hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), data)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_proof_is_the_one_of_openssl_with_raw_bytes_and_the_server_must_prove_itself() {
        let first = format!("r=abcdef,s={},i=4096", BASE64_STANDARD.encode("salt"));
        let proof = Proof::new("p\u{1F600}".as_bytes(), "abc", first.as_bytes()).expect("a proof");
        assert!(
            proof.response().starts_with("c=biws,r=abcdef,p="),
            "{}",
            proof.response()
        );
        let signature = BASE64_STANDARD.encode(&proof.server_signature);
        assert!(proof.is_of_server(format!("v={signature}").as_bytes()));
        assert!(!proof.is_of_server(b"v=AAAA"));
        assert!(!proof.is_of_server(b"e=other-error"));
        let other = Proof::new(b"other", "abc", first.as_bytes()).expect("a proof");
        assert_ne!(other.response(), proof.response());
    }

    #[test]
    fn a_message_that_is_not_the_servers_answer_is_refused() {
        for first in [
            "",
            "r=other,s=c2FsdA==,i=4096",
            "r=abcd,s=c2FsdA==",
            "r=abcd,s=c2FsdA==,i=0",
            "r=abcd,s=c2FsdA==,i=99999999",
            "r=abcd,s=!,i=4096",
        ] {
            assert!(
                Proof::new(b"p", "abc", first.as_bytes()).is_none(),
                "{first}"
            );
        }
    }

    #[test]
    fn the_mechanism_is_found_in_the_list() {
        assert!(is_offered(b"SCRAM-SHA-256-PLUS\0SCRAM-SHA-256\0\0"));
        assert!(!is_offered(b"SCRAM-SHA-256-PLUS\0\0"));
    }
}
