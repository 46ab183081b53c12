//! Redis, asked only while it is worth it.

use std::{fmt, sync::Arc, time::Duration};

use chrono::TimeDelta;
use daemon::{
    clock,
    parts::{Kind, Part},
    redis::fred::{
        clients::{Client, Pool},
        interfaces::ClientLike,
    },
};
use tokio::time::timeout;

use super::outage;
use crate::numbers::session_failure;

/// Longer than a command may take; only in case a client does not keep to that.
const LIMIT: Duration = Duration::from_secs(1);
const BELIEVED_AFTER: TimeDelta = TimeDelta::seconds(2);

/// Redis could not be asked, or has not answered.
#[derive(Debug, Clone, Copy, thiserror::Error)]
#[error("Redis is away")]
pub(super) struct Away;

#[derive(Clone)]
pub(super) struct Redis {
    pub(super) pool: Pool,
    part: Part,
    pub(super) prefix: Arc<str>,
}

impl Redis {
    pub(super) fn new(pool: Pool, part: Part, prefix: &str) -> Self {
        Self {
            pool,
            part,
            prefix: prefix.into(),
        }
    }

    /// The sorted set of active sessions.
    pub(super) fn index(&self) -> String {
        format!("{}sessions", self.prefix)
    }

    /// The numbers of a session's messages.
    pub(super) fn sent(&self, reference: uuid::Uuid) -> String {
        format!("{}sent:{reference}", self.prefix)
    }

    /// False as soon as a client says so, or the monitor of a Redis that hangs, or this request has
    /// found out itself.
    pub(super) fn reachable(&self) -> bool {
        !outage::is_away() && self.client().is_connected() && !self.hangs()
    }

    /// The monitor looks once a second, so what it says at first may be older than the connection.
    fn hangs(&self) -> bool {
        let state = self.part.state();
        state.kind == Kind::Away && clock::now() - state.since > BELIEVED_AFTER
    }

    /// A client that is connected, if there is one.
    pub(super) fn client(&self) -> &Client {
        self.pool.next_connected()
    }

    /// Runs a command. A failure is counted and logged here, and nowhere else.
    pub(super) async fn ask<T, E: fmt::Display>(
        &self,
        operation: &'static str,
        command: impl Future<Output = Result<T, E>>,
    ) -> Result<T, Away> {
        if !self.reachable() {
            outage::note_away();
            session_failure(operation, "skipped");
            return Err(Away);
        }
        let why = match timeout(LIMIT, command).await {
            Ok(Ok(value)) => return Ok(value),
            Ok(Err(error)) => error.to_string(),
            Err(_elapsed) => "no answer in time".to_owned(),
        };
        outage::note_away();
        session_failure(operation, "failed");
        tracing::warn!(operation, why, "a session could not be reached");
        Err(Away)
    }
}

impl fmt::Debug for Redis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Redis")
            .field("prefix", &self.prefix)
            .finish_non_exhaustive()
    }
}
