//! tower-sessions' own store in Redis, with an index beside it and without its failures.
//!
//! The layer above answers 500 when saving fails, even after a handler has accepted a message.
//! So saving and creating never fail here: the failure is counted, and [`super::watch_outage`]
//! takes back the cookie.

use async_trait::async_trait;
use daemon::redis::fred::clients::Pool;
use tower_sessions::{
    SessionStore,
    session::{Id, Record},
    session_store::{Error, Result},
};
use tower_sessions_redis_store::RedisStore;

use super::{index, outage, redis::Redis};

/// What fred says when SET answers nil, that is, when XX found no session: it was reset or has
/// ended meanwhile. Not a failure of Redis.
const NIL: &str = "Could not convert to bool";

#[derive(Debug, Clone)]
pub(crate) struct Store {
    inner: RedisStore<Pool>,
    redis: Redis,
}

impl Store {
    pub(super) fn new(redis: Redis) -> Self {
        Self {
            inner: RedisStore::new(redis.pool.clone()),
            redis,
        }
    }

    async fn add_to_index(&self, record: &Record) {
        let ends = record.expiry_date.unix_timestamp();
        // Failing: counted already; one active session is missing from the count.
        let _ = index::add(&self.redis, record.id.to_string(), ends).await;
    }
}

#[async_trait]
impl SessionStore for Store {
    async fn create(&self, record: &mut Record) -> Result<()> {
        match self.redis.ask("create", self.inner.create(record)).await {
            Ok(()) => self.add_to_index(record).await,
            Err(_away) => outage::note_unsaved(),
        }
        Ok(())
    }

    async fn save(&self, record: &Record) -> Result<()> {
        let save = async {
            match self.inner.save(record).await {
                Err(Error::Backend(why)) if why.contains(NIL) => Ok(false),
                saved => saved.map(|()| true),
            }
        };
        match self.redis.ask("save", save).await {
            Ok(true) => self.add_to_index(record).await,
            // The session is gone, and with it what the cookie points to.
            Ok(false) | Err(_) => outage::note_unsaved(),
        }
        Ok(())
    }

    /// A record that cannot be read, by another version of us for example, is none.
    async fn load(&self, id: &Id) -> Result<Option<Record>> {
        let load = async {
            match self.inner.load(id).await {
                Err(Error::Decode(_)) => Ok(None),
                loaded => loaded,
            }
        };
        let loaded = self.redis.ask("load", load).await;
        loaded.map_err(|away| Error::Backend(away.to_string()))
    }

    async fn delete(&self, id: &Id) -> Result<()> {
        let deleted = self.redis.ask("delete", self.inner.delete(id)).await;
        deleted.map_err(|away| Error::Backend(away.to_string()))?;
        // Failing: the entry ends with what would have been the session's end.
        let _ = index::remove(&self.redis, id.to_string()).await;
        Ok(())
    }
}
