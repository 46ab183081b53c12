//! All SQL of the table `queue`: the queues, their settings, and how full they are.

use std::{
    collections::HashMap,
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};

use daemon::database::within;
use serde::Serialize;
use sqlx::{FromRow, PgPool};

use crate::message::begin;

/// The queue at `/`; the migration made it.
pub(crate) const DEFAULT: &str = "default";
/// Longest name.
pub(crate) const NAME_MAX: usize = 80;
/// Beyond so many of a kind the counts only say "over".
pub(crate) const COUNT_MAX: i64 = 100_000;
/// Queues on one page.
pub(crate) const SHOWN: usize = 500;
/// Of the time that rates are made of.
const RATE_SECS: i32 = 10;
const LIMIT: Duration = Duration::from_secs(3);

/// The numbers of the queues that were seen. A queue is never deleted, so what was seen once stays true.
#[derive(Clone)]
pub(crate) struct Queues {
    pool: PgPool,
    known: Arc<RwLock<HashMap<String, i32>>>,
}

impl Queues {
    pub(crate) fn new(pool: PgPool) -> Self {
        Self {
            pool,
            known: Arc::default(),
        }
    }

    /// The number of a queue, if there is one of this name.
    pub(crate) async fn number(&self, name: &str) -> Result<Option<i32>, sqlx::Error> {
        if let Some(known) = self.known(name) {
            return Ok(Some(known));
        }
        let asked = sqlx::query_scalar("select queue_id from queue where name = $1")
            .bind(name)
            .fetch_optional(&self.pool);
        let found: Option<i32> = within(LIMIT, asked).await?;
        if let Some(number) = found {
            let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
            known.insert(name.to_owned(), number);
        }
        Ok(found)
    }

    fn known(&self, name: &str) -> Option<i32> {
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
        known.get(name).copied()
    }
}

/// What a queue of this name is like.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, FromRow)]
pub(crate) struct Settings {
    pub(crate) name: String,
    pub(crate) lease_ms: i32,
    pub(crate) max_receives: i32,
}

/// Makes a queue, or changes one; what is not said stays, or is what a new queue has. Whether it was made.
pub(crate) async fn put(
    pool: &PgPool,
    name: &str,
    lease_ms: Option<i32>,
    max_receives: Option<i32>,
) -> Result<(bool, Settings), sqlx::Error> {
    let made: Option<i32> = sqlx::query_scalar(
        "insert into queue (name) values ($1) on conflict (name) do nothing returning queue_id",
    )
    .bind(name)
    .fetch_optional(pool)
    .await?;
    let settings = sqlx::query_as(
        "update queue set lease_ms = coalesce($2, lease_ms), max_receives = coalesce($3, max_receives)
          where name = $1 returning name, lease_ms, max_receives",
    )
    .bind(name)
    .bind(lease_ms)
    .bind(max_receives)
    .fetch_one(pool)
    .await?;
    Ok((made.is_some(), settings))
}

/// A queue as the page shows it. Counts go up to [`COUNT_MAX`] and one more, so that it costs the same however full they are.
#[derive(Debug, Clone, Serialize, FromRow)]
pub(crate) struct QueueRow {
    #[serde(flatten)]
    #[sqlx(flatten)]
    pub(crate) settings: Settings,
    /// May be leased.
    pub(crate) ready: i64,
    /// Hidden by a lease.
    pub(crate) leased: i64,
    /// Given up on.
    pub(crate) dead: i64,
    #[serde(flatten)]
    #[sqlx(flatten)]
    pub(crate) rates: Rates,
}

/// Messages a second, of all nodes, over the last ten.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, FromRow)]
#[expect(
    clippy::struct_field_names,
    reason = "they stand beside counts in the JSON"
)]
pub(crate) struct Rates {
    pub(crate) pushed_per_second: f64,
    pub(crate) leased_per_second: f64,
    pub(crate) confirmed_per_second: f64,
}

/// All queues by name, up to [`SHOWN`].
pub(crate) async fn all(pool: &PgPool) -> Result<Arc<[QueueRow]>, sqlx::Error> {
    rows(pool, None).await
}

/// The one of this name, alone, if it is there.
pub(crate) async fn one(pool: &PgPool, name: &str) -> Result<Option<Arc<[QueueRow]>>, sqlx::Error> {
    let rows = within(LIMIT, rows(pool, Some(name))).await?;
    Ok((!rows.is_empty()).then_some(rows))
}

async fn rows(pool: &PgPool, name: Option<&str>) -> Result<Arc<[QueueRow]>, sqlx::Error> {
    let mut tx = begin(pool).await?;
    let rows: Vec<QueueRow> = sqlx::query_as(
        "select name, lease_ms, max_receives,
                (select count(*) from (select from message m where m.queue_id = queue.queue_id and not final
                    and free_at <= statement_timestamp() limit $1) as counted) as ready,
                (select count(*) from (select from message m where m.queue_id = queue.queue_id and not final
                    and free_at > statement_timestamp() limit $1) as counted)
                + (select count(*) from (select from message m where m.queue_id = queue.queue_id and final
                    and free_at > statement_timestamp() limit $1) as counted) as leased,
                (select count(*) from (select from message m where m.queue_id = queue.queue_id and final
                    and free_at <= statement_timestamp() limit $1) as counted)
                + (select count(*) from (select from dead_letter d where d.queue_id = queue.queue_id
                    limit $1) as counted) as dead,
                coalesce(pushed, 0)::float8 / $3 as pushed_per_second,
                coalesce(leased, 0)::float8 / $3 as leased_per_second,
                coalesce(confirmed, 0)::float8 / $3 as confirmed_per_second
           from queue left join (
                select queue_id, sum(pushed) as pushed, sum(leased) as leased, sum(confirmed) as confirmed
                  from tally where at > now() - $3 * interval '1 second' group by queue_id) as tally
             using (queue_id)
          where $4::text is null or name = $4
          order by name limit $2",
    )
    .bind(COUNT_MAX + 1)
    .bind(i64::try_from(SHOWN).unwrap_or(i64::MAX))
    .bind(RATE_SECS)
    .bind(name)
    .fetch_all(&mut *tx)
    .await?;
    tx.commit().await?;
    Ok(rows.into())
}

/// Whether a queue can have this name.
pub(crate) fn is_name(name: &str) -> bool {
    let fits = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "._-".contains(c);
    (1..=NAME_MAX).contains(&name.len()) && name.chars().all(fits)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_short_and_plain() {
        for right in ["default", "a", "mail.2-x_y", &"x".repeat(NAME_MAX)] {
            assert!(is_name(right), "{right}");
        }
        for wrong in ["", "A", "a b", "ä", "a/b", &"x".repeat(NAME_MAX + 1)] {
            assert!(!is_name(wrong), "{wrong}");
        }
    }
}
