//! Where a program's HTTP surface is to be reached. IO.

use std::{
    io::{Error, ErrorKind, Result},
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
};

use tokio::net::TcpListener;

/// Listens; `[::]` stands for all addresses of the machine, those of IPv4 too, so that one form
/// serves each cluster.
///
/// # Errors
/// When the address cannot be had.
pub async fn listen(address: SocketAddr) -> Result<TcpListener> {
    match TcpListener::bind(address).await {
        Err(error) => match instead(address, &error) {
            Some(instead) => TcpListener::bind(instead).await,
            None => Err(error),
        },
        bound => bound,
    }
}

/// All addresses of a machine whose kernel knows no IPv6.
fn instead(address: SocketAddr, error: &Error) -> Option<SocketAddr> {
    let taken = matches!(
        error.kind(),
        ErrorKind::AddrInUse | ErrorKind::PermissionDenied
    );
    (address.ip() == Ipv6Addr::UNSPECIFIED && !taken)
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
        // EAFNOSUPPORT, and what some sandboxes answer instead: EADDRNOTAVAIL.
        for code in [97, 99] {
            assert_eq!(
                instead(address("[::]:9090"), &Error::from_raw_os_error(code)),
                Some(address("0.0.0.0:9090"))
            );
            assert_eq!(
                instead(address("[::1]:9090"), &Error::from_raw_os_error(code)),
                None,
                "it was named"
            );
        }
        assert_eq!(
            instead(address("[::]:9090"), &ErrorKind::AddrInUse.into()),
            None
        );
        assert_eq!(
            instead(address("[::]:80"), &ErrorKind::PermissionDenied.into()),
            None
        );
    }
}
