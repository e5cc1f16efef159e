//! Operators that compete for the Lease of an API server that loses requests and responses. The
//! clock is paused, so minutes take a moment.

use std::{
    collections::BTreeSet,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
};

use http_body_util::{BodyExt, Full};
use hyper::{Method, Request, Response, StatusCode, body::Bytes};
use kube::{client::Body, core::Status};
use tokio_util::task::AbortOnDropHandle;

use super::*;
use crate::operator::process::election::WRITES_DEADLINE;

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// One Lease, as an API server keeps it.
#[derive(Clone, Default)]
struct ApiServer {
    lease: Arc<Mutex<Option<Lease>>>,
    version: Arc<AtomicU32>,
}

impl ApiServer {
    fn holder(&self) -> Option<String> {
        self.lease
            .lock()
            .expect("no panic")
            .as_ref()?
            .spec
            .as_ref()?
            .holder_identity
            .clone()
    }

    fn handle(&self, method: &Method, body: &[u8]) -> Result<Lease, StatusCode> {
        let mut kept = self.lease.lock().expect("no panic");
        if method == Method::GET {
            return kept.clone().ok_or(StatusCode::NOT_FOUND);
        }
        let mut new: Lease = serde_json::from_slice(body).expect("a Lease");
        let expected = kept
            .as_ref()
            .and_then(|lease| lease.metadata.resource_version.clone());
        if new.metadata.resource_version != expected {
            return Err(StatusCode::CONFLICT);
        }
        new.metadata.resource_version =
            Some(self.version.fetch_add(1, Ordering::Relaxed).to_string());
        Ok(kept.insert(new).clone())
    }

    /// A client whose requests suffer what `fate` says.
    fn client(&self, fate: impl Fn() -> Fate + Clone + Send + 'static) -> Client {
        let server = self.clone();
        let service = tower::service_fn(move |request: Request<Body>| {
            let (server, fate) = (server.clone(), fate());
            async move {
                sleep(fate.under_way).await;
                if fate.request_lost {
                    std::future::pending::<()>().await;
                }
                let (head, body) = request.into_parts();
                let answer = server.handle(&head.method, &body.collect().await?.to_bytes());
                sleep(fate.under_way).await;
                if fate.answer_lost {
                    std::future::pending::<()>().await;
                }
                respond(answer)
            }
        });
        Client::new(service, "outbox-system")
    }
}

fn respond(answer: Result<Lease, StatusCode>) -> Result<Response<Full<Bytes>>, BoxError> {
    let (code, body) = match answer {
        Ok(lease) => (StatusCode::OK, serde_json::to_vec(&lease)?),
        Err(code) => (
            code,
            serde_json::to_vec(&Status {
                code: code.as_u16(),
                reason: code.to_string(),
                ..Status::default()
            })?,
        ),
    };
    Ok(Response::builder()
        .status(code)
        .body(Full::new(body.into()))?)
}

/// What becomes of one request.
#[derive(Clone, Copy, Default)]
struct Fate {
    under_way: Duration,
    request_lost: bool,
    answer_lost: bool,
}

/// Pseudo-random numbers, determined by their seed.
#[derive(Clone)]
struct Rng(Arc<Mutex<u64>>);

impl Rng {
    fn new(seed: u64) -> Self {
        Self(Arc::new(Mutex::new(
            seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1,
        )))
    }

    fn below(&self, limit: u64) -> u64 {
        let mut state = self.0.lock().expect("no panic");
        *state ^= *state << 13;
        *state ^= *state >> 7;
        *state ^= *state << 17;
        *state % limit
    }

    fn fate(&self) -> Fate {
        let slow = if self.below(8) == 0 { 6000 } else { 300 };
        Fate {
            under_way: Duration::from_millis(self.below(slow)),
            request_lost: self.below(6) == 0,
            answer_lost: self.below(6) == 0,
        }
    }
}

fn leader_lease(client: Client, me: &str, fence: &Fence) -> LeaderLease {
    LeaderLease::new(
        client,
        "outbox-system",
        "lease",
        me.to_owned(),
        fence.clone(),
    )
}

/// Who may have a write under way, and until when.
type Busy = Arc<Mutex<Option<(usize, Instant)>>>;

/// Leads when it can, ends when it lost, gives the Lease back now and then when its writes have
/// ended, and is started again.
async fn live(server: ApiServer, number: usize, fence: Fence, rng: Rng, busy: Busy) {
    loop {
        let faults = rng.clone();
        let mut lease = leader_lease(
            server.client(move || faults.fate()),
            &format!("pod-{number}"),
            &fence,
        );
        lease.acquire(|| ()).await;
        let reign = Duration::from_secs(rng.below(120));
        if timeout(reign, lease.hold()).await.is_err() {
            fence.close();
            busy.lock()
                .expect("no panic")
                .take_if(|(writer, _)| *writer == number);
            lease.release().await;
        }
        fence.close();
        sleep(Duration::from_millis(rng.below(3000))).await;
    }
}

