//! Ids of messages whose effect is committed. The unique key is what makes a second effect impossible;
//! everything else only saves work.
//!
//! Rows below a boundary may be gone ([`super::window`]). An id below it is *old*: it is written like any other, which makes
//! all who have it wait for each other, and then the service is asked whether its effect is there. If the row was gone its
//! effect had been committed before, so the question, a statement of its own, sees it. Ids that are not old cost hardly
//! anything: whether one is comes with the same statement.

use std::collections::HashSet;

use sqlx::{PgConnection, Postgres, Transaction};
use uuid::Uuid;

use super::{failure, handler::Handler};
use crate::guarantee::{Guarantee, Without};

/// Whose delivery is asked about.
#[derive(Debug, Clone, Copy)]
pub(super) struct Asked {
    pub(super) inbox_id: Uuid,
    pub(super) message_id: Uuid,
    /// In which redrive it came.
    pub(super) redrive: u32,
}

/// What is known of a message before its work.
#[derive(Debug, Clone, Copy, PartialEq, Eq, sqlx::FromRow)]
pub(super) struct Known {
    /// Its effect is committed.
    pub(super) admitted: bool,
    /// The inbox may have forgotten it.
    old: bool,
    /// How often its work failed in this redrive.
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
    /// What it has forgotten is taken for new.
    NotBehind,
    /// Every delivery is taken for the first one of its message.
    Ignored,
}

impl Inbox {
    pub(super) fn new(without: &Without) -> Self {
        if without.has(Guarantee::Inbox) {
            Self::Ignored
        } else if without.has(Guarantee::LookBehind) {
            Self::NotBehind
        } else {
            Self::Kept
        }
    }

    /// Looks before the work, so that a duplicate costs none and is never given up on. The answers are in the order of
    /// `asked`.
    pub(super) async fn look<H: Handler>(
        self,
        handler: &H,
        connection: &mut PgConnection,
        asked: &[Asked],
    ) -> Result<Vec<Known>, sqlx::Error> {
        let mut known = look(connection, asked).await?;
        let both = asked.iter().zip(&mut known);
        match self {
            Self::Kept => {
                let old: Vec<_> = both
                    .filter(|(_, known)| known.old && !known.admitted)
                    .collect();
                let ids: Vec<Uuid> = old.iter().map(|(asked, _)| asked.inbox_id).collect();
                let done = done(handler, connection, &ids).await?;
                for (asked, known) in old {
                    known.admitted = done.contains(&asked.inbox_id);
                }
            }
            Self::NotBehind => {}
            Self::Ignored => both.for_each(|(_, known)| known.admitted = false),
        }
        Ok(known)
    }

    /// Says of each id whether this is its first effect, and remembers it.
    pub(super) async fn admit<H: Handler>(
        self,
        handler: &H,
        tx: &mut Transaction<'_, Postgres>,
        ids: &[Uuid],
    ) -> Result<Vec<Admitted>, sqlx::Error> {
        let mut new = match self {
            Self::Ignored => return Ok(vec![Admitted::First; ids.len()]),
            Self::Kept | Self::NotBehind => Written::new(tx, ids).await?,
        };
        if let Self::Kept = self {
            for id in done(handler, tx, &new.old).await? {
                new.ids.remove(&id);
            }
        }
        // The same id may be twice in one group: the first takes it.
        let admitted = |id| {
            if new.ids.remove(id) {
                Admitted::First
            } else {
                Admitted::Duplicate
            }
        };
        Ok(ids.iter().map(admitted).collect())
    }
}

/// Asks the service, if there is anything to ask.
async fn done<H: Handler>(
    handler: &H,
    connection: &mut PgConnection,
    ids: &[Uuid],
) -> Result<HashSet<Uuid>, sqlx::Error> {
    if ids.is_empty() {
        return Ok(HashSet::new());
    }
    handler.done(connection, ids).await
}

/// By subqueries on purpose: for an `exists`, or a join, a plan made while the tables were empty reads all of them each time.
/// Without the row of the window every id is old.
async fn look(connection: &mut PgConnection, asked: &[Asked]) -> Result<Vec<Known>, sqlx::Error> {
    sqlx::query_as(
        "select (select true from inbox where inbox.message_id = asked.inbox_id) is not null as admitted,
                (asked.inbox_id < (select below from inbox_window)) is not false as old,
                (select count(*) from failure where failure.message_id = asked.message_id and failure.redrive = asked.redrive) as failures
           from unnest($1::uuid[], $2::uuid[], $3::int[]) with ordinality as asked (inbox_id, message_id, redrive, place)
          order by place",
    )
    .bind(asked.iter().map(|one| one.inbox_id).collect::<Vec<_>>())
    .bind(asked.iter().map(|one| one.message_id).collect::<Vec<_>>())
    .bind(asked.iter().map(|one| failure::redrive(one.redrive)).collect::<Vec<_>>())
    .fetch_all(connection)
    .await
}

/// Ids that were written into the inbox; the others have an effect already.
struct Written {
    ids: HashSet<Uuid>,
    /// Those that it may have forgotten.
    old: Vec<Uuid>,
}

impl Written {
    /// Waits for a transaction that is writing the same id (the other's end decides), up to the lock
    /// timeout. Sorted, so that two groups with common ids cannot wait for each other.
    ///
    /// However long it waited: the boundary is read after the last row was written, by a function that sees what is committed
    /// by then (`volatile`, at read committed). Once for all rows, so that it costs nearly nothing.
    async fn new(tx: &mut Transaction<'_, Postgres>, ids: &[Uuid]) -> Result<Self, sqlx::Error> {
        let (new, below): (Vec<Uuid>, Option<Uuid>) = sqlx::query_as(
            "with new as (
                insert into inbox (message_id)
                select distinct id from unnest($1::uuid[]) as row (id) order by id
                on conflict do nothing
                returning message_id)
             select coalesce(array_agg(message_id), '{}'), inbox_below() from new",
        )
        .bind(ids)
        .fetch_one(&mut **tx)
        .await?;
        let old = new.iter().copied().filter(|id| is_old(*id, below));
        Ok(Self {
            old: old.collect(),
            ids: new.into_iter().collect(),
        })
    }
}

/// Whether the inbox may have forgotten an id. Without the row of the window it may have forgotten any.
pub(super) fn is_old(id: Uuid, below: Option<Uuid>) -> bool {
    below.is_none_or(|below| id < below)
}
