//! The index of texts, made behind the road: a loop reads what the sender stored and copies it to the schema `lab`.
//!
//! Messages have numbers, given out in order and committed in any. So each turn reads on from the highest number that it
//! has seen, and keeps every number that was missing below as a *gap*. Gaps are looked at again each turn, until all
//! transactions are over that may have held one of their numbers: then nothing can come there any more.
//!
//! Copying costs PostgreSQL more than accepting does, and nobody waits for it. So while very much comes in, most of the time
//! is left to the road; what is not copied yet is searched as it lies.
//!
//! A turn is one transaction: a process that dies in it has changed nothing. Two consoles take turns.

use std::time::Duration;

use anyhow::Result;
use daemon::database::within;
use sqlx::{Connection, PgPool, Postgres, Transaction};
use tokio::time::{Instant, sleep};
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
/// From so many new messages a second on, the road has the first claim to the machine.
const BUSY: f64 = 1_500.0;
/// Then a turn is followed by a rest that is so many times as long, up to some seconds.
const YIELD: u32 = 6;

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
    /// The highest number that is stored, or 0.
    pub newest: i64,
}

/// How fast messages come in.
#[derive(Debug)]
struct Inflow {
    newest: i64,
    at: Instant,
    per_second: f64,
}

impl Inflow {
    fn new() -> Self {
        Self {
            newest: i64::MAX,
            at: Instant::now(),
            per_second: 0.0,
        }
    }

    /// Takes what a turn saw. Several turns may lie within a moment, so it waits for a quarter of a second to be over.
    fn see(&mut self, newest: i64, now: Instant) {
        let time = now.duration_since(self.at);
        if time >= REST / 2 {
            #[expect(clippy::cast_precision_loss, reason = "a rate")]
            let new = newest.saturating_sub(self.newest).max(0) as f64;
            *self = Self {
                newest,
                at: now,
                per_second: new / time.as_secs_f64(),
            };
        }
    }

    /// How long to rest after a turn with more to do.
    fn rest(&self, took: Duration) -> Duration {
        if self.per_second > BUSY {
            (took * YIELD).min(REST * 10)
        } else {
            Duration::ZERO
        }
    }
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
        let mut inflow = Inflow::new();
        loop {
            let began = Instant::now();
            let round = self.round(&mut prepared, (&mut slice, &mut turns)).await;
            if let Ok(turn) = &round {
                inflow.see(turn.newest, Instant::now());
            }
            match round {
                Ok(Turn { read: BATCH.., .. }) => sleep(inflow.rest(began.elapsed())).await,
                Ok(_) => sleep(REST).await,
                Err(error) => {
                    warn!(
                        error = format!("{error:#}"),
                        "the index of texts does not get on"
                    );
                    sleep(REST * 10).await;
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
        let (gaps, newest) = sqlx::query_as(
            "select (select count(*) from lab.text_gap), (select coalesce(max(number), 0) from sender.message)",
        )
        .fetch_one(&mut *tx)
        .await?;
        tx.commit().await?;
        Ok(Turn {
            read,
            late,
            gaps,
            newest,
        })
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_yields_while_much_comes_in_and_catches_up_when_it_is_over() {
        let begun = Instant::now();
        let turn = Duration::from_millis(100);
        let mut inflow = Inflow::new();
        let mut after = |ms, newest| {
            inflow.see(newest, begun + Duration::from_millis(ms));
            inflow.rest(turn)
        };
        // what was there before it began is no load
        assert_eq!(after(1_000, 1_000_000), Duration::ZERO);
        assert_eq!(after(2_000, 1_001_000), Duration::ZERO);
        assert_eq!(after(3_000, 1_005_000), turn * YIELD);
        // too soon after the last look to tell
        assert_eq!(after(3_010, 1_005_000), turn * YIELD);
        assert_eq!(after(4_000, 1_005_000), Duration::ZERO);
    }
}
