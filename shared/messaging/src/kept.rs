//! A connection that a loop keeps between its turns.
//!
//! A pool tests each connection that it gives away or takes back, since it cannot know how it was left: three round trips for
//! each use. A loop knows. It takes its connection, and puts it back when all went well; one that is not put back, after an
//! error or past a limit, goes to the pool, which looks what has become of it. So does one whose loop has nothing to do: others
//! may need it, and its link may be gone when it is used again.

use std::{pin::pin, time::Duration};

use sqlx::{PgPool, Postgres, pool::PoolConnection};
use tokio::time::timeout;

/// How long it is kept for a turn that does not come. About as long as a turn takes: a link that goes within it would as
/// likely have gone in the middle of one.
const KEPT_FOR: Duration = Duration::from_millis(5);

/// The place for the connection of one loop.
#[derive(Debug)]
pub struct Kept {
    pool: PgPool,
    kept: Option<PoolConnection<Postgres>>,
}

impl Kept {
    /// An empty place.
    pub fn new(pool: PgPool) -> Self {
        Self { pool, kept: None }
    }

    /// Waits for what begins the loop's next turn. When that does not come soon, the pool gets the connection back.
    pub async fn while_waiting<T>(&mut self, next: impl Future<Output = T>) -> T {
        let mut next = pin!(next);
        if self.kept.is_some() {
            if let Ok(soon) = timeout(KEPT_FOR, &mut next).await {
                return soon;
            }
            self.kept = None;
        }
        next.await
    }

    /// The connection of the last turn, or one of the pool.
    ///
    /// # Errors
    /// None is to be had.
    pub async fn take(&mut self) -> Result<PoolConnection<Postgres>, sqlx::Error> {
        match self.kept.take() {
            Some(connection) => Ok(connection),
            None => self.pool.acquire().await,
        }
    }

    /// Keeps a connection that is as it was taken: nothing under way, no transaction open.
    pub fn put(&mut self, connection: PoolConnection<Postgres>) {
        self.kept = Some(connection);
    }
}
