//! The index of texts, made behind the road: a loop reads what the sender stored and copies it to the schema `lab`.
//!
//! Messages have numbers, given out in order and committed in any. So each turn reads on from the highest number that it
//! has seen, and keeps every number that was missing below as a *gap*. Gaps are looked at again each turn, until all
//! transactions are over that may have held one of their numbers: then nothing can come there any more.
//!
//! A turn is one transaction: a process that dies in it has changed nothing. Two consoles take turns.

use std::time::Duration;

use anyhow::Result;
use daemon::database::within;
use sqlx::{Connection, PgPool, Postgres, Transaction};
use tokio_util::sync::CancellationToken;
use tracing::warn;

/// Numbers in a slice. The migration says the same.
pub const SLICE: i64 = 20_000;
/// Messages that one turn copies.
const BATCH: i64 = 2_000;
/// A number is given out a moment before its transaction has an id of its own: this is far longer than that moment.
const GRACE: Duration = Duration::from_mins(1);
/// Above what the server lets a statement take.
const LIMIT: Duration = Duration::from_secs(30);
/// So many turns at most lie between two sweeps.
const SWEEP_EVERY: u64 = 20;
/// How long it rests when there is nothing new.
const REST: Duration = Duration::from_millis(500);

/// Makes the tables, where they are missing.
///
/// On a connection of its own: an error, or the end of the time for it, may leave the advisory lock of migrations with the
/// session, which therefore must end.
///
/// # Errors
/// The database's.
pub async fn prepare(lab: &PgPool) -> Result<(), sqlx::Error> {
    let mut connection = lab.acquire().await?.detach();
    sqlx::migrate!()
        .run_direct(None, &mut connection, false)
        .await?;
    let _ = connection.close().await;
    Ok(())
}

/// The loop.
#[derive(Debug, Clone)]
pub struct Indexer {
    lab: PgPool,
    grace: Duration,
}

/// What a turn did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Turn {
    /// New messages.
    pub read: i64,
    /// Messages that came late.
    pub late: u64,
    /// Gaps that may still be filled.
    pub gaps: i64,
}

impl Indexer {
    /// With the pool of the role `lab`.
    pub fn new(lab: PgPool) -> Self {
        Self { lab, grace: GRACE }
    }

    /// With another time for which a gap is kept at least; for tests.
    #[must_use]
    pub fn with_grace(self, grace: Duration) -> Self {
        Self { grace, ..self }
    }

    /// Makes the tables, then copies until `stop`. A database that is away is waited for.
    pub async fn run(self, stop: CancellationToken) {
        stop.run_until_cancelled(self.rounds()).await;
    }

    async fn rounds(&self) {
        let mut prepared = false;
        let (mut slice, mut turns) = (0, 0);
        loop {
            match self.round(&mut prepared, (&mut slice, &mut turns)).await {
                Ok(Turn { read: BATCH.., .. }) => {}
                Ok(_) => tokio::time::sleep(REST).await,
                Err(error) => {
                    warn!(
                        error = format!("{error:#}"),
                        "the index of texts does not get on"
                    );
                    tokio::time::sleep(REST * 10).await;
                }
            }
        }
    }

    async fn round(
        &self,
        prepared: &mut bool,
        (slice, turns): (&mut i64, &mut u64),
    ) -> Result<Turn> {
        if !*prepared {
            within(LIMIT, prepare(&self.lab)).await?;
            *prepared = true;
        }
        let turn = within(LIMIT, self.step()).await?;
        *turns += 1;
        // also while there is always something new: what was pruned is in the way of a search
        if turn.read == 0 || turns.is_multiple_of(SWEEP_EVERY) {
            *slice = within(LIMIT, self.sweep(*slice)).await?;
        }
        Ok(turn)
    }

    /// One turn.
    ///
    /// # Errors
    /// The database's.
    pub async fn step(&self) -> Result<Turn, sqlx::Error> {
        let mut tx = self.lab.begin().await?;
        let upto: i64 = sqlx::query_scalar("select upto from lab.text_state for update")
            .fetch_one(&mut *tx)
            .await?;
        let late = self.fill_gaps(&mut tx).await?;
        // One statement, one look: what is not among these rows is a gap.
        let read: i64 = sqlx::query_scalar(
            "with fresh as materialized (
               select number, run, text from sender.message where number > $1 order by number limit $2
             ), copied as (
               insert into lab.message_text (number, slice, run, text)
               select number, number / $3, run, text from fresh on conflict do nothing
             ), gaps as (
               insert into lab.text_gap (low, high)
               select before + 1, number - 1
                 from (select number, lag(number, 1, $1) over (order by number) as before from fresh) as pair
                where number > before + 1
               on conflict do nothing
             ), moved as (
               update lab.text_state set upto = greatest(upto, (select max(number) from fresh))
                where exists (select from fresh)
             )
             select count(*) from fresh",
        )
        .bind(upto)
        .bind(BATCH)
        .bind(SLICE)
        .fetch_one(&mut *tx)
        .await?;
        let gaps = sqlx::query_scalar("select count(*) from lab.text_gap")
            .fetch_one(&mut *tx)
            .await?;
        tx.commit().await?;
        Ok(Turn { read, late, gaps })
    }

    async fn fill_gaps(&self, tx: &mut Transaction<'_, Postgres>) -> Result<u64, sqlx::Error> {
        // Before the rows are read: what these transactions committed is seen by the next statement.
        let over: Vec<i64> = sqlx::query_scalar(
            "select low from lab.text_gap where pg_snapshot_xmin(pg_current_snapshot()) >= horizon",
        )
        .fetch_all(&mut **tx)
        .await?;
        let late = sqlx::query(
            "insert into lab.message_text (number, slice, run, text)
             select m.number, m.number / $1, m.run, m.text
               from lab.text_gap g cross join lateral (
               select * from sender.message where number between g.low and g.high offset 0) as m
             on conflict do nothing",
        )
        .bind(SLICE)
        .execute(&mut **tx)
        .await?
        .rows_affected();
        sqlx::query("delete from lab.text_gap where low = any($1)")
            .bind(over)
            .execute(&mut **tx)
            .await?;
        sqlx::query(
            "update lab.text_gap set horizon = pg_snapshot_xmax(pg_current_snapshot())
              where horizon is null and seen_at <= clock_timestamp() - $1 * interval '1 ms'",
        )
        .bind(i64::try_from(self.grace.as_millis()).unwrap_or(i64::MAX))
        .execute(&mut **tx)
        .await?;
        Ok(late)
    }

    /// Forgets what was pruned in this slice, and says which is the next.
    async fn sweep(&self, slice: i64) -> Result<i64, sqlx::Error> {
        sqlx::query(
            "delete from lab.message_text t where t.number >= $1 * $2 and t.number < ($1 + 1) * $2
                and not exists (select from sender.message m where m.number = t.number)",
        )
        .bind(slice)
        .bind(SLICE)
        .execute(&self.lab)
        .await?;
        let upto: i64 = sqlx::query_scalar("select upto from lab.text_state")
            .fetch_one(&self.lab)
            .await?;
        Ok(if slice * SLICE > upto { 0 } else { slice + 1 })
    }
}
