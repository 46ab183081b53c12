//! Requests of a benchmark: as fast as so many connections can, or at a rate that does not slow down when the system does.
//!
//! Both are one loop: requests have numbers, each connection takes the next number, waits until it is due, and sends it.
//! As fast as possible means: all are due at once. A request that found no free connection in time is late, and its time
//! counts from when it was due.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use hdrhistogram::Histogram;
use http_body_util::Full;
use hyper::header::{CONTENT_TYPE, COOKIE, HeaderName, HeaderValue};
use hyper::{Method, Request, Uri};
use tokio::task::JoinSet;
use tokio::time::sleep_until;

use super::http::Connection;
use super::sheet::real;
use crate::load::Latency;
use crate::load::body::body;
use crate::run::RunId;
use crate::run::requests::Offered;

const KEY: HeaderName = HeaderName::from_static("idempotency-key");
const RUN: HeaderName = HeaderName::from_static("x-run");

/// What each request is.
#[derive(Debug, Clone)]
pub(super) enum What {
    /// A page, with the cookie of a session or without.
    Page {
        path: Uri,
        cookies: Vec<HeaderValue>,
    },
    /// Messages of this size, so many in a request.
    Messages { run: RunId, batch: u32, size: usize },
    /// The same, to a path where the gateway itself answers: what the client can do.
    Nowhere { run: RunId, size: usize },
}

impl What {
    fn request(&self, number: u64, connection: usize) -> Result<Request<Full<Bytes>>> {
        match self {
            Self::Page { path, cookies } => {
                let mut request = Request::new(Full::new(Bytes::new()));
                *request.uri_mut() = path.clone();
                if !cookies.is_empty() {
                    let cookie = cookies[connection % cookies.len()].clone();
                    request.headers_mut().insert(COOKIE, cookie);
                }
                Ok(request)
            }
            Self::Messages { run, batch, size } => {
                post("/api/messages", run, number, *size, *batch)
            }
            Self::Nowhere { run, size } => post("/nowhere/", run, number, *size, 1),
        }
    }

    /// Whether this is the answer that is wanted.
    fn right(&self, status: u16) -> bool {
        match self {
            Self::Page { .. } => status == 200,
            Self::Messages { .. } => status == 202,
            Self::Nowhere { .. } => status == 404,
        }
    }
}

fn post(
    path: &'static str,
    run: &RunId,
    number: u64,
    size: usize,
    batch: u32,
) -> Result<Request<Full<Bytes>>> {
    let offered = Offered {
        number,
        due_us: 0,
        messages: batch,
        poison: false,
    };
    let mut request = Request::new(Full::new(body(run, offered, size, batch)));
    *request.method_mut() = Method::POST;
    *request.uri_mut() = Uri::from_static(path);
    let headers = request.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(KEY, HeaderValue::try_from(run.key(number))?);
    headers.insert(RUN, HeaderValue::try_from(run.as_str())?);
    Ok(request)
}

/// How many, and when.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pace {
    pub(super) connections: usize,
    /// Requests a second; none: as fast as the connections can.
    pub(super) rate: Option<f64>,
    /// No request begins after it.
    pub(super) length: Duration,
    /// No more requests than these.
    pub(super) total: u64,
    /// What ends before is not counted.
    pub(super) warm: Duration,
}

impl Pace {
    /// As fast as possible, for a time.
    pub(super) fn closed(connections: usize, warm: Duration, length: Duration) -> Self {
        Self {
            connections,
            rate: None,
            length: warm + length,
            total: u64::MAX,
            warm,
        }
    }

    /// As fast as possible, so many.
    pub(super) fn total(connections: usize, total: u64) -> Self {
        Self {
            connections,
            rate: None,
            length: Duration::MAX,
            total,
            warm: Duration::ZERO,
        }
    }

    /// At this rate, for a time.
    pub(super) fn open(connections: usize, rate: f64, length: Duration) -> Self {
        Self {
            connections,
            rate: Some(rate),
            length,
            total: u64::MAX,
            warm: Duration::ZERO,
        }
    }

