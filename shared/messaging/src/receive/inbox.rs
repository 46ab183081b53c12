//! Ids of messages whose effect is committed. The unique key is what makes a second effect impossible;
//! everything else only saves work.

use std::collections::HashSet;

use sqlx::{PgPool, Postgres, Transaction};
use uuid::Uuid;

use crate::guarantee::{Guarantee, Without};

/// What is known of a message before its work: one query.
#[derive(Debug, Clone, Copy, PartialEq, Eq, sqlx::FromRow)]
pub struct Known {
    /// Its effect is committed.
    pub admitted: bool,
    /// How often its work failed.
    pub failures: i64,
}

/// What was stored: the first effect of the message, or nothing since it had one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Admitted {
    First,
    Duplicate,
}

/// Whether anybody looks.
#[derive(Debug, Clone, Copy)]
pub(super) enum Inbox {
    Kept,
    /// Every delivery is taken for the first one of its message.
    Ignored,
}

impl Inbox {
    pub(super) fn new(without: &Without) -> Self {
        if without.has(Guarantee::Inbox) {
            Self::Ignored
        } else {
            Self::Kept
        }
    }

    /// Looks before the work, so that a duplicate costs none and is never given up on.
    pub(super) async fn look(
        self,
        pool: &PgPool,
        inbox_id: Uuid,
        message_id: Uuid,
    ) -> Result<Known, sqlx::Error> {
        let known = look(pool, inbox_id, message_id).await?;
        Ok(match self {
            Self::Kept => known,
            Self::Ignored => Known {
                admitted: false,
                ..known
            },
        })
    }

    /// Says of each id whether this is its first effect, and remembers it.
    pub(super) async fn admit(
        self,
        tx: &mut Transaction<'_, Postgres>,
        ids: &[Uuid],
    ) -> Result<Vec<Admitted>, sqlx::Error> {
        match self {
            Self::Kept => {
                let mut new = admit(tx, ids).await?;
                // The same id may be twice in one group: the first takes it.
                let admitted = |id| {
                    if new.remove(id) {
                        Admitted::First
                    } else {
                        Admitted::Duplicate
                    }
                };
                Ok(ids.iter().map(admitted).collect())
            }
            Self::Ignored => Ok(vec![Admitted::First; ids.len()]),
        }
    }
}

async fn look(pool: &PgPool, inbox_id: Uuid, message_id: Uuid) -> Result<Known, sqlx::Error> {
    sqlx::query_as(
        "select exists (select from inbox where message_id = $1) as admitted,
                (select count(*) from failure where message_id = $2) as failures",
    )
    .bind(inbox_id)
    .bind(message_id)
    .fetch_one(pool)
    .await
}

/// Writes the ids that are new and returns them; the others have an effect already.
///
/// Waits for a transaction that is writing the same id (the other's end decides), up to the lock
/// timeout. Sorted, so that two groups with common ids cannot wait for each other.
async fn admit(
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
