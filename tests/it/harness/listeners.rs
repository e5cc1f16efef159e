//! Listeners on loopback that stand between a client and a server, or answer like a bad one.

use std::net::SocketAddr;

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional},
    net::{TcpListener, TcpStream},
};

/// A port where nothing listens.
pub(crate) async fn closed_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    listener.local_addr().expect("an address").port()
}

/// The server under another address of this machine, one that its certificate does not name.
pub(crate) async fn under_another_address(server: SocketAddr) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.2:0").await.expect("a free port");
    let address = listener.local_addr().expect("an address");
    tokio::spawn(async move {
        while let Ok((mut client, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut server = TcpStream::connect(server).await.expect("the server");
                copy_bidirectional(&mut client, &mut server).await.ok();
            });
        }
    });
    address
}

/// A server that declines TLS.
pub(crate) async fn without_tls() -> u16 {
    answering(b"N").await
}

/// Something that is no PostgreSQL server.
pub(crate) async fn another_protocol() -> u16 {
    answering(b"HTTP/1.1 400 Bad Request\r\n\r\n").await
}

async fn answering(answer: &'static [u8]) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let port = listener.local_addr().expect("an address").port();
    tokio::spawn(async move {
        while let Ok((mut client, _)) = listener.accept().await {
            let mut request = [0; 8];
            client.read_exact(&mut request).await.ok();
            client.write_all(answer).await.ok();
            // Until the client goes: closing at once could take the answer away.
            client.read_exact(&mut request).await.ok();
        }
    });
    port
}
