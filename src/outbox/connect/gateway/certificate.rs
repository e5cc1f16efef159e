//! What a certificate says, read from DER: also from certificates of version 1, which rustls does
//! not read. Signatures are not checked here. Pure.

use jiff::{civil::DateTime, tz::TimeZone};

/// Tags of DER.
const INTEGER: u8 = 0x02;
const BIT_STRING: u8 = 0x03;
const OCTET_STRING: u8 = 0x04;
const OBJECT_ID: u8 = 0x06;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;
const SEQUENCE: u8 = 0x30;
const VERSION: u8 = 0xA0;
const EXTENSIONS: u8 = 0xA3;
const BOOLEAN: u8 = 0x01;

/// Identifiers in DER.
const COMMON_NAME: &[u8] = &[0x55, 0x04, 0x03];
const BASIC_CONSTRAINTS: &[u8] = &[0x55, 0x1D, 0x13];
const KEY_USAGE: &[u8] = &[0x55, 0x1D, 0x0F];
const SUBJECT_ALT_NAME: &[u8] = &[0x55, 0x1D, 0x11];

/// Bit of keyUsage that allows to sign certificates.
const KEY_CERT_SIGN: u8 = 0b0000_0100;

/// A certificate that was given by the user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Certificate {
    /// Seconds since 1970 between which it is valid.
    pub(super) not_before: i64,
    pub(super) not_after: i64,
    /// Last common name of the subject.
    pub(super) common_name: Option<String>,
    /// Whether it has a subjectAltName.
    pub(super) has_alt_names: bool,
    /// The public key with its algorithm (SubjectPublicKeyInfo), in DER.
    pub(super) public_key: Vec<u8>,
    is_authority: bool,
    signs_certificates: bool,
}

impl Certificate {
    /// Reads a certificate; `None` if it cannot be read.
    pub(super) fn read(der: &[u8]) -> Option<Self> {
        let (certificate, _) = element(der, SEQUENCE)?;
        let (body, _) = element(certificate, SEQUENCE)?;
        let rest = match element(body, VERSION) {
            Some((_, rest)) => rest,
            None => body,
        };
        let (_, rest) = element(rest, INTEGER)?;
        let (_, rest) = element(rest, SEQUENCE)?;
        let (_, rest) = element(rest, SEQUENCE)?;
        let (validity, rest) = element(rest, SEQUENCE)?;
        let (subject, rest) = element(rest, SEQUENCE)?;
        let (_, after_key) = element(rest, SEQUENCE)?;
        let (not_before, later) = time(validity)?;
        let (not_after, _) = time(later)?;
        let mut read = Self {
            not_before,
            not_after,
            common_name: common_name(subject),
            has_alt_names: false,
            public_key: rest[..rest.len() - after_key.len()].to_vec(),
            is_authority: false,
            signs_certificates: false,
        };
        read.read_extensions(after_key);
        Some(read)
    }

    /// Reads the extensions, which come last, behind optional identifiers.
    fn read_extensions(&mut self, mut rest: &[u8]) {
        while let Some((tag, content, after)) = any_element(rest) {
            if tag == EXTENSIONS
                && let Some((list, _)) = element(content, SEQUENCE)
            {
                self.read_list(list);
            }
            rest = after;
        }
    }

    fn read_list(&mut self, mut list: &[u8]) {
        while let Some((extension, after)) = element(list, SEQUENCE) {
            self.read_extension(extension);
            list = after;
        }
    }

    fn read_extension(&mut self, extension: &[u8]) -> Option<()> {
        let (id, rest) = element(extension, OBJECT_ID)?;
        let rest = element(rest, BOOLEAN).map_or(rest, |(_, rest)| rest);
        let (value, _) = element(rest, OCTET_STRING)?;
        match id {
            BASIC_CONSTRAINTS => self.is_authority = is_authority(value)?,
            KEY_USAGE => self.signs_certificates = signs_certificates(value)?,
            SUBJECT_ALT_NAME => self.has_alt_names = true,
            _ => {}
        }
        Some(())
    }

    /// Whether a server may present this certificate as its own. Only certificates that are clearly
    /// made for an authority are not.
    pub(super) fn may_be_of_server(&self) -> bool {
        !self.is_authority || !self.signs_certificates || self.has_alt_names
    }

    /// Whether the common name is that of the host. A name may begin with `*.`.
    pub(super) fn has_common_name(&self, host: &str) -> bool {
        let Some(name) = &self.common_name else {
            return false;
        };
        match name.strip_prefix("*.") {
            Some(domain) => host
                .split_once('.')
                .is_some_and(|(_, rest)| rest.eq_ignore_ascii_case(domain)),
            None => name.eq_ignore_ascii_case(host),
        }
    }
}

/// Whether basicConstraints are those of an authority.
fn is_authority(value: &[u8]) -> Option<bool> {
    let (constraints, _) = element(value, SEQUENCE)?;
    let (is_authority, _) = element(constraints, BOOLEAN)?;
    Some(is_authority != [0])
}

/// Whether a keyUsage allows to sign certificates.
fn signs_certificates(value: &[u8]) -> Option<bool> {
    let (bits, _) = element(value, BIT_STRING)?;
    Some(bits.get(1)? & KEY_CERT_SIGN != 0)
}

fn common_name(mut subject: &[u8]) -> Option<String> {
    let mut found = None;
    while let Some((_, set, after)) = any_element(subject) {
        if let Some((pair, _)) = element(set, SEQUENCE)
            && let Some((COMMON_NAME, value)) = element(pair, OBJECT_ID)
            && let Some((_, text, _)) = any_element(value)
        {
            found = String::from_utf8(text.to_vec()).ok();
        }
        subject = after;
    }
    found
}

/// Seconds since 1970, and what comes after them.
fn time(input: &[u8]) -> Option<(i64, &[u8])> {
    let (tag, content, rest) = any_element(input)?;
    let text = std::str::from_utf8(content).ok()?;
    let text = match tag {
        // Years up to 49 are of this century.
        UTC_TIME if text.get(..2)? < "50" => format!("20{text}"),
        UTC_TIME => format!("19{text}"),
        GENERALIZED_TIME => text.to_owned(),
        _ => return None,
    };
    let time = DateTime::strptime("%Y%m%d%H%M%SZ", &text).ok()?;
    let time = time.to_zoned(TimeZone::UTC).ok()?;
    Some((time.timestamp().as_second(), rest))
}

/// Content of the first element, and what comes after it; `None` if it has another tag.
fn element(input: &[u8], tag: u8) -> Option<(&[u8], &[u8])> {
    let (found, content, rest) = any_element(input)?;
    (found == tag).then_some((content, rest))
}

/// Tag and content of the first element, and what comes after it.
fn any_element(input: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let [tag, first, rest @ ..] = input else {
        return None;
    };
    let (length, rest) = match first {
        0..=0x7F => (usize::from(*first), rest),
        0x81..=0x84 => {
            let (bytes, rest) = rest.split_at_checked(usize::from(first - 0x80))?;
            let length = bytes
                .iter()
                .fold(0, |length, byte| (length << 8) | usize::from(*byte));
            (length, rest)
        }
        _ => return None,
    };
    let (content, rest) = rest.split_at_checked(length)?;
    Some((*tag, content, rest))
}
