//! Copies of what is read often, in Redis: never needed, and never trusted for long.
//!
//! Whoever wants to keep a copy first gets a [`Mark`], and reads the database after that. The mark holds two things of that
//! moment. The time, by the clock of Redis: a copy is as old as its mark, not as its writing, and one older than the time to
//! live is nothing, however late it was written and whatever the nodes' own clocks say. And the number of changes so far, which
//! the copy carries: it is worth something only while that is still their number. A worker that has committed adds one to it,
//! so all copies that were there are worth nothing at once; and so is the copy that somebody writes only now of what was read
//! before that commit. It may take the place of a fresher one, and then costs a reading.
//!
//! There is one copy of a page, however many changes there are, and none of more than 256 KiB: Redis also holds what must not
//! be pushed out of it.
//!
//! If the change cannot be told (Redis is away, the worker dies before the line that tells it), copies stay worth something, and
//! are wrong until they are too old. With [`Trust::Truth`] they are never too old: that is the unsafe alternative.
//!
//! Nobody waits for Redis longer than a tenth of a second. After a failure it is not asked for a while, and the answer comes from the
//! database alone: slower, and as right.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use clap::{Args, ValueEnum};
use daemon::redis::{
    fred::{
        clients::{Client, Pool},
        error::Error,
        interfaces::{ClientLike, KeysInterface},
        types::{ClusterHash, CustomCommand, Expiration},
    },
    why,
};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use tokio::time::{Instant, timeout};
use tracing::{debug, warn};

/// How long Redis may take.
const LIMIT: Duration = Duration::from_millis(100);
/// How long it is not asked after it failed.
const REST: Duration = Duration::from_secs(1);
/// The most bytes that a copy may have.
const LARGEST: usize = 256 * 1024;

/// The settings of it.
#[derive(Debug, Clone, Args)]
pub struct CacheArgs {
    /// What a copy in the cache is worth: it expires, or it is taken for the truth until a worker says that it is not, for
    /// ever if that is lost (unsafe)
    #[arg(long, env = "NOTES_CACHE", value_enum, default_value = "expiring")]
    pub notes_cache: Trust,
    /// How old a copy may be, in milliseconds, unless it is taken for the truth
    #[arg(long, env = "NOTES_CACHE_MS", default_value_t = 10_000, value_parser = clap::value_parser!(u64).range(100..=3_600_000))]
    pub notes_cache_ms: u64,
}

/// What a copy is worth.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Trust {
    /// Nothing, when it is older than the time to live.
    Expiring,
    /// Everything, however old it is.
    Truth,
}

impl CacheArgs {
    /// What is unsafe about these settings, if anything is: a name, and what may happen.
    pub(crate) fn warning(&self) -> Option<(&'static str, &'static str)> {
        let warning = (
            "cache-expiry",
            "What is shown is taken from the cache however old it is. If the cache does not hear of a change, it is wrong until the next one.",
        );
        (self.notes_cache == Trust::Truth).then_some(warning)
    }

    fn time_to_live(&self) -> Option<Duration> {
        match self.notes_cache {
            Trust::Expiring => Some(Duration::from_millis(self.notes_cache_ms)),
            Trust::Truth => None,
        }
    }
}

/// The cache. Clones share it.
#[derive(Clone)]
pub struct Cache(Arc<Inner>);

struct Inner {
    link: Link,
    time_to_live: Option<Duration>,
}

/// The moment before something was read from the database.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mark {
    changes: i64,
    /// Microseconds, by the clock of Redis.
    at: i64,
}

/// What the cache says.
#[derive(Debug)]
pub enum Said<T> {
    /// It has a copy, of this age.
    Hit(T, Duration),
    /// It has none; one may be made, of what is read from now on.
    Miss(Mark),
    /// It says nothing.
    Off,
}

/// As it is stored.
#[derive(Serialize, Deserialize)]
struct Copy<T> {
    mark: Mark,
    of: T,
}