    /// What ends in this time before is not counted: connections are opened then.
    pub(super) fn after(self, warm: Duration) -> Self {
        Self {
            length: warm + self.length,
            warm,
            ..self
        }
    }

    fn due(&self, number: u64) -> Duration {
        self.rate.map_or(Duration::ZERO, |rate| {
            Duration::from_secs_f64(real(number) / rate)
        })
    }
}

/// What came of it.
#[derive(Debug)]
pub(super) struct Outcome {
    /// Answered as they should be, the warm-up included.
    pub(super) right: u64,
    /// Of those, the ones after the warm-up.
    pub(super) counted: u64,
    /// Anything else.
    pub(super) wrong: u64,
    /// What the first of those was.
    pub(super) why: Option<String>,
    /// From the end of the warm-up to the last answer that counts.
    pub(super) window: Duration,
    /// From when a request was due (or began, where all are due at once) to the end of its answer; microseconds.
    pub(super) times: Histogram<u64>,
}

impl Outcome {
    /// Requests a second.
    pub(super) fn rate(&self) -> f64 {
        real(self.counted) / self.window.as_secs_f64().max(1e-9)
    }

    pub(super) fn latency(&self) -> Option<Latency> {
        Latency::of(&self.times)
    }

    /// Fails unless every answer was the right one.
    pub(super) fn all_right(self) -> Result<Self> {
        ensure!(
            self.wrong == 0,
            "{} of {} requests failed, the first one: {}",
            self.wrong,
            self.wrong + self.right,
            self.why.unwrap_or_default()
        );
        ensure!(
            self.counted > 0,
            "no request was answered after the warm-up"
        );
        Ok(self)
    }
}

/// One connection's part.
struct Part {
    right: u64,
    counted: u64,
    wrong: u64,
    why: Option<String>,
    last: Duration,
    times: Histogram<u64>,
}

/// Sends it all, and waits for all answers.
pub(super) async fn offer(address: SocketAddr, what: &What, pace: Pace) -> Result<Outcome> {
    let (what, next) = (Arc::new(what.clone()), Arc::new(AtomicU64::new(0)));
    let began = Instant::now();
    let mut connections = JoinSet::new();
    for number in 0..pace.connections {
        let (what, next) = (Arc::clone(&what), Arc::clone(&next));
        connections.spawn(connection(address, number, what, pace, next, began));
    }
    let mut outcome = Outcome {
        right: 0,
        counted: 0,
        wrong: 0,
        why: None,
        window: Duration::ZERO,
        times: Histogram::new(3)?,
    };
    while let Some(part) = connections.join_next().await {
        let part = part.context("a connection of the load died")??;
        outcome.right += part.right;
        outcome.counted += part.counted;
        outcome.wrong += part.wrong;
        outcome.why = outcome.why.or(part.why);
        outcome.times.add(&part.times)?;
        outcome.window = outcome.window.max(part.last.saturating_sub(pace.warm));
    }
    Ok(outcome)
}

