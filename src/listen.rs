//! Binds the address of a program's HTTP server. IO.

use std::{
    io::{Error, ErrorKind, Result},
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
};

use tokio::net::TcpListener;

/// Binds `address`. `[::]` means all addresses of the machine, IPv4 included, so that one value
/// serves every cluster.
///
/// # Errors
/// When the address cannot be bound.
///
/// # Cancel safety
/// If dropped before it returns, nothing is bound.
pub async fn listen(address: SocketAddr) -> Result<TcpListener> {
    match TcpListener::bind(address).await {
        Err(error) => match ipv4_fallback(address, &error) {
            Some(fallback) => TcpListener::bind(fallback).await,
            None => Err(error),
        },
        bound => bound,
    }
}

/// All IPv4 addresses, for `[::]` on a kernel without IPv6. A port that is taken or forbidden stays
/// an error.
fn ipv4_fallback(address: SocketAddr, error: &Error) -> Option<SocketAddr> {
    let is_refused_port = matches!(
        error.kind(),
        ErrorKind::AddrInUse | ErrorKind::PermissionDenied
    );
    (address.ip() == Ipv6Addr::UNSPECIFIED && !is_refused_port)
        .then(|| (Ipv4Addr::UNSPECIFIED, address.port()).into())
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpStream;

    use super::*;

    fn address(text: &str) -> SocketAddr {
        text.parse().expect("an address")
    }

    #[tokio::test]
    async fn all_addresses_are_those_of_ipv4_and_of_ipv6() {
        let listener = listen(address("[::]:0")).await.expect("a free port");
        let port = listener.local_addr().expect("bound").port();
        assert!(TcpStream::connect(("127.0.0.1", port)).await.is_ok());
        let has_ipv6 = TcpListener::bind("[::1]:0").await.is_ok();
        assert_eq!(TcpStream::connect(("::1", port)).await.is_ok(), has_ipv6);
    }

    #[test]
    fn a_kernel_without_ipv6_listens_to_ipv4_and_a_port_that_is_taken_stays_taken() {
        // EAFNOSUPPORT, and EADDRNOTAVAIL, which some sandboxes return instead.
        for code in [97, 99] {
            assert_eq!(
                ipv4_fallback(address("[::]:9090"), &Error::from_raw_os_error(code)),
                Some(address("0.0.0.0:9090"))
            );
            assert_eq!(
                ipv4_fallback(address("[::1]:9090"), &Error::from_raw_os_error(code)),
                None,
                "only the address of all addresses has a fallback"
            );
        }
        assert_eq!(
            ipv4_fallback(address("[::]:9090"), &ErrorKind::AddrInUse.into()),
            None
        );
        assert_eq!(
            ipv4_fallback(address("[::]:80"), &ErrorKind::PermissionDenied.into()),
            None
        );
    }
}
