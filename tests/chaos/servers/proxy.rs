//! Stands between one relay and its servers, and makes what passes late. These kernels cannot do it
//! themselves (no netem).

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

/// How late what passes is, in each direction: at least the first, at most the second.
pub(crate) type Delay = (Duration, Duration);

pub(crate) struct Proxy {
    delay: Arc<watch::Sender<Delay>>,
}

impl Proxy {
    /// What a host sends to these servers goes through here.
    pub(crate) async fn between(host: Host, servers: &[(Host, u16)]) -> anyhow::Result<Self> {
        let delay = Arc::new(watch::Sender::new(Delay::default()));
        let mut diverted = Vec::new();
        for (server, port) in servers {
            let listener = TcpListener::bind("10.91.0.1:0").await?;
            diverted.push((*server, *port, listener.local_addr()?.port()));
            tokio::spawn(serve(listener, server.address(), *port, Arc::clone(&delay)));
        }
        net::divert(host, &diverted)?;
        Ok(Self { delay })
    }

    pub(crate) fn set(&self, delay: Delay) {
        self.delay.send_replace(delay);
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
                pass(from_client, to_server, &delay),
                pass(from_server, to_client, &delay)
            );
        });
    }
}

/// One direction, until either end closes. What came first leaves first.
async fn pass(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, delay: &watch::Sender<Delay>) {
    let (late, mut due) = mpsc::channel::<(Instant, Vec<u8>)>(1000);
    let read = async move {
        let (mut buffer, mut turn) = (vec![0; 64 << 10], 0_u32);
        while let Ok(bytes) = from.read(&mut buffer).await {
            turn = turn.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let (least, most) = *delay.borrow();
            let at = Instant::now() + least + (most - least) * (turn >> 22) / 1024;
            if bytes == 0 || late.send((at, buffer[..bytes].to_vec())).await.is_err() {
                break;
            }
        }
    };
    let write = async move {
        while let Some((at, bytes)) = due.recv().await {
            sleep_until(at).await;
            if to.write_all(&bytes).await.is_err() {
                break;
            }
        }
    };
    tokio::join!(read, write);
}