async fn connection(
    address: SocketAddr,
    place: usize,
    what: Arc<What>,
    pace: Pace,
    next: Arc<AtomicU64>,
    began: Instant,
) -> Result<Part> {
    let mut connection = Connection::to(address)?;
    let mut part = Part {
        right: 0,
        counted: 0,
        wrong: 0,
        why: None,
        last: Duration::ZERO,
        times: Histogram::new(3)?,
    };
    loop {
        let number = next.fetch_add(1, Ordering::Relaxed);
        let due = pace.due(number);
        if number >= pace.total || due.max(began.elapsed()) >= pace.length && pace.rate.is_none() {
            return Ok(part);
        }
        if due >= pace.length {
            return Ok(part);
        }
        let request = what.request(number, place)?;
        let from = if pace.rate.is_some() {
            sleep_until((began + due).into()).await;
            began + due
        } else {
            Instant::now()
        };
        let answer = connection.ask(request).await;
        let (ended, took) = (began.elapsed(), from.elapsed());
        match answer {
            Ok(answer) if what.right(answer.status.as_u16()) => {
                part.right += 1;
                if ended >= pace.warm && (pace.rate.is_some() || ended <= pace.length) {
                    part.counted += 1;
                    part.last = part.last.max(ended);
                    // a histogram that grows by itself takes any value
                    let _ = part
                        .times
                        .record(u64::try_from(took.as_micros()).unwrap_or(u64::MAX));
                }
            }
            Ok(answer) => {
                part.wrong += 1;
                part.why.get_or_insert_with(|| {
                    let body = String::from_utf8_lossy(&answer.body).into_owned();
                    let body: String = body.chars().take(200).collect();
                    format!("{}: {body}", answer.status)
                });
            }
            Err(error) => {
                part.wrong += 1;
                part.why.get_or_insert_with(|| format!("{error:#}"));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;
    use std::sync::Mutex;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    /// Answers each request with this status, after a time; keeps the keys.
    async fn server(
        status: &'static str,
        takes: Duration,
    ) -> (SocketAddr, Arc<Mutex<Vec<String>>>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let keys = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&keys);
        #[expect(clippy::disallowed_methods, reason = "ends with the test's runtime")]
        tokio::spawn(async move {
            let mut all = JoinSet::new();
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                let seen = Arc::clone(&seen);
                all.spawn(async move {
                    let mut request = vec![0; 64 * 1024];
                    loop {
                        let read = stream.read(&mut request).await.unwrap_or(0);
                        if read == 0 {
                            return;
                        }
                        let text = String::from_utf8_lossy(&request[..read]).into_owned();
                        let key = text
                            .lines()
                            .find_map(|l| l.strip_prefix("idempotency-key: "));
                        seen.lock()
                            .unwrap()
                            .push(key.unwrap_or_default().to_owned());
                        tokio::time::sleep(takes).await;
                        let answer = format!("HTTP/1.1 {status}\r\ncontent-length: 0\r\n\r\n");
                        let _ = stream.write_all(answer.as_bytes()).await;
                    }
                });
            }
        });
        (address, keys)
    }

    fn messages() -> What {
        What::Messages {
            run: "r1".parse().unwrap(),
            batch: 1,
            size: 100,
        }
    }

    #[tokio::test]
    async fn a_total_is_sent_once_each() {
        let (address, keys) = server("202 Accepted", Duration::ZERO).await;
        let pace = Pace::total(5, 200);
        let outcome = offer(address, &messages(), pace).await.unwrap();
        let outcome = outcome.all_right().unwrap();
        assert_eq!((outcome.right, outcome.counted), (200, 200));
        let keys = keys.lock().unwrap();
        let distinct: HashSet<&String> = keys.iter().collect();
        assert_eq!((keys.len(), distinct.len()), (200, 200));
    }

    #[tokio::test]
    async fn latency_counts_from_when_a_request_was_due() {
        // one connection that takes 20 ms, asked for 200 a second: each waits for those before
        let (address, _) = server("202 Accepted", Duration::from_millis(20)).await;
        let pace = Pace::open(1, 200.0, Duration::from_millis(100));
        let outcome = offer(address, &messages(), pace).await.unwrap();
        assert_eq!(outcome.counted, 20);
        let latency = outcome.latency().unwrap();
        assert!(latency.max >= 300_000, "{latency:?}");
    }

    #[tokio::test]
    async fn the_warm_up_is_not_counted() {
        let (address, _) = server("202 Accepted", Duration::from_millis(5)).await;
        let (warm, length) = (Duration::from_secs(1), Duration::from_millis(300));
        let pace = Pace::closed(2, warm, length);
        let outcome = offer(address, &messages(), pace).await.unwrap();
        assert!(outcome.counted < outcome.right, "{outcome:?}");
        assert!(outcome.window <= length, "{outcome:?}");
    }

    #[tokio::test]
    async fn another_answer_is_told() {
        let (address, _) = server("503 Service Unavailable", Duration::ZERO).await;
        let outcome = offer(address, &messages(), Pace::total(2, 10)).await;
        let outcome = outcome.unwrap();
        assert_eq!((outcome.right, outcome.wrong), (0, 10));
        let error = outcome.all_right().unwrap_err().to_string();
        assert!(
            error.contains("10 of 10") && error.contains("503"),
            "{error}"
        );
    }
}
