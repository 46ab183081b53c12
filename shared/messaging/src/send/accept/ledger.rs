//! What is written into the table `message`, the ledger of what was accepted.
//!
//! The table is the service's own: its migrations make it, and it reads there what it shows.

use std::collections::HashMap;

use chrono::{DateTime, Utc};
use sqlx::{FromRow, Postgres, Transaction};
use uuid::Uuid;

/// A message that is about to be stored.
pub(super) struct NewMessage<'a> {
    pub(super) message_id: Uuid,
    pub(super) text: &'a str,
    pub(super) session: Option<Uuid>,
    pub(super) run: Option<&'a str>,
    pub(super) key: &'a str,
    pub(super) position: i32,
}

/// What the database added to a stored message.
#[derive(Debug, Clone, FromRow)]
pub(super) struct Stored {
    pub(super) message_id: Uuid,
    pub(super) number: i64,
    pub(super) accepted_at: DateTime<Utc>,
}

/// Stores messages whose (key, position) is new, and returns those; the others are left out. Waits for
/// a transaction that is storing the same key. Sorted by key, so that two groups with common keys
/// cannot wait for each other.
pub(super) async fn insert(
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
pub(super) struct Earlier {
    pub(super) idempotency_key: String,
    #[sqlx(flatten)]
    pub(super) stored: Stored,
    pub(super) text: String,
}

/// Everything stored under any of the keys, in order of position.
pub(super) async fn of_keys(
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
