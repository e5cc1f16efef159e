//! Requests reports from relay pods. IO. Answers are not trusted: time, size and texts are bounded,
//! redirects are not followed.

use std::{
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use futures::{StreamExt, stream};
use http_body_util::{BodyExt, Empty, Limited};
use hyper::{
    Request, StatusCode,
    body::{Bytes, Incoming},
    client::conn::http1::{self, SendRequest},
    header::HOST,
};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use crate::{
    operator::reconcile::observe::{PodReport, RelayPod},
    report::{HTTP_PORT, Problem, RelayReport},
};

/// Time limit for one relay's report.
const REPORT_TIMEOUT: Duration = Duration::from_secs(2);
/// Longest answer, in bytes.
const BODY_BYTES_MAX: usize = 64 * 1024;
/// Number of problems of one relay that are kept.
const PROBLEMS_MAX: usize = 16;
/// Number of relays whose reports are requested at the same time.
const CONCURRENT_REQUESTS_MAX: usize = 16;

/// Why a pod gave no report.
#[derive(Debug, thiserror::Error)]
enum ReportError {
    #[error("no answer within {}s", REPORT_TIMEOUT.as_secs())]
    Timeout,
    #[error("failed to connect")]
    Connect(#[source] std::io::Error),
    #[error("failed to send the request")]
    Request(#[source] hyper::Error),
    #[error("answered {0}")]
    Status(StatusCode),
    #[error("failed to read at most {BODY_BYTES_MAX} bytes")]
    Read(#[source] Box<dyn std::error::Error + Send + Sync>),
    #[error("the answer is not a report")]
    Parse(#[from] serde_json::Error),
}

/// Returns the reports of all pods with an address, in the order of their names.
///
/// # Cancel safety
/// Safe to drop: open connections are closed.
pub(crate) async fn collect(pods: &[RelayPod]) -> Vec<PodReport> {
    let with_address: Vec<(String, IpAddr)> = pods
        .iter()
        .filter_map(|pod| Some((pod.name.clone(), pod.address?)))
        .collect();
    let requests = with_address
        .into_iter()
        .map(|(pod, address)| pod_report(pod, SocketAddr::new(address, HTTP_PORT)));
    let mut reports: Vec<PodReport> = stream::iter(requests)
        .buffer_unordered(CONCURRENT_REQUESTS_MAX)
        .collect()
        .await;
    reports.sort_by(|a, b| a.pod.cmp(&b.pod));
    reports
}

async fn pod_report(pod: String, address: SocketAddr) -> PodReport {
    let report = report(&pod, address).await;
    PodReport { pod, report }
}

async fn report(pod: &str, address: SocketAddr) -> Option<RelayReport> {
    let report = report_in_time(address).await;
    report
        .inspect_err(|error| log_missing(pod, address, error))
        .ok()
        .map(bounded)
}

async fn report_in_time(address: SocketAddr) -> Result<RelayReport, ReportError> {
    tokio::time::timeout(REPORT_TIMEOUT, request_report(address))
        .await
        .unwrap_or(Err(ReportError::Timeout))
}

fn log_missing(pod: &str, address: SocketAddr, error: &ReportError) {
    tracing::debug!(
        pod,
        %address,
        error = error as &dyn std::error::Error,
        "a relay did not report"
    );
}

async fn request_report(address: SocketAddr) -> Result<RelayReport, ReportError> {
    let stream = TcpStream::connect(address)
        .await
        .map_err(ReportError::Connect)?;
    let (sender, connection) = http1::handshake(TokioIo::new(stream))
        .await
        .map_err(ReportError::Request)?;
    // Both are dropped together at the time limit: no task outlives the request.
    let exchange = exchange(sender, address);
    tokio::pin!(exchange);
    tokio::select! {
        answer = &mut exchange => answer,
        ended = connection => match ended {
            Ok(()) => exchange.await,
            Err(error) => Err(ReportError::Request(error)),
        },
    }
}

async fn exchange(
    mut sender: SendRequest<Empty<Bytes>>,
    address: SocketAddr,
) -> Result<RelayReport, ReportError> {
    let request = Request::get("/status")
        .header(HOST, address.to_string())
        .body(Empty::<Bytes>::new())
        .expect("a constant request");
    let answer = sender
        .send_request(request)
        .await
        .map_err(ReportError::Request)?;
    if answer.status() != StatusCode::OK {
        return Err(ReportError::Status(answer.status()));
    }
    read_body(answer.into_body()).await
}

async fn read_body(body: Incoming) -> Result<RelayReport, ReportError> {
    let body = Limited::new(body, BODY_BYTES_MAX)
        .collect()
        .await
        .map_err(ReportError::Read)?;
    Ok(serde_json::from_slice(&body.to_bytes())?)
}

fn bounded(mut report: RelayReport) -> RelayReport {
    report.problems.truncate(PROBLEMS_MAX);
    report.problems = report.problems.into_iter().map(Problem::bounded).collect();
    report
}

#[cfg(test)]
mod tests {
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::TcpListener,
    };

    use super::*;

    /// Starts a relay that answers any request with `answer`.
    async fn relay_that_returns(answer: Vec<u8>) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("bound");
        tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.expect("one request");
            let mut request = [0; 1024];
            let _ = stream.read(&mut request).await;
            let _ = stream.write_all(&answer).await;
            let _ = stream.shutdown().await;
        });
        address
    }

    fn http(status: &str, body: &str) -> Vec<u8> {
        format!(
            "HTTP/1.1 {status}\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        )
        .into_bytes()
    }

    const REPORT: &str =
        r#"{"instance":"i","version":"1","lanes":64,"publishedPerSecond":0.0,"problems":[]}"#;

    #[tokio::test]
    async fn a_report_is_read() {
        let address = relay_that_returns(http("200 OK", REPORT)).await;
        assert_eq!(request_report(address).await.expect("a report").lanes, 64);
    }

    #[tokio::test]
    async fn a_text_that_is_too_long_is_cut_and_the_rest_of_a_problem_stays() {
        let problem = format!(
            r#"{{"class":"AuthenticationFailed","message":"{}","lastGoodUsed":true,"since":"s"}}"#,
            "x".repeat(300)
        );
        let body = REPORT.replace("[]", &format!("[{problem}]"));
        let report = report("p", relay_that_returns(http("200 OK", &body)).await)
            .await
            .expect("a report");
        let [problem] = &report.problems[..] else {
            panic!("{report:?}")
        };
        assert_eq!(
            (
                problem.message.len(),
                problem.last_good_used,
                problem.since.as_deref()
            ),
            (256, true, Some("s"))
        );
    }

    #[tokio::test]
    async fn a_redirect_is_not_followed() {
        let address = relay_that_returns(
            b"HTTP/1.1 302 Found\r\nlocation: http://127.0.0.1/\r\ncontent-length: 0\r\n\r\n"
                .to_vec(),
        )
        .await;
        let answer = request_report(address).await;
        assert!(matches!(answer, Err(ReportError::Status(status)) if status == 302));
    }

    #[tokio::test]
    async fn an_endless_answer_is_cut_off() {
        let address = relay_that_returns(http("200 OK", &" ".repeat(BODY_BYTES_MAX + 1))).await;
        assert!(matches!(
            request_report(address).await,
            Err(ReportError::Read(_))
        ));
    }

    #[tokio::test]
    async fn an_answer_that_is_no_report_is_none() {
        let address = relay_that_returns(http("200 OK", "<html>")).await;
        assert_eq!(report("p", address).await, None);
    }

    #[tokio::test]
    async fn a_closed_port_is_no_report() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("bound");
        drop(listener);
        assert_eq!(report("p", address).await, None);
    }
}
