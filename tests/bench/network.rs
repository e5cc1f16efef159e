//! A network between the contenders and the brokers: a TCP proxy that delays each direction by half
//! of a round trip. It keeps the order of the bytes, and does not limit their rate.
//!
//! A broker has a listener for it, whose advertised address is the proxy's. So all requests of a
//! client take the way through the proxy, to whichever broker they go.

use std::{
    io::{Read, Write},
    net::{Shutdown, TcpListener, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
        mpsc::{Receiver, SyncSender, sync_channel},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::Context;

/// Most bytes of one read.
const CHUNK: usize = 64 << 10;
/// Most chunks that are under way in one direction of a connection: 64 MiB at most.
const CHUNKS_MAX: usize = 1024;

/// The running proxy of all brokers. It ends with the process.
pub(crate) struct Network(Arc<Delay>);

/// Times in microseconds.
#[derive(Default)]
struct Delay {
    one_way: AtomicU64,
    /// Most that is added to a delay, at random.
    jitter: AtomicU64,
}

/// Bytes that are due at a time. Without bytes: the end of the stream.
type Chunk = (Instant, Vec<u8>);

impl Network {
    /// Listens on each of the addresses, and connects to the broker at the same position.
    pub(crate) fn start(addresses: &str, brokers: &str) -> anyhow::Result<Self> {
        let delay = Arc::new(Delay::default());
        for (address, broker) in addresses.split(',').zip(brokers.split(',')) {
            let listener = TcpListener::bind(address)
                .with_context(|| format!("cannot listen on {address}"))?;
            let (broker, delay) = (broker.to_owned(), Arc::clone(&delay));
            thread::spawn(move || {
                for client in listener.incoming().flatten() {
                    // A client retries if its broker is down.
                    let _ = join(client, &broker, &delay);
                }
            });
        }
        Ok(Self(delay))
    }

    /// Sets the round trip and the jitter in milliseconds.
    pub(crate) fn set_ms(&self, round_trip: f64, jitter: f64) {
        let time = |ms: f64| Duration::from_secs_f64(ms / 1e3);
        self.set(time(round_trip), time(jitter));
    }

    /// Sets the round trip and the jitter of each direction, for bytes that arrive from now on.
    fn set(&self, round_trip: Duration, jitter: Duration) {
        let one_way = round_trip.as_micros() as u64 / 2;
        self.0.one_way.store(one_way, Ordering::Relaxed);
        self.0
            .jitter
            .store(jitter.as_micros() as u64, Ordering::Relaxed);
    }
}

impl Delay {
    fn one_way(&self) -> Duration {
        Duration::from_micros(self.one_way.load(Ordering::Relaxed))
    }

    /// The delay of the next chunk. `random` is the state of a generator.
    fn next(&self, random: &mut u64) -> Duration {
        *random = random
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        let jitter = self.jitter.load(Ordering::Relaxed);
        self.one_way() + Duration::from_micros((*random >> 33) % (jitter + 1))
    }
}

/// Joins a client with its broker.
fn join(client: TcpStream, broker: &str, delay: &Arc<Delay>) -> std::io::Result<()> {
    let broker = TcpStream::connect(broker)?;
    client.set_nodelay(true)?;
    broker.set_nodelay(true)?;
    // To connect takes a round trip, too.
    let connected = Instant::now() + delay.one_way() * 2;
    pass(client.try_clone()?, broker.try_clone()?, connected, delay);
    pass(broker, client, connected, delay);
    Ok(())
}

/// Passes the bytes of one direction on, none before a time.
fn pass(from: TcpStream, to: TcpStream, not_before: Instant, delay: &Arc<Delay>) {
    let (sender, receiver) = sync_channel(CHUNKS_MAX);
    let delay = Arc::clone(delay);
    thread::spawn(move || receive(from, &sender, not_before, &delay));
    thread::spawn(move || send(to, &receiver));
}

/// Takes bytes as they arrive. Waits while too many are under way.
fn receive(
    mut from: TcpStream,
    chunks: &SyncSender<Chunk>,
    not_before: Instant,
    delay: &Arc<Delay>,
) {
    let (mut buffer, mut random) = (vec![0; CHUNK], 42);
    loop {
        let read = from.read(&mut buffer).unwrap_or(0);
        let due = not_before.max(Instant::now() + delay.next(&mut random));
        let sent = chunks.send((due, buffer[..read].to_vec()));
        if read == 0 || sent.is_err() {
            return;
        }
    }
}

/// Sends bytes in the order of their arrival, none before its time.
fn send(mut to: TcpStream, chunks: &Receiver<Chunk>) {
    while let Ok((due, bytes)) = chunks.recv() {
        thread::sleep(due.saturating_duration_since(Instant::now()));
        if bytes.is_empty() || to.write_all(&bytes).is_err() {
            break;
        }
    }
    let _ = to.shutdown(Shutdown::Both);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_arrive_in_order_after_both_delays() {
        let echo = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let free = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let (broker, address) = (
            echo.local_addr().expect("bound"),
            free.local_addr().expect("bound"),
        );
        drop(free);
        let network = Network::start(&address.to_string(), &broker.to_string()).expect("started");
        network.set(Duration::from_millis(6), Duration::from_millis(2));
        thread::spawn(move || {
            let (mut one, _) = echo.accept().expect("a client");
            let mut copy = one.try_clone().expect("a copy");
            std::io::copy(&mut one, &mut copy)
        });
        let mut client = TcpStream::connect(address).expect("connected");
        let sent: Vec<u8> = (0..1_000_000_u32).flat_map(u32::to_le_bytes).collect();
        let began = Instant::now();
        let mut writer = client.try_clone().expect("a copy");
        let copy = sent.clone();
        thread::spawn(move || writer.write_all(&copy));
        let mut received = vec![0; sent.len()];
        client.read_exact(&mut received).expect("all bytes");
        assert!(received == sent);
        assert!(began.elapsed() >= Duration::from_millis(12));
    }
}
