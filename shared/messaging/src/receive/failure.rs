//! Failures of the work, counted apart from deliveries: lost connections raise the broker's count of
//! innocent messages, and must not bring them nearer to being given up on.

use chrono::{DateTime, Utc};
use sqlx::PgPool;
use uuid::Uuid;

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

/// Records a failure and returns how many there are of this message in this redrive, this one included.
pub async fn record(pool: &PgPool, node: &str, failed: &FailedWork) -> Result<i64, sqlx::Error> {
    let mut tx = pool.begin().await?;
    sqlx::query(
        "insert into failure (failure_id, message_id, node, attempt, reason, redrive)
         values ($1, $2, $3, $4, $5, $6)
         on conflict do nothing",
    )
    .bind(failed.failure_id)
    .bind(failed.message_id)
    .bind(node)
    .bind(failed.attempt)
    .bind(&failed.reason)
    .bind(redrive(failed.redrive))
    .execute(&mut *tx)
    .await?;
    let (count,) =
        sqlx::query_as("select count(*) from failure where message_id = $1 and redrive = $2")
            .bind(failed.message_id)
            .bind(redrive(failed.redrive))
            .fetch_one(&mut *tx)
            .await?;
    tx.commit().await?;
    Ok(count)
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
