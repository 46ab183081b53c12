//! Failures of the work, counted apart from deliveries: lost connections raise the broker's count of
//! innocent messages, and must not bring them nearer to being given up on.
//!
//! A failure is committed before its message goes back. Die in between: the message comes again by itself, and its failure counts.

use std::sync::Arc;

use chrono::{DateTime, Utc};
use group_commit::Committer;
use sqlx::{Connection, PgPool, Postgres, Transaction};
use tracing::warn;
use uuid::Uuid;

use super::{commit::is_away, patience::Fault};
use crate::{Kept, bounded};

/// One failure. Made before the first try at recording it, so that repeating a commit of unknown
/// outcome does not count it twice.
#[derive(Debug, Clone)]
pub struct FailedWork {
    /// Its own id.
    pub failure_id: Uuid,
    /// Whose work it was.
    pub message_id: Uuid,
    /// In which redrive: what is sent back on purpose begins anew. 0 for none.
    pub redrive: u32,
    /// At which delivery.
    pub attempt: i32,
    /// Why.
    pub reason: String,
}

/// What is known of a message's failures.
#[derive(Debug, Clone, sqlx::FromRow)]
pub struct Failures {
    /// How many.
    pub count: i64,
    /// The last delivery at which it failed.
    pub attempts: i32,
    /// Why it failed there.
    pub reason: String,
    /// When it failed there.
    pub failed_at: DateTime<Utc>,
}

/// Most failures in one commit.
pub(super) const GROUP: usize = 500;

/// The loop that counts failures: those that come while a commit runs share the next one.
pub struct FailureCounter {
    pub(super) connection: Kept,
    pub(super) node: String,
    pub(super) failures: Committer<Arc<FailedWork>, Result<i64, Fault>>,
}

impl FailureCounter {
    /// Counts until the processor is gone. Each caller hears how many failures there are of its message in its redrive, its own
    /// included.
    pub async fn run(mut self) {
        while let Some((failures, answers)) = self
            .connection
            .while_waiting(self.failures.next(GROUP))
            .await
        {
            let results = match bounded(self.record(&failures)).await {
                Ok(counts) => counts.into_iter().map(Ok).collect(),
                // The database is away, or the fault is this one failure's own.
                Err(fault) if failures.len() == 1 || is_away(&fault) => {
                    let fault = Fault::from(fault);
                    failures.iter().map(|_| Err(fault.clone())).collect()
                }
                Err(fault) => {
                    warn!(%fault, failures = failures.len(), "a group failed, each is tried alone");
                    let mut results = Vec::with_capacity(failures.len());
                    for failure in &failures {
                        let alone = bounded(self.record(std::slice::from_ref(failure))).await;
                        results.push(alone.map(|counts| counts[0]).map_err(Fault::from));
                    }
                    results
                }
            };
            answers.send(results);
        }
    }

    async fn record(&mut self, failures: &[Arc<FailedWork>]) -> Result<Vec<i64>, sqlx::Error> {
        let mut connection = self.connection.take().await?;
        let mut tx = connection.begin().await?;
        insert(&mut tx, &self.node, failures).await?;
        // After the insert, not with it: one of unknown outcome may have been committed meanwhile.
        let counts = counts(&mut tx, failures).await?;
        tx.commit().await?;
        self.connection.put(connection);
        Ok(counts)
    }
}

async fn insert(
    tx: &mut Transaction<'_, Postgres>,
    node: &str,
    failures: &[Arc<FailedWork>],
) -> Result<(), sqlx::Error> {
    sqlx::query(
        "insert into failure (failure_id, message_id, node, attempt, reason, redrive)
         select failure_id, message_id, $6, attempt, reason, redrive
           from unnest($1::uuid[], $2::uuid[], $3::int[], $4::text[], $5::int[])
             as row (failure_id, message_id, attempt, reason, redrive)
         on conflict do nothing",
    )
    .bind(each(failures, |failed| failed.failure_id))
    .bind(each(failures, |failed| failed.message_id))
    .bind(each(failures, |failed| failed.attempt))
    .bind(each(failures, |failed| failed.reason.clone()))
    .bind(each(failures, |failed| redrive(failed.redrive)))
    .bind(node)
    .execute(&mut **tx)
    .await?;
    Ok(())
}

/// In the order of `failures`.
async fn counts(
    tx: &mut Transaction<'_, Postgres>,
    failures: &[Arc<FailedWork>],
) -> Result<Vec<i64>, sqlx::Error> {
    sqlx::query_scalar(
        "select (select count(*) from failure
                  where failure.message_id = asked.message_id and failure.redrive = asked.redrive)
           from unnest($1::uuid[], $2::int[]) with ordinality as asked (message_id, redrive, place)
          order by place",
    )
    .bind(each(failures, |failed| failed.message_id))
    .bind(each(failures, |failed| redrive(failed.redrive)))
    .fetch_all(&mut **tx)
    .await
}

fn each<T>(failures: &[Arc<FailedWork>], what: impl Fn(&FailedWork) -> T) -> Vec<T> {
    failures.iter().map(|failed| what(failed)).collect()
}

/// How often the work of a message failed in this redrive; `None` if never.
pub async fn of(
    pool: &PgPool,
    message_id: Uuid,
    in_redrive: u32,
) -> Result<Option<Failures>, sqlx::Error> {
    sqlx::query_as(
        "select count(*) over () as count, max(attempt) over () as attempts, reason, failed_at
           from failure where message_id = $1 and redrive = $2 order by failed_at desc limit 1",
    )
    .bind(message_id)
    .bind(redrive(in_redrive))
    .fetch_optional(pool)
    .await
}

/// As the database has it.
pub(super) fn redrive(number: u32) -> i32 {
    i32::try_from(number).unwrap_or(i32::MAX)
}
