//! Host and port of a server: one type for manifests, settings files and database URLs. Pure.

use std::{fmt, net::Ipv6Addr, str::FromStr};

/// Pattern of a host in the CRD. [`Host`] accepts nothing else, and checks IPv6 addresses as well.
pub(crate) const HOST_PATTERN: &str = r"^(\[[0-9A-Fa-f:.]{2,45}\]|[0-9A-Fa-f]{0,4}:[0-9A-Fa-f:.]{1,44}|/[^,\s]*|[A-Za-z0-9_][A-Za-z0-9._-]*)$";
/// Pattern of `host:port` in the CRD. [`HostPort`] accepts nothing else, and checks IPv6 addresses
/// as well.
pub(crate) const HOST_PORT_PATTERN: &str = r"^(\[[0-9A-Fa-f:.]{2,45}\]|[A-Za-z0-9_][A-Za-z0-9._-]*):([1-9][0-9]{0,3}|[1-5][0-9]{4}|6[0-4][0-9]{3}|65[0-4][0-9]{2}|655[0-2][0-9]|6553[0-5])$";
/// Longest host name in bytes.
const HOST_BYTES_MAX: usize = 253;

/// Host name or IP address of a server, or the folder of a Unix socket. An IPv6 address is read
/// with or without brackets, and kept without.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Host(String);

/// Host and TCP port of a server, written `host:port`, with an IPv6 address as `[address]:port`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostPort {
    host: Host,
    port: u16,
}

/// Why a text is not a [`Host`] or a [`HostPort`]. The text continues "the host ...".
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidAddress {
    /// The text is empty.
    #[error("is empty: write the host name or IP address")]
    Empty,
    /// The text has several addresses, separated by commas.
    #[error("contains a comma: write one address in each entry")]
    Several,
    /// The text is longer than [`HOST_BYTES_MAX`].
    #[error("is longer than 253 characters: write a host name")]
    TooLong,
    /// The brackets hold no IPv6 address.
    #[error("is not an IPv6 address in brackets, such as [::1]")]
    Brackets,
    /// The text has a colon, and is no IPv6 address.
    #[error("contains a colon, but is no IPv6 address: write the port separately")]
    Colon,
    /// The text has a character that no host name has.
    #[error(
        "is not a host name: write a name of a-z, 0-9, -, . and _ or an IP address, and no URL"
    )]
    NotHostName,
    /// The port is missing.
    #[error("has no port: write host:port, and an IPv6 address in brackets")]
    NoPort,
    /// The port is no number from 1 to 65535.
    #[error("has a port that is not a number from 1 to 65535")]
    Port,
}

impl Host {
    /// Host without brackets.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Host {
    type Err = InvalidAddress;

    fn from_str(text: &str) -> Result<Self, InvalidAddress> {
        match text {
            "" => Err(InvalidAddress::Empty),
            _ if text.contains(',') => Err(InvalidAddress::Several),
            _ if text.len() > HOST_BYTES_MAX => Err(InvalidAddress::TooLong),
            _ if text.starts_with('[') => in_brackets(text),
            _ if text.starts_with('/') => socket_folder(text),
            _ if text.contains(':') => ipv6(text).ok_or(InvalidAddress::Colon),
            _ => host_name(text),
        }
    }
}

fn in_brackets(text: &str) -> Result<Host, InvalidAddress> {
    let inner = text.strip_prefix('[').and_then(|t| t.strip_suffix(']'));
    inner.and_then(ipv6).ok_or(InvalidAddress::Brackets)
}

fn ipv6(text: &str) -> Option<Host> {
    text.parse::<Ipv6Addr>().ok()?;
    Some(Host(text.to_owned()))
}

fn socket_folder(text: &str) -> Result<Host, InvalidAddress> {
    if text.contains(|c: char| c.is_whitespace() || c.is_control()) {
        return Err(InvalidAddress::NotHostName);
    }
    Ok(Host(text.to_owned()))
}

fn host_name(text: &str) -> Result<Host, InvalidAddress> {
    let is_name = text.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '_')
        && text
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_'));
    if is_name {
        Ok(Host(text.to_owned()))
    } else {
        Err(InvalidAddress::NotHostName)
    }
}

impl HostPort {
    /// Address of a host. An IPv6 address is in brackets when it is displayed.
    #[must_use]
    pub fn new(host: Host, port: u16) -> Self {
        Self { host, port }
    }
}

