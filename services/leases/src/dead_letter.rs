//! All SQL of the table `dead_letter`: messages that were leased as often as their queue allows, and never confirmed.
//!
//! A message whose last lease has ended is found by no lease. [`bury`] moves it here; each node does that each second, and
//! before any answer that shows dead letters.

use chrono::{DateTime, Utc};
use sqlx::{FromRow, PgPool};
use uuid::Uuid;

use crate::message::{CHANNEL, begin};

/// What was done with messages whose last lease has ended.
#[derive(Debug, Default, FromRow)]
pub(crate) struct Buried {
    pub(crate) dead: i64,
    /// Their queue allows more leases by now: they are back in it.
    freed: i64,
}

impl Buried {
    pub(crate) fn all(&self) -> i64 {
        self.dead + self.freed
    }
}

/// Moves messages whose last lease has ended, so many at most. Those that another node is moving are skipped. A queue may be
/// changed while a last lease lasts: what it says when that ends is what holds.
pub(crate) async fn bury(pool: &PgPool, most: i64) -> Result<Buried, sqlx::Error> {
    let mut tx = begin(pool).await?;
    let buried = sqlx::query_as(
        "with ended as materialized (
           select message_id, queue_id, receive_count from message where final and free_at <= statement_timestamp()
            order by free_at limit $1 for update skip locked),
         judged as materialized (
           select message_id, queue_id, max_receives > 0 and receive_count >= max_receives as dead
             from ended join queue using (queue_id)),
         gone as (
           delete from message where message_id = any (array(select message_id from judged where dead))
           returning message_id, queue_id, body, receive_count, run, pushed_at, free_at, seq),
         buried as (
           insert into dead_letter (message_id, queue_id, body, receive_count, run, pushed_at)
           select message_id, queue_id, body, receive_count, run, pushed_at from gone order by free_at, seq
           returning message_id),
         freed as (
           update message set final = false
            where message_id = any (array(select message_id from judged where not dead))
           returning queue_id)
         select (select count(*) from buried) as dead, count(queue_id) as freed,
                count(pg_notify($2, queue_id::text)::text) as rung from freed",
    )
    .bind(most)
    .bind(CHANNEL)
    .fetch_one(&mut *tx)
    .await?;
    tx.commit().await?;
    Ok(buried)
}

/// A dead letter.
#[derive(Debug, FromRow)]
pub(crate) struct DeadLetter {
    pub(crate) number: i64,
    pub(crate) message_id: Uuid,
    pub(crate) body: String,
    pub(crate) receive_count: i32,
    pub(crate) pushed_at: DateTime<Utc>,
    pub(crate) dead_at: DateTime<Utc>,
}

/// The dead letters of a queue after this number, the first ones first; bodies of `bytes` together, but for the first.
pub(crate) async fn list(
    pool: &PgPool,
    queue_id: i32,
    after: i64,
    most: i64,
    bytes: i64,
) -> Result<Vec<DeadLetter>, sqlx::Error> {
    let mut tx = begin(pool).await?;
    let found = sqlx::query_as(
        "with counted as (
           select number, row_number() over before as place, sum(length) over before - length as bytes
             from (select number, octet_length(body) as length from dead_letter
                    where queue_id = $1 and number > $2 order by number limit $3) as found
           window before as (order by number))
         select number, message_id, body, receive_count, pushed_at, dead_at
           from dead_letter join counted using (number) where bytes < $4 or place = 1 order by number",
    )
    .bind(queue_id)
    .bind(after)
    .bind(most)
    .bind(bytes)
    .fetch_all(&mut *tx)
    .await?;
    tx.commit().await?;
    Ok(found)
}

/// Which dead letters of a queue are meant.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Meant<'a> {
    pub(crate) queue_id: i32,
    /// None: all.
    pub(crate) ids: Option<&'a [Uuid]>,
    /// None above this number, so that what dies meanwhile is not swept in.
    pub(crate) up_to: i64,
    pub(crate) most: i64,
}

/// The highest number there is now.
pub(crate) async fn last(pool: &PgPool, queue_id: i32) -> Result<i64, sqlx::Error> {
    let mut tx = begin(pool).await?;
    let sql = "select coalesce(max(number), 0) from dead_letter where queue_id = $1";
    let last = sqlx::query_scalar(sql)
        .bind(queue_id)
        .fetch_one(&mut *tx)
        .await?;
    tx.commit().await?;
    Ok(last)
}

/// Sends dead letters back to the end of their queue, as if they had never been leased; how many.
pub(crate) async fn redrive(pool: &PgPool, meant: Meant<'_>) -> Result<u64, sqlx::Error> {
    let mut tx = begin(pool).await?;
    let done = sqlx::query(
        "with gone as (
           delete from dead_letter where number = any (array(
                  select number from dead_letter
                   where queue_id = $1 and number <= $3 and ($2::uuid[] is null or message_id = any ($2))
                   order by number limit $4 for update skip locked))
           returning number, message_id, body, run, pushed_at),
         back as (
           insert into message (message_id, queue_id, free_at, body, run, pushed_at)
           select message_id, $1, statement_timestamp(), body, run, pushed_at from gone order by number
           returning message_id)
         select pg_notify($5, $1::text) from back",
    )
    .bind(meant.queue_id)
    .bind(meant.ids)
    .bind(meant.up_to)
    .bind(meant.most)
    .bind(CHANNEL)
    .execute(&mut *tx)
    .await?;
    tx.commit().await?;
    Ok(done.rows_affected())
}

/// Removes dead letters for good; how many.
pub(crate) async fn discard(pool: &PgPool, meant: Meant<'_>) -> Result<u64, sqlx::Error> {
    let mut tx = begin(pool).await?;
    let done = sqlx::query(
        "delete from dead_letter where number = any (array(
                select number from dead_letter
                 where queue_id = $1 and number <= $3 and ($2::uuid[] is null or message_id = any ($2))
                 order by number limit $4 for update skip locked))",
    )
    .bind(meant.queue_id)
    .bind(meant.ids)
    .bind(meant.up_to)
    .bind(meant.most)
    .execute(&mut *tx)
    .await?;
    tx.commit().await?;
    Ok(done.rows_affected())
}