impl Cache {
    /// With the names of all keys beginning so.
    pub fn new(redis: Pool, prefix: &str, args: &CacheArgs) -> Self {
        Self(Arc::new(Inner {
            link: Link::new(redis, prefix),
            time_to_live: args.time_to_live(),
        }))
    }

    /// How old a copy may be, if that matters.
    pub fn time_to_live(&self) -> Option<Duration> {
        self.0.time_to_live
    }

    /// Asks for the copy of this name.
    pub async fn look<T: DeserializeOwned>(&self, name: &str) -> Said<T> {
        let looked = self.0.link.ask(|redis| self.0.look(redis, name)).await;
        let Some((mark, found)) = looked else {
            return Said::Off;
        };
        let copy = found.and_then(|bytes| serde_json::from_slice::<Copy<T>>(&bytes).ok());
        match copy.and_then(|copy| Some((self.0.age(&copy, mark)?, copy))) {
            Some((age, copy)) => Said::Hit(copy.of, age),
            None => Said::Miss(mark),
        }
    }

    /// Keeps a copy of what was read after this mark was had, unless it is large.
    pub async fn keep<T: Serialize>(&self, name: &str, mark: Mark, of: &T) {
        let copy = serde_json::to_vec(&Copy { mark, of }).ok();
        let Some(copy) = copy.filter(|copy| copy.len() <= LARGEST) else {
            return;
        };
        let key = self.0.link.copy(name);
        let expiry = self
            .0
            .time_to_live
            .map(|time| Expiration::PX(i64::try_from(time.as_millis()).unwrap_or(i64::MAX)));
        let keep = |redis: Client| async move {
            redis
                .set::<(), _, _>(key, copy.as_slice(), expiry, None, false)
                .await
        };
        self.0.link.ask(keep).await;
    }
}

impl Inner {
    /// The mark of this moment, and what is stored under the name.
    async fn look(&self, redis: Client, name: &str) -> Result<(Mark, Option<Vec<u8>>), Error> {
        let pipeline = redis.pipeline();
        let _: () = pipeline.get(self.link.changes()).await?;
        let _: () = pipeline.get(self.link.copy(name)).await?;
        let time = CustomCommand::new("TIME", ClusterHash::FirstKey, false);
        let _: () = pipeline.custom(time, Vec::<String>::new()).await?;
        let (changes, found, time): (Option<i64>, Option<Vec<u8>>, Vec<i64>) =
            pipeline.all().await?;
        let changes = changes.unwrap_or(0);
        let at = match time[..] {
            [seconds, micros] => seconds * 1_000_000 + micros,
            _ => 0,
        };
        Ok((Mark { changes, at }, found))
    }

    /// How old a copy is, if it is worth anything. One from the future is of another clock.
    fn age<T>(&self, copy: &Copy<T>, now: Mark) -> Option<Duration> {
        if copy.mark.changes != now.changes {
            return None;
        }
        let age = u64::try_from(now.at - copy.mark.at).map(Duration::from_micros);
        match self.time_to_live {
            Some(limit) => age.ok().filter(|age| *age < limit),
            None => Some(age.unwrap_or_default()),
        }
    }
}

/// Who tells the cache of changes.
pub struct Changes(Link);

impl Changes {
    /// With the names of all keys beginning so.
    pub fn new(redis: Pool, prefix: &str) -> Self {
        Self(Link::new(redis, prefix))
    }

    /// Something is committed: every copy of before is worth nothing after this. False if that could not be told; nobody says
    /// it again.
    pub async fn tell(&self) -> bool {
        let key = self.0.changes();
        let add = |redis: Client| async move { redis.incr::<i64, _>(key).await };
        self.0.ask(add).await.is_some()
    }
}

/// Redis, asked only while it is worth it.
struct Link {
    redis: Pool,
    prefix: String,
    resting: Mutex<Option<Instant>>,
}

impl Link {
    fn new(redis: Pool, prefix: &str) -> Self {
        Self {
            redis,
            prefix: format!("{prefix}notes:"),
            resting: Mutex::new(None),
        }
    }

