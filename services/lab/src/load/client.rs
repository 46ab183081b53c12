//! One client of the gateway: sends a request until it has an answer or no more patience, always with the same key.
//!
//! What a client may conclude from an answer is decided in one place, [`Said::of`]. An answer counts as a refusal only
//! when it proves that nothing was stored. Whoever is not sure says unknown: a wrong "refused" would be a false verdict.

use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::header::{ACCEPT, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use hyper::{Method, Request, Response, StatusCode, Uri, body::Incoming};
use hyper_util::client::legacy::{Client as Http, connect::HttpConnector};
use hyper_util::rt::TokioExecutor;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::sync::mpsc::UnboundedSender;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};
use uuid::Uuid;

use super::Plan;
use super::body::request;
use crate::run::requests::{Answer, Offered};
use crate::run::{Job, RunId};
use crate::say::Usage;

/// One try. Above what the gateway waits for a node that hangs, so that it can ask another one.
const TRY_LIMIT: Duration = Duration::from_secs(20);
const CONNECT_LIMIT: Duration = Duration::from_secs(5);
/// Below the time after which the gateway closes a connection that nobody uses.
const IDLE_LIMIT: Duration = Duration::from_secs(50);
const PAUSE_MIN: Duration = Duration::from_millis(50);
const PAUSE_MAX: Duration = Duration::from_secs(2);
const ANSWER_MAX: usize = 64 * 1024;

const KEY: HeaderName = HeaderName::from_static("idempotency-key");
const RUN: HeaderName = HeaderName::from_static("x-run");
/// The statuses of all nodes that the gateway asked, one after the other, where it tells.
const UPSTREAM: HeaderName = HeaderName::from_static("x-upstream-status");

/// What one try told the client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Said {
    pub(super) answer: Answer,
    /// Another try may tell more.
    pub(super) again: bool,
}

impl Said {
    /// Nothing came, or not in time.
    pub(super) const NOTHING: Self = Self {
        answer: Answer::Unknown,
        again: true,
    };

    /// From the status, the problem's code, and how many nodes the gateway asked.
    pub(super) fn of(to: Job, status: StatusCode, code: Option<&str>, asked: usize) -> Self {
        let nothing_stored = matches!(code, Some("database_away" | "outbox_full"));
        let answer = match status.as_u16() {
            200..=299 => Answer::Accepted,
            // nobody else makes accounts for these addresses, so the account is there: by an earlier try whose answer was lost
            409 if to == Job::Signup => Answer::Unknown,
            400..=499 => Answer::Refused,
            // of several nodes only the last one's word arrives here: an earlier one may have stored it
            503 if nothing_stored && asked <= 1 => Answer::Refused,
            _ => Answer::Unknown,
        };
        let again = status == StatusCode::TOO_MANY_REQUESTS || status.is_server_error();
        Self { answer, again }
    }
}

/// How a request ended.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ended {
    pub(super) offered: Offered,
    /// As what it was accepted, where that is put on record.
    pub(super) id: Option<Uuid>,
    pub(super) answer: Answer,
    pub(super) tries: u32,
    pub(super) at: std::time::Instant,
}

/// How much longer the load waits for answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Stage {
    /// As long as it takes.
    Go,
    /// What is on its way may arrive; nothing is sent again.
    Finish,
    /// No longer.
    Cut,
}

/// Sends requests. Clones nothing but counters per request.
pub(super) struct Client {
    http: Http<HttpConnector, Full<Bytes>>,
    to: Job,
    /// The id that a yes tells is needed; who else wants to hear it.
    names: bool,
    heard: Option<UnboundedSender<Uuid>>,
    uri: Uri,
    headers: HeaderMap,
    run: RunId,
    size: usize,
    batch: u32,
    patience: Duration,
    stage: watch::Receiver<Stage>,
}

