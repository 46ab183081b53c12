//! Why a receiver gave up on a message though its work had not failed too often: its word, which the
//! broker does not carry along to the dead letters.

use chrono::{DateTime, Utc};
use sqlx::PgPool;
use uuid::Uuid;

use super::failure;

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

/// Stores it for a message in one of its redrives, before the message is rejected. Repeated, the last one counts.
pub async fn record(
    pool: &PgPool,
    node: &str,
    (message_id, redrive): (Uuid, u32),
    reason: &str,
    attempts: i32,
) -> Result<(), sqlx::Error> {
    sqlx::query(
        "insert into given_up (message_id, reason, attempts, node, redrive) values ($1, $2, $3, $4, $5)
         on conflict (message_id) do update
            set reason = excluded.reason, attempts = excluded.attempts, node = excluded.node, redrive = excluded.redrive,
                given_up_at = clock_timestamp()",
    )
    .bind(message_id)
    .bind(reason)
    .bind(attempts)
    .bind(node)
    .bind(failure::redrive(redrive))
    .execute(pool)
    .await?;
    Ok(())
}

/// What was stored of a message in this redrive.
pub async fn of(
    pool: &PgPool,
    message_id: Uuid,
    redrive: u32,
) -> Result<Option<GivenUp>, sqlx::Error> {
    let word =
        "select reason, attempts, given_up_at from given_up where message_id = $1 and redrive = $2";
    sqlx::query_as(word)
        .bind(message_id)
        .bind(failure::redrive(redrive))
        .fetch_optional(pool)
        .await
}
