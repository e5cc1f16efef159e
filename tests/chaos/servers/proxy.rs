//! A proxy between one relay and its servers that delays data. It replaces netem, which these
//! kernels do not have.

use std::{sync::Arc, time::Duration};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::{mpsc, watch},
    time::{Instant, sleep_until},
};

use super::net::{self, Host};

/// Shortest and longest delay in each direction.
pub(crate) type Delay = (Duration, Duration);

/// A running proxy.
pub(crate) struct Proxy {
    delay: Arc<watch::Sender<Delay>>,
    /// Delay without a fault.
    usual: Delay,
}

impl Proxy {
    /// Redirects the connections of a host to these servers through a proxy that adds this delay in
    /// each direction.
    pub(crate) async fn between(
        host: Host,
        servers: &[(Host, u16)],
        usual: Duration,
    ) -> anyhow::Result<Self> {
        let usual = (usual, usual);
        let delay = Arc::new(watch::Sender::new(usual));
        let mut redirected = Vec::new();
        for (server, port) in servers {
            let listener = TcpListener::bind("10.91.0.1:0").await?;
            redirected.push((*server, *port, listener.local_addr()?.port()));
            tokio::spawn(serve(listener, server.address(), *port, Arc::clone(&delay)));
        }
        net::redirect(host, &redirected)?;
        Ok(Self { delay, usual })
    }

    /// Sets the delay.
    pub(crate) fn set(&self, delay: Delay) {
        self.delay.send_replace(delay);
    }

    /// Sets the delay that there is without a fault.
    pub(crate) fn reset(&self) {
        self.set(self.usual);
    }
}

async fn serve(
    listener: TcpListener,
    address: String,
    port: u16,
    delay: Arc<watch::Sender<Delay>>,
) {
    while let Ok((client, _)) = listener.accept().await {
        let (address, delay) = (address.clone(), Arc::clone(&delay));
        tokio::spawn(async move {
            let Ok(server) = TcpStream::connect((address.as_str(), port)).await else {
                return;
            };
            client.set_nodelay(true).ok();
            server.set_nodelay(true).ok();
            let ((from_client, to_client), (from_server, to_server)) =
                (client.into_split(), server.into_split());
            tokio::join!(
                forward(from_client, to_server, &delay),
                forward(from_server, to_client, &delay)
            );
        });
    }
}

/// Forwards data in one direction until either end closes. The order of the data is kept.
async fn forward(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, delay: &watch::Sender<Delay>) {
    let (sender, mut receiver) = mpsc::channel::<(Instant, Vec<u8>)>(1000);
    let read = async move {
        let (mut buffer, mut random) = (vec![0; 64 << 10], 0_u32);
        while let Ok(bytes) = from.read(&mut buffer).await {
            random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let (least, most) = *delay.borrow();
            let at = Instant::now() + least + (most - least) * (random >> 22) / 1024;
            if bytes == 0 || sender.send((at, buffer[..bytes].to_vec())).await.is_err() {
                break;
            }
        }
    };
    let write = async move {
        while let Some((at, bytes)) = receiver.recv().await {
            sleep_until(at).await;
            if to.write_all(&bytes).await.is_err() {
                break;
            }
        }
    };
    tokio::join!(read, write);
}