/// Reads a TCP port, 1 to 65535.
///
/// # Errors
/// If it is anything else.
pub(crate) fn port(text: &str) -> Result<u16, InvalidAddress> {
    match text.parse() {
        Ok(port) if port > 0 && !text.starts_with(['+', '0']) => Ok(port),
        _ => Err(InvalidAddress::Port),
    }
}

/// Splits the port off an address.
fn split_port(text: &str) -> Result<(&str, &str), InvalidAddress> {
    match text.rsplit_once(':') {
        // An IPv6 address without brackets could be read in two ways.
        Some((host, _)) if host.contains(':') && !host.starts_with('[') => {
            Err(InvalidAddress::NoPort)
        }
        Some((host, number)) if !number.ends_with(']') => Ok((host, number)),
        _ => Err(InvalidAddress::NoPort),
    }
}

impl FromStr for HostPort {
    type Err = InvalidAddress;

    fn from_str(text: &str) -> Result<Self, InvalidAddress> {
        if text.contains(',') {
            return Err(InvalidAddress::Several);
        }
        let (host, number) = split_port(text)?;
        let host: Host = host.parse()?;
        if host.0.starts_with('/') {
            return Err(InvalidAddress::NotHostName);
        }
        Ok(Self::new(host, port(number)?))
    }
}

impl fmt::Display for HostPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (host, port) = (&self.host.0, self.port);
        if host.contains(':') {
            write!(f, "[{host}]:{port}")
        } else {
            write!(f, "{host}:{port}")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_is_a_name_or_an_address_with_or_without_brackets() {
        for (text, expected) in [
            ("db.example", Ok("db.example")),
            ("my_db-1", Ok("my_db-1")),
            ("10.0.0.1", Ok("10.0.0.1")),
            ("::1", Ok("::1")),
            ("[::1]", Ok("::1")),
            ("[fd00::1:2]", Ok("fd00::1:2")),
            ("/var/run/postgresql", Ok("/var/run/postgresql")),
            ("", Err(InvalidAddress::Empty)),
            ("a,b", Err(InvalidAddress::Several)),
            ("[::1", Err(InvalidAddress::Brackets)),
            ("[localhost]", Err(InvalidAddress::Brackets)),
            ("db:5432", Err(InvalidAddress::Colon)),
            ("::1::2", Err(InvalidAddress::Colon)),
            ("fe80::1%eth0", Err(InvalidAddress::Colon)),
            ("db/x", Err(InvalidAddress::NotHostName)),
            ("user@db", Err(InvalidAddress::NotHostName)),
            ("d b", Err(InvalidAddress::NotHostName)),
            ("-db", Err(InvalidAddress::NotHostName)),
            ("dä", Err(InvalidAddress::NotHostName)),
            ("db\0", Err(InvalidAddress::NotHostName)),
        ] {
            let host = text.parse::<Host>();
            assert_eq!(
                host.as_ref().map(Host::as_str),
                expected.as_ref().copied(),
                "{text}"
            );
        }
        assert_eq!(
            "a".repeat(254).parse::<Host>(),
            Err(InvalidAddress::TooLong)
        );
    }

    #[test]
    fn an_address_has_a_port_in_range_and_brackets_for_ipv6() {
        for (text, expected) in [
            ("kafka:9092", Ok("kafka:9092")),
            ("[::1]:9092", Ok("[::1]:9092")),
            ("127.0.0.1:65535", Ok("127.0.0.1:65535")),
            ("kafka", Err(InvalidAddress::NoPort)),
            ("[::1]", Err(InvalidAddress::NoPort)),
            ("::1:9092", Err(InvalidAddress::NoPort)),
            ("kafka:", Err(InvalidAddress::Port)),
            ("kafka:0", Err(InvalidAddress::Port)),
            ("kafka:99999", Err(InvalidAddress::Port)),
            ("kafka:65536", Err(InvalidAddress::Port)),
            ("kafka:+1", Err(InvalidAddress::Port)),
            ("kafka:x", Err(InvalidAddress::Port)),
            (":9092", Err(InvalidAddress::Empty)),
            ("a:1,b:2", Err(InvalidAddress::Several)),
            ("http://a:1", Err(InvalidAddress::NoPort)),
            ("/tmp:1", Err(InvalidAddress::NotHostName)),
        ] {
            let address = text.parse::<HostPort>().map(|address| address.to_string());
            assert_eq!(address.as_deref(), expected.as_ref().copied(), "{text}");
        }
    }
}
