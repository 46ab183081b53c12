//! Ids of messages whose effect is committed. The unique key is what makes a second effect impossible;
//! everything else only saves work.

use std::collections::HashSet;

use sqlx::{PgConnection, Postgres, Transaction};
use uuid::Uuid;

use crate::guarantee::{Guarantee, Without};

/// Whose delivery is asked about.
#[derive(Debug, Clone, Copy)]
pub(super) struct Asked {
    pub(super) inbox_id: Uuid,
    pub(super) message_id: Uuid,
}

/// What is known of a message before its work.
#[derive(Debug, Clone, Copy, PartialEq, Eq, sqlx::FromRow)]
pub(super) struct Known {
    /// Its effect is committed.
    pub(super) admitted: bool,
    /// How often its work failed.
    pub(super) failures: i64,
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

    /// Looks before the work, so that a duplicate costs none and is never given up on. The answers are in the order of
    /// `asked`.
    pub(super) async fn look(
        self,
        connection: &mut PgConnection,
        asked: &[Asked],
    ) -> Result<Vec<Known>, sqlx::Error> {
        let mut known = look(connection, asked).await?;
        if let Self::Ignored = self {
            for known in &mut known {
                known.admitted = false;
            }
        }
        Ok(known)
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

/// By subqueries on purpose: for an `exists`, or a join, a plan made while the tables were empty reads all of them each time.
async fn look(connection: &mut PgConnection, asked: &[Asked]) -> Result<Vec<Known>, sqlx::Error> {
    sqlx::query_as(
        "select (select true from inbox where inbox.message_id = asked.inbox_id) is not null as admitted,
                (select count(*) from failure where failure.message_id = asked.message_id) as failures
           from unnest($1::uuid[], $2::uuid[]) with ordinality as asked (inbox_id, message_id, place)
          order by place",
    )
    .bind(asked.iter().map(|one| one.inbox_id).collect::<Vec<_>>())
    .bind(asked.iter().map(|one| one.message_id).collect::<Vec<_>>())
    .fetch_all(connection)
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
