//! Ids of messages whose effect is committed. The unique key is what makes a second effect impossible;
//! everything else only saves work.

use std::collections::HashSet;

use sqlx::{PgPool, Postgres, Transaction};
use uuid::Uuid;

/// What is known of a message before its work: one query.
#[derive(Debug, Clone, Copy, PartialEq, Eq, sqlx::FromRow)]
pub struct Known {
    /// Its effect is committed.
    pub admitted: bool,
    /// How often its work failed.
    pub failures: i64,
}

/// Looks before the work, so that a duplicate costs none and is never given up on.
pub async fn look(pool: &PgPool, message_id: Uuid) -> Result<Known, sqlx::Error> {
    sqlx::query_as(
        "select exists (select from inbox where message_id = $1) as admitted,
                (select count(*) from failure where message_id = $1) as failures",
    )
    .bind(message_id)
    .fetch_one(pool)
    .await
}

/// Writes the ids that are new and returns them; the others have an effect already.
///
/// Waits for a transaction that is writing the same id (the other's end decides), up to the lock
/// timeout. Sorted, so that two groups with common ids cannot wait for each other.
pub async fn admit(
    tx: &mut Transaction<'_, Postgres>,
    message_ids: &[Uuid],
) -> Result<HashSet<Uuid>, sqlx::Error> {
    let new: Vec<(Uuid,)> = sqlx::query_as(
        "insert into inbox (message_id)
         select distinct id from unnest($1::uuid[]) as row (id) order by id
         on conflict do nothing returning message_id",
    )
    .bind(message_ids)
    .fetch_all(&mut **tx)
    .await?;
    Ok(new.into_iter().map(|(id,)| id).collect())
}
