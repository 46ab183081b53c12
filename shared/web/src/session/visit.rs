//! Who sent a request: an extractor, and all that is known about them.

use std::convert::Infallible;

use axum::{extract::FromRequestParts, http::request::Parts};
use chrono::{DateTime, Utc};
use daemon::{
    clock,
    redis::fred::interfaces::{
        KeysInterface, SetsInterface, SortedSetsInterface, TransactionInterface,
    },
};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::Value;
use tower_sessions::Session;
use uuid::Uuid;

use super::{Sessions, index, redis::Away};
use crate::{error::Error, origin, site::Site};

/// The one key of a session.
const KEY: &str = "visitor";

/// All that a session holds.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Visitor {
    /// Names the session where its id must not be seen: in the database, in counters.
    reference: Uuid,
    /// What a form of ours proves to be ours with.
    csrf: String,
    /// That of the session before the reset, for the second click of a double click.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    earlier_csrf: Option<String>,
    started_at: DateTime<Utc>,
    seen_at: DateTime<Utc>,
    /// Something to say once, on the next page.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    flash: Option<Value>,
}

impl Visitor {
    fn new(now: DateTime<Utc>) -> Self {
        Self {
            reference: Uuid::new_v4(),
            csrf: Uuid::new_v4().simple().to_string(),
            earlier_csrf: None,
            started_at: now,
            seen_at: now,
            flash: None,
        }
    }
}

/// The session of a request. Extracting it never fails, and starts none.
#[derive(Debug)]
pub struct Visit {
    sessions: Sessions,
    session: Option<Session>,
    visitor: Option<Visitor>,
    /// Whether its end was put off in this request.
    touched: bool,
}

/// What the pages show about sessions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Figures {
    /// Messages that this session has sent.
    pub sent: i64,
    /// Sessions that have not ended.
    pub active: i64,
}

impl<S: Send + Sync> FromRequestParts<S> for Visit {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Infallible> {
        let Ok(site) = Site::from_request_parts(parts, state).await;
        let session = Session::from_request_parts(parts, state).await.ok();
        let mut visit = Self {
            sessions: site.sessions.clone(),
            session,
            visitor: None,
            touched: false,
        };
        visit.load().await;
        Ok(visit)
    }
}

impl Visit {
    async fn load(&mut self) {
        // Not asked of the session where it is known to be away: it logs each time.
        if !self.sessions.reachable() {
            self.session = None;
        }
        // Without a cookie there is nothing to ask Redis for.
        let with_id = |session: &&Session| session.id().is_some();
        let Some(session) = self.session.as_ref().filter(with_id) else {
            return;
        };
        match session.get_value(KEY).await {
            Ok(Some(value)) => self.visitor = serde_json::from_value(value).ok(),
            Ok(None) => {}
            // Away; without it there is no session in this request.
            Err(_) => self.session = None,
        }
        let now = clock::now();
        let after = self.sessions.touch_after();
        if let Some(visitor) = self.visitor.as_mut().filter(|v| now - v.seen_at >= after) {
            visitor.seen_at = now;
            self.touched = true;
            self.store().await;
        }
    }

    /// Starts a session, where there is none and one can be had.
    pub async fn start(&mut self) {
        if self.visitor.is_none() && self.session.is_some() && self.sessions.reachable() {
            self.visitor = Some(Visitor::new(clock::now()));
            self.store().await;
        }
    }

    /// Whether there is a session.
    pub fn is_known(&self) -> bool {
        self.visitor.is_some()
    }

    /// What the database may know of the session.
    pub fn reference(&self) -> Option<Uuid> {
        self.visitor.as_ref().map(|visitor| visitor.reference)
    }

    /// What a form must bring along to be believed to be ours.
    pub fn csrf(&self) -> Option<&str> {
        self.visitor.as_ref().map(|visitor| visitor.csrf.as_str())
    }

