//! Sessions in Redis, shared by all services: who has been here lately, and what they sent.
//!
//! Redis may leave at any time, and nothing here then turns into an error, with one exception:
//! a reset that could not be done says so. A page without Redis is a page without a session; what
//! was accepted stays accepted. After one failure the rest of a request asks Redis nothing more.
//!
//! What is kept where:
//! - the session, under its bare random id, by tower-sessions' own store; it expires by itself;
//! - an index of the active ones, a sorted set scored by expiry, so that counting them costs the
//!   same with ten and with a million. It follows the sessions, without a transaction: between the
//!   two writes a count may be wrong by one, until the entry expires;
//! - the numbers of a session's messages, a set under the session's public reference; it is not part
//!   of the session, so that two posts at once are counted as two, and one post twice as one.
//!
//! The id is a secret: it is in the cookie and in Redis, and in no log.

mod index;
mod outage;
mod redis;
mod store;
mod visit;

use std::time::Duration;

use daemon::{parts::Part, redis::fred::clients::Pool};
use tokio_util::sync::CancellationToken;
use tower_sessions::{Expiry, SessionManagerLayer, cookie::SameSite};

pub(crate) use outage::watch_outage;
pub use visit::{Figures, Visit};

use self::{redis::Redis, store::Store};

/// The name of the cookie.
pub const COOKIE: &str = "unacked_session";

/// The settings of sessions.
#[derive(Debug, Clone, clap::Args)]
pub struct SessionArgs {
    /// Seconds after which an unused session ends
    #[arg(long, env = "SESSION_TTL_SECS", default_value_t = 1800,
          value_parser = clap::value_parser!(u32).range(1..=31_536_000))]
    pub session_ttl_secs: u32,
    /// Whether cookies travel over HTTPS only: the session's, and the one of an account
    #[arg(long, env = "SESSION_SECURE", default_value_t = false, action = clap::ArgAction::Set)]
    pub session_secure: bool,
}

/// The sessions of this process. Clones share everything.
#[derive(Debug, Clone)]
pub struct Sessions {
    redis: Redis,
    ttl: Duration,
    secure: bool,
}

impl Sessions {
    /// `part` is what is known about Redis.
    pub fn new(pool: Pool, part: Part, args: &SessionArgs) -> Self {
        Self {
            redis: Redis::new(pool, part, "unacked:"),
            ttl: Duration::from_secs(args.session_ttl_secs.into()),
            secure: args.session_secure,
        }
    }

    /// With another beginning of the names of our keys than `unacked:`.
    #[must_use]
    pub fn with_prefix(mut self, prefix: &str) -> Self {
        self.redis.prefix = prefix.into();
        self
    }

    /// Whether a session can be had at all just now.
    pub fn reachable(&self) -> bool {
        self.redis.reachable()
    }

    /// Takes ended sessions out of the index, until `stop`.
    pub async fn keep_index(self, stop: CancellationToken) -> anyhow::Result<()> {
        stop.run_until_cancelled(Box::pin(index::prune_forever(&self.redis)))
            .await;
        Ok(())
    }

    pub(crate) fn layer(&self) -> SessionManagerLayer<Store> {
        let ttl = time::Duration::seconds(i64::try_from(self.ttl.as_secs()).unwrap_or(i64::MAX));
        SessionManagerLayer::new(Store::new(self.redis.clone()))
            .with_name(COOKIE)
            .with_http_only(true)
            .with_same_site(SameSite::Lax)
            .with_secure(self.secure)
            .with_expiry(Expiry::OnInactivity(ttl))
    }

    /// A session that is only read is kept alive too, but not written at each request.
    fn touch_after(&self) -> chrono::TimeDelta {
        let after = (self.ttl / 4).min(Duration::from_mins(1));
        chrono::TimeDelta::from_std(after).unwrap_or(chrono::TimeDelta::MAX)
    }
}
