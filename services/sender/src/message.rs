//! All SQL of the table `message`: what was accepted.

use std::collections::HashMap;

use chrono::{DateTime, Utc};
use serde::Serialize;
use sqlx::{FromRow, PgPool, Postgres, Transaction};
use uuid::Uuid;

/// A message that is about to be stored.
pub(crate) struct NewMessage<'a> {
    pub(crate) message_id: Uuid,
    pub(crate) text: &'a str,
    pub(crate) session: Option<Uuid>,
    pub(crate) run: Option<&'a str>,
    pub(crate) key: &'a str,
    pub(crate) position: i32,
}

/// What the database added to a stored message.
#[derive(Debug, Clone, FromRow)]
pub(crate) struct Stored {
    pub(crate) message_id: Uuid,
    pub(crate) number: i64,
    pub(crate) accepted_at: DateTime<Utc>,
}

/// Stores messages whose (key, position) is new, and returns those; the others are left out. Waits for
/// a transaction that is storing the same key. Sorted by key, so that two groups with common keys
/// cannot wait for each other.
pub(crate) async fn insert(
    tx: &mut Transaction<'_, Postgres>,
    node: &str,
    messages: &[NewMessage<'_>],
) -> Result<HashMap<Uuid, Stored>, sqlx::Error> {
    let stored: Vec<Stored> = sqlx::query_as(
        "insert into message (message_id, text, node, session, run, idempotency_key, position)
         select id, text, $7, session, run, key, position
           from unnest($1::uuid[], $2::text[], $3::uuid[], $4::text[], $5::text[], $6::int[])
             as row (id, text, session, run, key, position)
          order by key, position
         on conflict (idempotency_key, position) do nothing
         returning message_id, number, accepted_at",
    )
    .bind(messages.iter().map(|m| m.message_id).collect::<Vec<_>>())
    .bind(messages.iter().map(|m| m.text).collect::<Vec<_>>())
    .bind(messages.iter().map(|m| m.session).collect::<Vec<_>>())
    .bind(messages.iter().map(|m| m.run).collect::<Vec<_>>())
    .bind(messages.iter().map(|m| m.key).collect::<Vec<_>>())
    .bind(messages.iter().map(|m| m.position).collect::<Vec<_>>())
    .bind(node)
    .fetch_all(&mut **tx)
    .await?;
    Ok(stored
        .into_iter()
        .map(|stored| (stored.message_id, stored))
        .collect())
}

/// A message stored earlier under a key.
#[derive(Debug, FromRow)]
pub(crate) struct Earlier {
    pub(crate) idempotency_key: String,
    #[sqlx(flatten)]
    pub(crate) stored: Stored,
    pub(crate) text: String,
}

/// Everything stored under any of the keys, in order of position.
pub(crate) async fn of_keys(
    tx: &mut Transaction<'_, Postgres>,
    keys: &[&str],
) -> Result<Vec<Earlier>, sqlx::Error> {
    sqlx::query_as(
        "select idempotency_key, message_id, number, accepted_at, text from message
          where idempotency_key = any($1) order by idempotency_key, position",
    )
    .bind(keys)
    .fetch_all(&mut **tx)
    .await
}

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