    /// How many changes were told.
    fn changes(&self) -> String {
        format!("{}changes", self.prefix)
    }

    /// The copy of this name.
    fn copy(&self, name: &str) -> String {
        format!("{}copy:{name}", self.prefix)
    }

    /// What Redis answers, if it does so in time.
    async fn ask<T, F>(&self, ask: impl FnOnce(Client) -> F) -> Option<T>
    where
        F: Future<Output = Result<T, Error>>,
    {
        let client = self.redis.next_connected();
        if self.rests() || !client.is_connected() {
            return None;
        }
        let why = match timeout(LIMIT, ask(client.clone())).await {
            Ok(Ok(answer)) => return Some(answer),
            Ok(Err(error)) => why(&error),
            Err(_elapsed) => "no answer in time".to_owned(),
        };
        if self.rest() {
            warn!(why, "the cache is off for a while");
        } else {
            debug!(why, "the cache is off");
        }
        None
    }

    fn rests(&self) -> bool {
        let until = *self.resting.lock().unwrap_or_else(PoisonError::into_inner);
        until.is_some_and(|until| Instant::now() < until)
    }

    /// True for the first of those that failed together.
    fn rest(&self) -> bool {
        let mut resting = self.resting.lock().unwrap_or_else(PoisonError::into_inner);
        let first = !resting.is_some_and(|until| Instant::now() < until);
        *resting = Some(Instant::now() + REST);
        first
    }
}

#[cfg(test)]
mod tests {
    use daemon::redis::RedisArgs;

    use super::*;

    fn cache(trust: Trust) -> Inner {
        let redis = RedisArgs {
            redis_url: "redis://127.0.0.1:1".to_owned(),
            redis_prefix: "test:".to_owned(),
        };
        let args = CacheArgs {
            notes_cache: trust,
            notes_cache_ms: 10,
        };
        let redis = daemon::redis::connect(&redis).unwrap();
        Arc::into_inner(Cache::new(redis, "test:", &args).0).unwrap()
    }

    fn age(cache: &Inner, at: i64, now: i64) -> Option<u128> {
        let mark = |at| Mark { changes: 7, at };
        let (mark, now) = (mark(at), mark(now));
        let age = cache.age(&Copy { mark, of: () }, now);
        age.map(|age| age.as_micros())
    }

    #[tokio::test]
    async fn a_copy_is_as_old_as_its_mark_and_worth_nothing_when_too_old() {
        let cache = cache(Trust::Expiring);
        assert_eq!(age(&cache, 1_000, 1_000), Some(0));
        assert_eq!(age(&cache, 1_000, 10_999), Some(9_999));
        assert_eq!(age(&cache, 1_000, 11_000), None);
        assert_eq!(age(&cache, 1_001, 1_000), None, "of another clock");
    }

    #[tokio::test]
    async fn what_is_taken_for_the_truth_has_any_age() {
        let cache = cache(Trust::Truth);
        assert_eq!(
            age(&cache, 0, i64::MAX),
            Some(i64::MAX.unsigned_abs().into())
        );
        assert_eq!(age(&cache, 1, 0), Some(0));
    }

    #[tokio::test]
    async fn a_copy_of_another_number_of_changes_is_worth_nothing() {
        for trust in [Trust::Expiring, Trust::Truth] {
            let cache = cache(trust);
            let now = Mark { changes: 7, at: 0 };
            for (changes, worth) in [(6, None), (7, Some(Duration::ZERO)), (8, None)] {
                let mark = Mark { changes, at: 0 };
                let copy = Copy { mark, of: () };
                assert_eq!(cache.age(&copy, now), worth, "{trust:?}, {changes}");
            }
        }
    }

    #[tokio::test]
    async fn without_redis_it_says_nothing_at_once() {
        let cache = Cache(Arc::new(cache(Trust::Expiring)));
        let began = Instant::now();
        assert!(matches!(cache.look::<()>("a").await, Said::Off));
        assert!(began.elapsed() < 2 * LIMIT, "{:?}", began.elapsed());
    }
}