#[tokio::test(start_paused = true)]
async fn nobody_may_write_while_a_write_of_another_can_still_be_under_way() {
    for seed in 1..=6 {
        let (server, rng, busy) = (ApiServer::default(), Rng::new(seed), Busy::default());
        let fences: Vec<Fence> = (0..3).map(|_| Fence::default()).collect();
        let start = |(number, fence): (usize, &Fence)| {
            let life = live(
                server.clone(),
                number,
                fence.clone(),
                rng.clone(),
                Arc::clone(&busy),
            );
            AbortOnDropHandle::new(tokio::spawn(life))
        };
        let lives: Vec<_> = fences.iter().enumerate().map(start).collect();
        let (mut led, mut leaders) = (0, BTreeSet::new());
        for _ in 0..6_000 {
            sleep(Duration::from_millis(100)).await;
            let now = Instant::now();
            for (number, fence) in fences.iter().enumerate() {
                let Some(longest) = fence.allows(now.into_std()) else {
                    continue;
                };
                let mut busy = busy.lock().expect("no panic");
                let other = busy.filter(|(writer, until)| *writer != number && *until > now);
                assert_eq!(other, None, "seed {seed}: pod-{number} may write already");
                *busy = Some((number, now + longest));
                led += 1;
                leaders.insert(number);
            }
        }
        assert!(
            led > 3_000 && leaders.len() == 3,
            "seed {seed}: {leaders:?} led for {led} of 6000 moments"
        );
        drop(lives);
    }
}

fn faultless(server: &ApiServer) -> Client {
    server.client(Fate::default)
}

#[tokio::test(start_paused = true)]
async fn a_lease_that_is_given_back_is_taken_within_a_poll_interval() {
    let server = ApiServer::default();
    let (first, second) = (Fence::default(), Fence::default());
    let mut leader = leader_lease(faultless(&server), "a", &first);
    leader.acquire(|| ()).await;
    let mut candidate = leader_lease(faultless(&server), "b", &second);
    assert!(
        timeout(LEASE_DURATION / 2, candidate.acquire(|| ()))
            .await
            .is_err(),
        "a holds it"
    );
    leader.release().await;
    assert_eq!(server.holder().as_deref(), Some(""));
    timeout(POLL_INTERVAL, candidate.acquire(|| ()))
        .await
        .expect("b takes it");
    assert_eq!(first.allows(Instant::now().into_std()), None);
    assert!(second.allows(Instant::now().into_std()).is_some());
}

#[tokio::test(start_paused = true)]
async fn a_holder_that_cannot_renew_ends_before_its_lease_does() {
    let (server, fence, cut) = (
        ApiServer::default(),
        Fence::default(),
        Arc::new(AtomicBool::new(false)),
    );
    let is_cut = Arc::clone(&cut);
    let client = server.client(move || Fate {
        request_lost: is_cut.load(Ordering::Relaxed),
        ..Fate::default()
    });
    let mut leader = leader_lease(client, "a", &fence);
    leader.acquire(|| ()).await;
    cut.store(true, Ordering::Relaxed);
    let start = Instant::now();
    assert_eq!(leader.hold().await, LeaseLost::NotRenewed);
    assert_eq!(start.elapsed(), RENEW_DEADLINE);
    assert_eq!(fence.allows(Instant::now().into_std()), None);
}

/// The API server may have written it long before its answer came, and others count from there.
#[tokio::test(start_paused = true)]
async fn a_renewal_counts_from_when_it_was_asked_for() {
    let (server, fence) = (ApiServer::default(), Fence::default());
    let slow = Fate {
        under_way: Duration::from_millis(1500),
        ..Fate::default()
    };
    leader_lease(server.client(move || slow), "a", &fence)
        .acquire(|| ())
        .await;
    assert_eq!(
        fence.allows(Instant::now().into_std()),
        Some(WRITES_DEADLINE - slow.under_way * 2)
    );
}

#[tokio::test(start_paused = true)]
async fn a_holder_whose_lease_was_taken_ends_at_its_next_renewal() {
    let (server, fence) = (ApiServer::default(), Fence::default());
    let mut leader = leader_lease(faultless(&server), "a", &fence);
    leader.acquire(|| ()).await;
    let other = claimed(
        server.lease.lock().expect("no panic").clone(),
        "lease",
        "b",
        Timestamp::now(),
    );
    server
        .handle(&Method::PUT, &serde_json::to_vec(&other).expect("JSON"))
        .expect("taken");
    assert_eq!(leader.hold().await, LeaseLost::Taken("b".to_owned()));
}

/// The holder's container was restarted: its former process is gone.
#[tokio::test(start_paused = true)]
async fn a_holder_that_comes_back_under_its_name_leads_at_once() {
    let server = ApiServer::default();
    leader_lease(faultless(&server), "a", &Fence::default())
        .acquire(|| ())
        .await;
    let start = Instant::now();
    leader_lease(faultless(&server), "a", &Fence::default())
        .acquire(|| ())
        .await;
    assert_eq!(start.elapsed(), Duration::ZERO);
}
