//! What is read of the table `message`: what was accepted, and where it is.

use chrono::{DateTime, Utc};
use serde::Serialize;
use sqlx::{FromRow, PgPool};
use uuid::Uuid;

/// Where a message is on its way to the queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, sqlx::Type)]
#[serde(rename_all = "lowercase")]
#[sqlx(type_name = "text", rename_all = "lowercase")]
pub enum State {
    /// In the outbox.
    Waiting,
    /// The broker has confirmed it.
    Published,
    /// It was routed to no queue at its last try; it is tried again.
    Unroutable,
    /// The queue refused it at its last try; it is tried again.
    Refused,
}

/// A message as the page and the API show it.
#[derive(Debug, Clone, Serialize, FromRow)]
pub struct MessageRow {
    pub message_id: Uuid,
    pub number: i64,
    pub node: String,
    pub accepted_at: DateTime<Utc>,
    pub state: State,
    pub text: String,
}

/// The newest messages, the newest first.
pub async fn newest(pool: &PgPool, limit: i64) -> Result<Vec<MessageRow>, sqlx::Error> {
    sqlx::query_as(
        "select message_id, number, m.node, m.accepted_at, text,
                coalesce(o.state, 'published') as state
           from (select * from message order by number desc limit $1) m
           left join outbox o using (message_id)
          order by number desc",
    )
    .bind(limit)
    .fetch_all(pool)
    .await
}

/// One message.
pub async fn by_id(pool: &PgPool, message_id: Uuid) -> Result<Option<MessageRow>, sqlx::Error> {
    sqlx::query_as(
        "select message_id, number, m.node, m.accepted_at, text,
                coalesce(o.state, 'published') as state
           from message m left join outbox o using (message_id)
          where message_id = $1",
    )
    .bind(message_id)
    .fetch_optional(pool)
    .await
}