impl Client {
    pub(super) fn new(
        gateway: &str,
        run: RunId,
        plan: &Plan,
        stage: watch::Receiver<Stage>,
        heard: Option<UnboundedSender<Uuid>>,
    ) -> Result<Self, Usage> {
        let wrong = || {
            Usage(format!(
                "{gateway:?} is no gateway: right is http://HOST:PORT"
            ))
        };
        let uri: Uri = format!("{gateway}{}", plan.to.path(&run))
            .parse()
            .map_err(|_| wrong())?;
        let name = HeaderValue::try_from(run.as_str()).map_err(|_| wrong())?;
        let json = HeaderValue::from_static("application/json");
        let mut connector = HttpConnector::new();
        connector.set_nodelay(true);
        connector.set_connect_timeout(Some(CONNECT_LIMIT));
        let http = Http::builder(TokioExecutor::new())
            .pool_max_idle_per_host(plan.connections)
            .pool_idle_timeout(IDLE_LIMIT)
            .build(connector);
        Ok(Self {
            http,
            to: plan.to,
            names: heard.is_some() || matches!(plan.to, Job::Leases | Job::Signup),
            heard,
            uri,
            headers: HeaderMap::from_iter([
                (ACCEPT, json.clone()),
                (CONTENT_TYPE, json),
                (RUN, name),
            ]),
            run,
            size: plan.size,
            batch: plan.batch,
            patience: plan.patience,
            stage,
        })
    }

    /// Sees one request to its end. Patience counts from the first try.
    pub(super) async fn deliver(&self, offered: Offered) -> Ended {
        let key = self.run.key(offered.number);
        let body = request(self.to, &self.run, offered, self.size, self.batch);
        let (mut tries, mut named) = (Tries::default(), None);
        let end = Instant::now() + self.patience;
        while let Ok(key) = HeaderValue::try_from(&key) {
            let limit = TRY_LIMIT.min(end.saturating_duration_since(Instant::now()));
            let (said, id) = tokio::select! {
                said = self.once(key, body.clone(), limit) => said,
                () = self.reaches(Stage::Cut) => (Said::NOTHING, None),
            };
            named = named.or(id);
            tries.add(said.answer);
            let pause = pause(tries.count, rand::random());
            if !said.again || Instant::now() + pause >= end {
                break;
            }
            let stopped = tokio::select! {
                () = sleep(pause) => false,
                () = self.reaches(Stage::Finish) => true,
            };
            if stopped {
                break;
            }
        }
        if let (Some(heard), Some(id)) = (&self.heard, named) {
            // whoever listened may be gone: then nobody needs it
            let _ = heard.send(id);
        }
        Ended {
            offered,
            id: named.filter(|_| self.to != Job::Notes),
            answer: tries.answer(),
            tries: tries.count,
            at: std::time::Instant::now(),
        }
    }

    async fn reaches(&self, stage: Stage) {
        let mut stages = self.stage.clone();
        // a load that is gone waits for nothing
        let _ = stages.wait_for(|now| *now >= stage).await;
    }

    async fn once(&self, key: HeaderValue, body: Bytes, limit: Duration) -> (Said, Option<Uuid>) {
        let end = Instant::now() + limit;
        let mut request = Request::new(Full::new(body));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = self.uri.clone();
        *request.headers_mut() = self.headers.clone();
        request.headers_mut().insert(KEY, key);
        let Ok(Ok(response)) = timeout(limit, self.http.request(request)).await else {
            return (Said::NOTHING, None);
        };
        let mut id = None;
        let (status, asked) = (response.status(), asked(response.headers()));
        let rest = end.saturating_duration_since(Instant::now());
        let code = if status == StatusCode::SERVICE_UNAVAILABLE {
            timeout(rest, code_of(response)).await.ok().flatten()
        } else if self.names && status.is_success() {
            let told = timeout(rest, json_of(response)).await.ok().flatten();
            id = told.and_then(|body: Value| id_in(&body));
            if id.is_none() {
                // a yes that cannot be read is as good as none: the next try brings it again, by the same key, or, where
                // there are no keys, the word that it is there
                return (Said::NOTHING, None);
            }
            None
        } else {
            // only a body that was read to its end gives the connection back; the answer itself is here already
            let _ = timeout(rest, drain(response)).await;
            None
        };
        (Said::of(self.to, status, code.as_deref(), asked), id)
    }
}

/// As what something was accepted: each service has its own word for it.
fn id_in(body: &Value) -> Option<Uuid> {
    let mut words = ["messageID", "messageId", "id"].into_iter();
    words.find_map(|word| body[word].as_str()?.parse().ok())
}

/// How many nodes the gateway asked; 1 where it does not tell.
fn asked(headers: &HeaderMap) -> usize {
    let told = headers.get(UPSTREAM).and_then(|told| told.to_str().ok());
    told.map_or(1, |told| told.split([',', ':']).count())
}

async fn drain(response: Response<Incoming>) {
    let mut body = response.into_body();
    while let Some(Ok(_)) = body.frame().await {}
}

