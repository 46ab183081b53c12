//! Why a receiver gave up on a message though its work had not failed too often: its word, which the
//! broker does not carry along to the dead letters.

use chrono::{DateTime, Utc};
use sqlx::PgPool;
use uuid::Uuid;

/// A receiver's word on a message.
#[derive(Debug, Clone, sqlx::FromRow)]
pub struct GivenUp {
    /// Why.
    pub reason: String,
    /// At which delivery.
    pub attempts: i32,
    /// When.
    pub given_up_at: DateTime<Utc>,
}

/// Stores it, before the message is rejected. Repeated, the last one counts.
pub async fn record(
    pool: &PgPool,
    node: &str,
    message_id: Uuid,
    reason: &str,
    attempts: i32,
) -> Result<(), sqlx::Error> {
    sqlx::query(
        "insert into given_up (message_id, reason, attempts, node) values ($1, $2, $3, $4)
         on conflict (message_id) do update
            set reason = excluded.reason, attempts = excluded.attempts, node = excluded.node,
                given_up_at = clock_timestamp()",
    )
    .bind(message_id)
    .bind(reason)
    .bind(attempts)
    .bind(node)
    .execute(pool)
    .await?;
    Ok(())
}

/// What was stored of a message.
pub async fn of(pool: &PgPool, message_id: Uuid) -> Result<Option<GivenUp>, sqlx::Error> {
    sqlx::query_as("select reason, attempts, given_up_at from given_up where message_id = $1")
        .bind(message_id)
        .fetch_optional(pool)
        .await
}
