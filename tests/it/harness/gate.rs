//! A TCP proxy between clients and a server. Closing it cuts all connections and accepts no new
//! ones.

use std::net::SocketAddr;

use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream},
    sync::watch,
    task::JoinSet,
};

/// The gate. It stays closed after it is dropped.
pub(crate) struct Gate {
    port: u16,
    is_open: watch::Sender<bool>,
}

impl Gate {
    /// An open gate to a server.
    pub(crate) async fn open(server: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let port = listener.local_addr().expect("an address").port();
        let (is_open, mut opened) = watch::channel(true);
        tokio::spawn(async move {
            let mut through = JoinSet::new();
            loop {
                tokio::select! {
                    client = listener.accept() => {
                        let Ok((mut client, _)) = client else { return };
                        if *opened.borrow() {
                            through.spawn(async move {
                                let Ok(mut server) = TcpStream::connect(server).await else {
                                    return;
                                };
                                copy_bidirectional(&mut client, &mut server).await.ok();
                            });
                        }
                    }
                    changed = opened.changed() => {
                        if changed.is_err() {
                            return;
                        }
                        if !*opened.borrow_and_update() {
                            through.shutdown().await;
                        }
                    }
                }
            }
        });
        Self { port, is_open }
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    pub(crate) fn set_open(&self, open: bool) {
        self.is_open.send_replace(open);
    }
}
