//! Listeners on loopback that forward connections to a server or answer like a faulty one.

use std::{
    future::pending,
    io::{Read, Write},
    net::SocketAddr,
    ops::Range,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
};

use rustls::{
    ServerConfig, ServerConnection,
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional},
    net::{TcpListener, TcpStream},
    sync::Notify,
};

use super::certificates::Pair;

/// Ports that are given out here: below those that the kernel gives to connections, one of which
/// could take the port before a server is up.
const PORTS: Range<u32> = 22_000..32_000;

/// A port where nothing listens. Each call returns another one.
pub(crate) async fn closed_port() -> u16 {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    loop {
        // Another process that runs tests begins elsewhere.
        let at = std::process::id() * 97 + NEXT.fetch_add(1, Ordering::Relaxed);
        let port = (PORTS.start + at % PORTS.len() as u32) as u16;
        if TcpListener::bind(("127.0.0.1", port)).await.is_ok() {
            return port;
        }
    }
}

/// The protocol of a client before its TLS handshake.
#[derive(Clone, Copy)]
pub(crate) enum Hello {
    /// PostgreSQL's clients request TLS first.
    Asks,
    /// Kafka's clients start with the handshake.
    Begins,
}

/// Starts a server that presents this certificate and closes after the handshake. Returns its port.
pub(crate) fn with_certificate(pair: &Pair, hello: Hello) -> u16 {
    let chain = CertificateDer::pem_slice_iter(pair.certificate.as_bytes())
        .collect::<Result<Vec<_>, _>>()
        .expect("certificates");
    let key = PrivateKeyDer::from_pem_slice(pair.key.as_bytes()).expect("a key");
    let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions();
    let config = config
        .expect("versions")
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .expect("a pair");
    let config = Arc::new(config);
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let port = listener.local_addr().expect("an address").port();
    std::thread::spawn(move || {
        for client in listener.incoming().flatten() {
            let config = Arc::clone(&config);
            std::thread::spawn(move || shake_hands(client, config, hello));
        }
    });
    port
}

fn shake_hands(
    mut client: std::net::TcpStream,
    config: Arc<ServerConfig>,
    hello: Hello,
) -> std::io::Result<()> {
    if matches!(hello, Hello::Asks) {
        client.read_exact(&mut [0; 8])?;
        client.write_all(b"S")?;
    }
    let mut server = ServerConnection::new(config).expect("a good configuration");
    server.complete_io(&mut client)?;
    Ok(())
}

/// Forwards another address of this machine to the server. Its certificate is not valid for that
/// address.
pub(crate) async fn at_another_address(server: SocketAddr) -> SocketAddr {
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

/// Starts a proxy for one client that becomes silent on request. It then drops all data without
/// closing, like a firewall that forgot the connection.
pub(crate) async fn silenceable_proxy(server: SocketAddr) -> (u16, Arc<Notify>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let port = listener.local_addr().expect("an address").port();
    let silence = Arc::new(Notify::new());
    let silenced = Arc::clone(&silence);
    tokio::spawn(async move {
        let (mut client, _) = listener.accept().await.expect("a client");
        let mut server = TcpStream::connect(server).await.expect("the server");
        tokio::select! {
            _ = copy_bidirectional(&mut client, &mut server) => {}
            () = silenced.notified() => pending().await,
        }
    });
    (port, silence)
}

/// Starts a server that declines TLS. Returns its port.
pub(crate) async fn server_without_tls() -> u16 {
    answering(b"N").await
}

/// Starts a server that is not a PostgreSQL server. Returns its port.
pub(crate) async fn server_of_another_protocol() -> u16 {
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
            // Wait until the client closes: closing first could discard the answer.
            client.read_exact(&mut request).await.ok();
        }
    });
    port
}
