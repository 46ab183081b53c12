//! Where one note is: what is known of it in all tables, as it is now.

use chrono::{DateTime, Utc};
use serde::Serialize;
use sqlx::{FromRow, PgPool};
use uuid::Uuid;

/// How far a note has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, sqlx::Type)]
#[serde(rename_all = "lowercase")]
#[sqlx(type_name = "text", rename_all = "lowercase")]
pub enum State {
    /// Accepted; some worker will save it.
    Waiting,
    /// Saved.
    Saved,
    /// Given up on; it is kept among the dead letters.
    Parked,
}

/// A note and where it is.
#[derive(Debug, Clone, Serialize, FromRow)]
#[serde(rename_all = "camelCase")]
pub struct Whereabouts {
    /// Made once.
    pub id: Uuid,
    /// For people.
    pub number: i64,
    /// How far it has come.
    pub state: State,
    /// As written, trimmed.
    pub content: String,
    /// By the database's clock, as the next.
    pub accepted_at: DateTime<Utc>,
    /// When it was saved first, if it was.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub saved_at: Option<DateTime<Utc>>,
    /// By whom.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub saved_by: Option<String>,
}

/// Where the note of this id is, if it was ever accepted.
pub async fn of(pool: &PgPool, id: Uuid) -> Result<Option<Whereabouts>, sqlx::Error> {
    sqlx::query_as(
        "select message.message_id as id, message.number, message.text as content, accepted_at,
                first.processed_at as saved_at, first.node as saved_by,
                case when first.processed_at is not null then 'saved'
                     when exists (select from dead_letter as dead
                                   where dead.message_id = message.message_id and dead.state in ('parked', 'discarded'))
                     then 'parked' else 'waiting' end as state
           from message
           left join lateral (select processed_at, node from processed
                               where processed.message_id = message.message_id
                               order by processed_id limit 1) as first on true
          where message.message_id = $1",
    )
    .bind(id)
    .fetch_optional(pool)
    .await
}
