//! A TCP proxy between clients and a server. Closing it cuts all connections and accepts no new
//! ones. The way through it can be long, and break now and then.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::{mpsc, watch},
    task::JoinSet,
    time::Instant,
};

/// Most bytes of one read.
const CHUNK: usize = 64 << 10;
/// Most reads that are under way in one direction of a connection.
const CHUNKS_MAX: usize = 1024;

/// The gate. It stays closed after it is dropped.
pub(crate) struct Gate {
    port: u16,
    is_open: watch::Sender<bool>,
    way: Arc<Way>,
}

/// How long each direction takes, in microseconds, and how many of a thousand reads cut their
/// connection.
#[derive(Default)]
struct Way {
    one_way_us: AtomicU64,
    cuts_of_1000: AtomicU64,
    random: AtomicU64,
}

/// Bytes that are due at a time.
type Chunk = (Instant, Vec<u8>);

impl Way {
    fn one_way(&self) -> Duration {
        Duration::from_micros(self.one_way_us.load(Ordering::Relaxed))
    }

    fn cuts_now(&self) -> bool {
        let next = |state: u64| {
            Some(
                state
                    .wrapping_mul(6_364_136_223_846_793_005)
                    .wrapping_add(1_442_695_040_888_963_407),
            )
        };
        let random = self
            .random
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, next)
            .unwrap_or_default();
        (random >> 33) % 1000 < self.cuts_of_1000.load(Ordering::Relaxed)
    }
}

impl Gate {
    /// An open gate to a server.
    pub(crate) async fn open(server: SocketAddr) -> Self {
        Self::open_on("127.0.0.1", server).await
    }

    /// An open gate to a server, for clients that reach it at this address of the machine.
    pub(crate) async fn open_on(host: &str, server: SocketAddr) -> Self {
        let listener = TcpListener::bind((host, 0)).await.expect("a free port");
        let port = listener.local_addr().expect("an address").port();
        let (is_open, mut opened) = watch::channel(true);
        let way = Arc::<Way>::default();
        let through_the_gate = Arc::clone(&way);
        tokio::spawn(async move {
            let mut through = JoinSet::new();
            loop {
                tokio::select! {
                    client = listener.accept() => {
                        let Ok((client, _)) = client else { return };
                        if *opened.borrow() {
                            through.spawn(join(client, server, Arc::clone(&through_the_gate)));
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
        Self { port, is_open, way }
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    pub(crate) fn set_open(&self, open: bool) {
        self.is_open.send_replace(open);
    }

    /// Sets the round trip, for bytes that arrive from now on.
    pub(crate) fn set_round_trip(&self, round_trip: Duration) {
        let one_way_us = round_trip.as_micros() as u64 / 2;
        self.way.one_way_us.store(one_way_us, Ordering::Relaxed);
    }

    /// Sets how many of a thousand reads cut their connection.
    pub(crate) fn set_cuts(&self, of_1000: u64) {
        self.way.cuts_of_1000.store(of_1000, Ordering::Relaxed);
    }
}

/// Joins a client with the server until one of them ends the connection, or it is cut.
async fn join(client: TcpStream, server: SocketAddr, way: Arc<Way>) {
    let Ok(server) = TcpStream::connect(server).await else {
        return;
    };
    client.set_nodelay(true).ok();
    server.set_nodelay(true).ok();
    // To connect takes a round trip, too.
    let connected = Instant::now() + way.one_way() * 2;
    let ((from_client, to_client), (from_server, to_server)) =
        (client.into_split(), server.into_split());
    tokio::select! {
        () = pass(from_client, to_server, connected, &way) => {}
        () = pass(from_server, to_client, connected, &way) => {}
    }
}

/// Passes the bytes of one direction on, none before a time.
async fn pass(from: OwnedReadHalf, to: OwnedWriteHalf, not_before: Instant, way: &Way) {
    let (sender, receiver) = mpsc::channel(CHUNKS_MAX);
    tokio::try_join!(receive(from, sender, not_before, way), send(to, receiver)).ok();
}

/// Takes bytes as they arrive. Fails if the connection is to be cut.
async fn receive(
    mut from: OwnedReadHalf,
    chunks: mpsc::Sender<Chunk>,
    not_before: Instant,
    way: &Way,
) -> std::io::Result<()> {
    let mut buffer = vec![0; CHUNK];
    loop {
        let read = from.read(&mut buffer).await?;
        if way.cuts_now() {
            return Err(std::io::ErrorKind::ConnectionReset.into());
        }
        let due = not_before.max(Instant::now() + way.one_way());
        let sent = chunks.send((due, buffer[..read].to_vec())).await;
        if read == 0 || sent.is_err() {
            return Ok(());
        }
    }
}

/// Sends bytes in the order of their arrival, none before its time.
async fn send(mut to: OwnedWriteHalf, mut chunks: mpsc::Receiver<Chunk>) -> std::io::Result<()> {
    while let Some((due, bytes)) = chunks.recv().await {
        tokio::time::sleep_until(due).await;
        to.write_all(&bytes).await?;
    }
    Ok(())
}
