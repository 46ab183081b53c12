//! The inbox is kept small: ids older than a window go, and who meets one asks the service itself.
//!
//! Which ids may be gone is decided by their bytes alone. Ours are UUIDs v7, which begin with the milliseconds since 1970,
//! so the oldest are at one end of the primary key, and are deleted there in batches. An id of anybody else obeys the same
//! rule: it goes early or never, and is asked about early or never, whatever its bytes mean.
//!
//! A turn first announces a boundary in the table `inbox_window`: the ids of the time now, by the database's clock, less the
//! window. The boundary never goes back. Then it deletes what is below, which the table says by then.
//!
//! So who meets no row of an id, and reads the boundary after that or in the same snapshot, sees whether the row may be gone;
//! [`super::inbox`] does. None of it rests on clocks that agree, on receivers that have the same window, or on a window that
//! stays: what was ever announced is in the table. A database whose clock ran a year ahead has announced a year too much:
//! until that is over each id is old and asked about, which is slower and as right as ever.

use std::time::Duration;

use clap::Args;
use sqlx::{PgPool, postgres::types::PgInterval};
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};
use uuid::Uuid;

use crate::{bounded, numbers};

/// Shortest time from turn to turn.
const TURN_MIN: Duration = Duration::from_secs(1);
/// Longest time from turn to turn: a day's rows go minute by minute, not all at midnight.
const TURN_MAX: Duration = Duration::from_mins(1);
/// Rows of one statement, which is a transaction of its own: it takes some milliseconds.
const BATCH: i64 = 5_000;
/// Shortest pause between two batches.
const PAUSE: Duration = Duration::from_millis(20);

/// The settings of it.
#[derive(Debug, Clone, Args)]
pub struct InboxArgs {
    /// How old a message may be, in seconds, until its row in the inbox is removed; of older ones the table of effects is asked
    /// whether they had theirs
    #[arg(long, env = "INBOX_WINDOW_SECS", default_value_t = 86_400, value_parser = clap::value_parser!(u64).range(1..=315_360_000))]
    pub inbox_window_secs: u64,
}

/// The loop that removes old rows. Each receiver has one; they share the work.
#[derive(Debug)]
pub struct Pruner {
    pool: PgPool,
    window: Duration,
}

impl Pruner {
    /// Of this inbox.
    pub fn new(pool: PgPool, args: &InboxArgs) -> Self {
        Self {
            pool,
            window: Duration::from_secs(args.inbox_window_secs),
        }
    }

    /// Takes turns until the stop. A turn that fails is tried again.
    pub async fn run(self, stop: CancellationToken) {
        let pause = (self.window / 10).clamp(TURN_MIN, TURN_MAX);
        let turns = async {
            loop {
                match self.step().await {
                    Ok(0) => {}
                    Ok(rows) => debug!(rows, "old rows of the inbox are removed"),
                    Err(error) => warn!(%error, "old rows of the inbox cannot be removed"),
                }
                sleep(pause).await;
            }
        };
        stop.run_until_cancelled(turns).await;
    }

    /// One turn: announces, then deletes. Gives how many rows went.
    ///
    /// # Errors
    /// The database's; the next turn does the rest.
    pub async fn step(&self) -> Result<u64, sqlx::Error> {
        let below = bounded(announce(&self.pool, self.window)).await?;
        self.remove(below).await
    }

    /// Batch by batch, and never more than half of the time, so that nobody has to wait for it.
    async fn remove(&self, below: Uuid) -> Result<u64, sqlx::Error> {
        let (mut from, mut removed) = (Uuid::nil(), 0);
        loop {
            let begun = Instant::now();
            let gone = bounded(remove_batch(&self.pool, from, below)).await?;
            let rows = u64::try_from(gone.len()).unwrap_or(u64::MAX);
            metrics::counter!(numbers::PRUNED).increment(rows);
            removed += rows;
            match gone.into_iter().max() {
                // From there on, past what the index still has of those that went.
                Some(last) if rows >= BATCH.unsigned_abs() => from = last,
                _ => return Ok(removed),
            }
            sleep(begun.elapsed().max(PAUSE)).await;
        }
    }
}

/// Moves the boundary forward and gives where it is. Its first 48 bits are the milliseconds, the rest is less than in any id
/// of that time. What 48 bits cannot hold, such as a time before 1970, is the nearest that they can: other digits would be
/// some other boundary, and it never goes back.
async fn announce(pool: &PgPool, window: Duration) -> Result<Uuid, sqlx::Error> {
    let window = PgInterval {
        months: 0,
        days: 0,
        microseconds: i64::try_from(window.as_micros()).unwrap_or(i64::MAX),
    };
    sqlx::query_scalar(
        "update inbox_window set below = greatest(below, rpad(lpad(to_hex(
                least(greatest(0, (extract(epoch from clock_timestamp() - $1) * 1000)::bigint), 281474976710655)
                ), 12, '0'), 32, '0')::uuid)
         returning below",
    )
    .bind(window)
    .fetch_one(pool)
    .await
}

/// Rows that another one removes or writes at this moment are passed over. The inner select is an array for the reason that
/// the outbox has, and the statement is planned each time: a plan made while the table was small would read all of it.
///
/// Nothing goes when the table has forgotten the announcement, as a standby that took over without it has. That is a condition
/// of its own, since it leaves `$2` to the planner: of a boundary that it cannot see it takes few rows to be below, and sorts all.
async fn remove_batch(pool: &PgPool, from: Uuid, below: Uuid) -> Result<Vec<Uuid>, sqlx::Error> {
    sqlx::query_scalar(
        "delete from inbox
          where message_id = any (array(
                select message_id from inbox
                 where message_id >= $1 and message_id < $2 and $2 <= (select below from inbox_window)
                 order by message_id limit $3 for update skip locked))
         returning message_id",
    )
    .bind(from)
    .bind(below)
    .bind(BATCH)
    .persistent(false)
    .fetch_all(pool)
    .await
}
