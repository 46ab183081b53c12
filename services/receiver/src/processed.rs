//! What is read of the table `processed`: the effect.

use chrono::{DateTime, Utc};
use serde::Serialize;
use sqlx::{FromRow, PgPool};
use uuid::Uuid;

/// An effect as the page and the API show it.
#[derive(Debug, Clone, Serialize, FromRow)]
pub struct ProcessedRow {
    pub message_id: Uuid,
    pub number: i64,
    pub node: String,
    pub received_at: DateTime<Utc>,
    pub took_ms: i64,
    pub attempt: i32,
    pub text: String,
}

/// The newest effects, the newest first. Not those of pruned runs, of which only the ids are left: their numbers are negative.
pub async fn newest(pool: &PgPool, limit: i64) -> Result<Vec<ProcessedRow>, sqlx::Error> {
    sqlx::query_as(
        "select message_id, number, node, received_at, took_ms, attempt, text from processed
          where processed_id > 0
          order by processed_id desc limit $1",
    )
    .bind(limit)
    .fetch_all(pool)
    .await
}