    /// Whether a form has brought along the right proof.
    pub fn proves(&self, csrf: &str) -> bool {
        self.visitor.as_ref().is_some_and(|visitor| {
            let right = [Some(&visitor.csrf), visitor.earlier_csrf.as_ref()];
            right
                .into_iter()
                .flatten()
                .any(|right| origin::equal(right, csrf))
        })
    }

    /// Says something once, on the next page of this session. False without a session.
    pub async fn flash(&mut self, flash: &impl Serialize) -> bool {
        let Some(visitor) = &mut self.visitor else {
            return false;
        };
        visitor.flash = serde_json::to_value(flash).ok();
        self.store().await;
        true
    }

    /// What the page before wanted to be said.
    pub async fn take_flash<T: DeserializeOwned>(&mut self) -> Option<T> {
        let flash = self.visitor.as_mut()?.flash.take()?;
        self.store().await;
        serde_json::from_value(flash).ok()
    }

    /// Counts a message that this session has sent, by its number: counting it again changes
    /// nothing. A browser that gives up waiting ends its request anywhere, also between storing and
    /// counting; the repetition then counts.
    pub async fn count_sent(&self, number: i64) {
        let Some(reference) = self.reference() else {
            return;
        };
        let redis = &self.sessions.redis;
        let key = redis.sent(reference);
        let count = async {
            // Together, so that nothing is ever without an expiry, wherever the link breaks.
            let both = redis.client().multi();
            both.sadd::<(), _, _>(&key, number).await?;
            both.expire::<(), _>(&key, self.counter_ttl(), None).await?;
            both.exec::<()>(true).await
        };
        // Failing: counted already, and the message is accepted all the same.
        let _ = redis.ask("count", count).await;
    }

    /// What pages show; none while Redis is away.
    pub async fn figures(&self) -> Option<Figures> {
        self.ask_figures().await.ok()
    }

    async fn ask_figures(&self) -> Result<Figures, Away> {
        let redis = &self.sessions.redis;
        let figures = async {
            let pipeline = redis.client().pipeline();
            let living = index::living();
            pipeline
                .zcount::<(), _>(redis.index(), *living.start(), *living.end())
                .await?;
            if let Some(reference) = self.reference() {
                let key = redis.sent(reference);
                pipeline.scard::<(), _>(&key).await?;
                if self.touched {
                    pipeline
                        .expire::<(), _>(&key, self.counter_ttl(), None)
                        .await?;
                }
            }
            pipeline.all::<Vec<i64>>().await
        };
        let figures = redis.ask("figures", figures).await?;
        let at = |index: usize| figures.get(index).copied().unwrap_or(0);
        Ok(Figures {
            active: at(0),
            sent: at(1),
        })
    }

    /// Ends this session and begins another, under a new id.
    pub async fn reset(&mut self) -> Result<(), Error> {
        let Some(session) = self.session.clone() else {
            return Err(no_reset());
        };
        session.cycle_id().await.map_err(|_| no_reset())?;
        let old = self.visitor.replace(Visitor::new(clock::now()));
        if let (Some(new), Some(old)) = (&mut self.visitor, old) {
            new.earlier_csrf = Some(old.csrf);
            let redis = &self.sessions.redis;
            let forget = redis.pool.del::<(), _>(redis.sent(old.reference));
            // Failing: it expires by itself.
            let _ = redis.ask("reset", forget).await;
        }
        self.store().await;
        Ok(())
    }

    /// In seconds. What is counted outlives the session, whose end is put off first.
    fn counter_ttl(&self) -> i64 {
        i64::try_from(self.sessions.ttl.as_secs() * 2).unwrap_or(i64::MAX)
    }

    /// Into the session of this request; the layer stores it at the end.
    async fn store(&self) {
        if let Some(session) = &self.session
            && let Err(error) = session.insert(KEY, &self.visitor).await
        {
            tracing::error!(%error, "a session cannot be put into words");
        }
    }
}

fn no_reset() -> Error {
    Error::away(
        "Sessions are away, so yours cannot be reset just now. Please try again in a moment.",
    )
}