/// The code of a problem: the end of its type.
async fn code_of(response: Response<Incoming>) -> Option<String> {
    #[derive(Deserialize)]
    struct Problem {
        r#type: String,
    }
    let problem: Problem = json_of(response).await?;
    Some(
        problem
            .r#type
            .strip_prefix("urn:unacked:problem:")?
            .to_owned(),
    )
}

async fn json_of<T: DeserializeOwned>(response: Response<Incoming>) -> Option<T> {
    let body = Limited::new(response.into_body(), ANSWER_MAX);
    let body = body.collect().await.ok()?;
    serde_json::from_slice(&body.to_bytes()).ok()
}

/// What the tries of one request come to.
#[derive(Debug, Default)]
pub(super) struct Tries {
    count: u32,
    accepted: bool,
    unknown: bool,
}

impl Tries {
    pub(super) fn add(&mut self, answer: Answer) {
        self.count += 1;
        self.accepted |= answer == Answer::Accepted;
        self.unknown |= answer == Answer::Unknown;
    }

    /// Accepted if any try was; refused only if every one was.
    pub(super) fn answer(&self) -> Answer {
        match self {
            Self { accepted: true, .. } => Answer::Accepted,
            Self { unknown: true, .. } => Answer::Unknown,
            _ => Answer::Refused,
        }
    }
}

/// The pause after this many tries: doubled each time, and half of it by chance (0 to 1).
fn pause(tries: u32, chance: f64) -> Duration {
    let full = PAUSE_MIN
        .saturating_mul(1 << tries.saturating_sub(1).min(10))
        .min(PAUSE_MAX);
    full.mul_f64(0.5 + chance / 2.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_a_refusal_only_when_nothing_can_be_stored() {
        use Answer::{Accepted, Refused, Unknown};
        for (status, code, asked, answer, again) in [
            (202, None, 1, Accepted, false),
            (200, None, 2, Accepted, false),
            (400, None, 1, Refused, false),
            (422, Some("key_reused"), 1, Refused, false),
            (429, None, 1, Refused, true),
            (500, None, 1, Unknown, true),
            (502, None, 1, Unknown, true),
            (503, None, 1, Unknown, true),
            (503, Some("outcome_unknown"), 1, Unknown, true),
            (503, Some("database_away"), 1, Refused, true),
            (503, Some("outbox_full"), 1, Refused, true),
            (503, Some("database_away"), 2, Unknown, true),
            (500, Some("database_away"), 1, Unknown, true),
            (504, None, 1, Unknown, true),
            (301, None, 1, Unknown, false),
        ] {
            let status = StatusCode::from_u16(status).unwrap();
            let said = Said::of(Job::Messages, status, code, asked);
            assert_eq!(said, Said { answer, again }, "{status} {code:?} {asked}");
        }
        // an account that is there is no account that was refused
        for (to, answer) in [(Job::Signup, Unknown), (Job::Notes, Refused)] {
            let said = Said::of(to, StatusCode::CONFLICT, None, 1);
            let again = false;
            assert_eq!(said, Said { answer, again }, "{to}");
        }
        assert_eq!(Said::NOTHING.answer, Unknown);
    }

    #[test]
    fn one_yes_is_a_yes_and_only_nos_are_a_no() {
        use Answer::{Accepted, Refused, Unknown};
        for (tries, answer) in [
            (&[Accepted][..], Accepted),
            (&[Unknown, Refused, Accepted], Accepted),
            (&[Refused, Refused], Refused),
            (&[Refused, Unknown], Unknown),
            (&[Unknown, Refused], Unknown),
            (&[], Refused),
        ] {
            let mut all = Tries::default();
            for answer in tries {
                all.add(*answer);
            }
            assert_eq!(all.answer(), answer, "{tries:?}");
        }
    }

    #[test]
    fn the_gateway_tells_how_many_it_asked() {
        let with = |told: &'static str| {
            asked(&HeaderMap::from_iter([(
                UPSTREAM,
                HeaderValue::from_static(told),
            )]))
        };
        assert_eq!(asked(&HeaderMap::new()), 1);
        assert_eq!(
            (with("503"), with("503, 202"), with("502 : 503")),
            (1, 2, 2)
        );
    }

    #[test]
    fn pauses_grow_to_a_limit_and_are_spread() {
        assert_eq!(pause(1, 1.0), PAUSE_MIN);
        assert_eq!(pause(1, 0.0), PAUSE_MIN / 2);
        assert_eq!(pause(2, 1.0), PAUSE_MIN * 2);
        assert_eq!(pause(u32::MAX, 1.0), PAUSE_MAX);
    }
}
