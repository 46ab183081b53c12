//! All SQL of the table `message`: what was pushed and is not confirmed.
//!
//! A message is free when its `free_at` has passed, by the database's clock. A lease moves `free_at` to its own end and draws a
//! token; that a lease ends, and that its message then stands at the end of the queue, is nothing that anybody does.

use chrono::{DateTime, Utc};
use sqlx::{FromRow, PgPool, Postgres, Transaction};
use uuid::Uuid;

use crate::{hold::Holder, push::Pushed};

/// Where nodes hear that messages are free: see [`crate::bell`].
pub(crate) const CHANNEL: &str = "leases";

/// What every transaction that reads a queue begins with. The tables are often empty, and a plan made then, and kept, would walk
/// all of them when they are full.
pub(crate) const BEGIN: &str =
    "begin; set local enable_seqscan = off; set local enable_bitmapscan = off; set local jit = off";

/// Begins one.
pub(crate) async fn begin(pool: &PgPool) -> Result<Transaction<'static, Postgres>, sqlx::Error> {
    pool.begin_with(BEGIN).await
}

/// Adds messages at the end of their queues, in this order, and rings for each queue once.
pub(crate) async fn insert(
    tx: &mut Transaction<'_, Postgres>,
    messages: &[Pushed<'_>],
) -> Result<(), sqlx::Error> {
    let mut queues: Vec<i32> = messages.iter().map(|m| m.queue_id).collect();
    queues.sort_unstable();
    queues.dedup();
    sqlx::query(
        "with pushed as (
           insert into message (message_id, queue_id, free_at, body, run)
           select id, queue_id, statement_timestamp(), body, run
             from unnest($1::uuid[], $2::int[], $3::text[], $4::text[])
                  with ordinality as row (id, queue_id, body, run, place)
            order by place)
         select pg_notify($5, queue_id::text) from unnest($6::int[]) as queue (queue_id)",
    )
    .bind(messages.iter().map(|m| m.message_id).collect::<Vec<_>>())
    .bind(messages.iter().map(|m| m.queue_id).collect::<Vec<_>>())
    .bind(messages.iter().map(|m| m.body).collect::<Vec<_>>())
    .bind(messages.iter().map(|m| m.run).collect::<Vec<_>>())
    .bind(CHANNEL)
    .bind(queues)
    .execute(&mut **tx)
    .await?;
    Ok(())
}

/// Which messages to lease.
pub(crate) struct Wanted {
    pub(crate) queue_id: i32,
    /// Free since this time or later: a look above the dead rows. None looks at all.
    pub(crate) floor: Option<DateTime<Utc>>,
    pub(crate) most: i64,
    /// Of bodies together, but for the first.
    pub(crate) bytes: i64,
    /// The queue's own where nothing is said.
    pub(crate) lease_ms: Option<i32>,
}

/// A message under a new lease.
#[derive(Debug, FromRow)]
pub(crate) struct Leased {
    place: i64,
    /// Since when it had been free.
    pub(crate) was_free_at: DateTime<Utc>,
    pub(crate) message_id: Uuid,
    pub(crate) body: String,
    pub(crate) token: Uuid,
    pub(crate) receive_count: i32,
}

/// Leases the messages of a queue that have been free the longest. Those that another node is leasing at this moment are
/// skipped, not waited for. All get the same end, so when it comes they are in the order they were in.
///
/// The array is there on purpose: planned while the table was empty, a join would read all of it. The bounds are stable, so
/// that the index ends where the free ones end. What is free is what was so when the transaction began: several of these in one
/// never lease a message twice, however short the lease.
pub(crate) async fn lease(
    tx: &mut Transaction<'_, Postgres>,
    wanted: &Wanted,
) -> Result<Vec<Leased>, sqlx::Error> {
    let mut leased: Vec<Leased> = sqlx::query_as(
        "with free as materialized (
           select message_id, free_at, seq, octet_length(body) as length from message
            where queue_id = $1 and not final
              and free_at >= coalesce($2, '-infinity') and free_at <= now()
            order by free_at, seq limit $3 for update skip locked),
         counted as materialized (
           select message_id, free_at, row_number() over before as place, sum(length) over before - length as bytes
             from free window before as (order by free_at, seq))
         update message m
            set free_at = statement_timestamp() + coalesce($5, queue.lease_ms) * interval '1 ms',
                token = gen_random_uuid(), receive_count = receive_count + 1,
                final = max_receives > 0 and receive_count + 1 >= max_receives
           from counted, queue
          where m.message_id = any (array(select message_id from counted where bytes < $4 or place = 1))
            and counted.message_id = m.message_id and queue.queue_id = $1
         returning place, counted.free_at as was_free_at, m.message_id, body, token, receive_count",
    )
    .bind(wanted.queue_id)
    .bind(wanted.floor)
    .bind(wanted.most)
    .bind(wanted.bytes)
    .bind(wanted.lease_ms)
    .fetch_all(&mut **tx)
    .await?;
    leased.sort_unstable_by_key(|leased| leased.place);
    Ok(leased)
}

/// A message whose lease is still live, as it was found by whom it is leased to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, FromRow)]
pub(crate) struct Held {
    pub(crate) message_id: Uuid,
    pub(crate) queue_id: i32,
    pub(crate) token: Uuid,
}

// What the three below do to a message they do by what `known` found after it had waited for its lock: the newest version. The
// outer table is read as it was when the statement began, so its columns are those of a lease that was extended meanwhile, or
// has ended since; it is there for the id alone.

/// Removes messages that are leased; which they were. Locks are taken in the order of the ids, so that two of these cannot
/// wait for each other.
pub(crate) async fn confirm(
    tx: &mut Transaction<'_, Postgres>,
    holders: &[Holder],
) -> Result<Vec<Held>, sqlx::Error> {
    let sql = "with known as materialized (
           select message_id, queue_id, token, free_at
             from message where message_id = any ($1) order by message_id for update)
         delete from message m using known, unnest($1, $2::int[], $3::uuid[]) as holder (id, queue, token)
          where m.message_id = any (array(select message_id from known)) and m.message_id = known.message_id
            and known.message_id = holder.id and known.queue_id = holder.queue
            and known.token = coalesce(holder.token, known.token) and known.free_at > clock_timestamp()
         returning known.message_id, known.queue_id, known.token";
    let query = sqlx::query_as(sql)
        .bind(holders.iter().map(|h| h.message_id).collect::<Vec<_>>())
        .bind(holders.iter().map(|h| h.queue_id).collect::<Vec<_>>())
        .bind(holders.iter().map(|h| h.token).collect::<Vec<_>>());
    query.fetch_all(&mut **tx).await
}

/// Moves the end of live leases to so many milliseconds from now; which they were. Rings where that end is earlier than before.
pub(crate) async fn extend(
    tx: &mut Transaction<'_, Postgres>,
    holders: &[(Holder, Option<i32>)],
) -> Result<Vec<Held>, sqlx::Error> {
    let sql = "with known as materialized (
           select message_id, queue_id, token, free_at
             from message where message_id = any ($1) order by message_id for update),
         extended as (
           update message m
              set free_at = clock_timestamp() + coalesce(holder.lease_ms, queue.lease_ms) * interval '1 ms'
             from unnest($1, $2::int[], $3::uuid[], $4::int[]) as holder (id, queue, token, lease_ms), known, queue
            where m.message_id = any (array(select message_id from known)) and m.message_id = known.message_id
              and queue.queue_id = known.queue_id and known.message_id = holder.id and known.queue_id = holder.queue
              and known.token = coalesce(holder.token, known.token) and known.free_at > clock_timestamp()
           returning known.message_id, known.queue_id, known.token, m.free_at < known.free_at as earlier)
         select message_id, queue_id, token,
                case when earlier then pg_notify($5, queue_id::text)::text end from extended";
    let query = sqlx::query_as(sql)
        .bind(
            holders
                .iter()
                .map(|(h, _)| h.message_id)
                .collect::<Vec<_>>(),
        )
        .bind(holders.iter().map(|(h, _)| h.queue_id).collect::<Vec<_>>())
        .bind(holders.iter().map(|(h, _)| h.token).collect::<Vec<_>>())
        .bind(holders.iter().map(|(_, ms)| *ms).collect::<Vec<_>>())
        .bind(CHANNEL);
    query.fetch_all(&mut **tx).await
}

/// Ends live leases now, so that their messages stand at the end of the queue; which they were. Rings for each. With `true` the
/// lease reached nobody, and does not count.
pub(crate) async fn give_back(
    tx: &mut Transaction<'_, Postgres>,
    holders: &[(Holder, bool)],
) -> Result<Vec<Held>, sqlx::Error> {
    let sql = "with known as materialized (
           select message_id, queue_id, token, free_at, receive_count, final
             from message where message_id = any ($1) order by message_id for update),
         given as (
           update message m
              set free_at = clock_timestamp(), token = null,
                  receive_count = known.receive_count - holder.unseen::int, final = known.final and not holder.unseen
             from unnest($1, $2::int[], $3::uuid[], $4::bool[]) as holder (id, queue, token, unseen), known
            where m.message_id = any (array(select message_id from known)) and m.message_id = known.message_id
              and known.message_id = holder.id and known.queue_id = holder.queue
              and known.token = coalesce(holder.token, known.token) and known.free_at > clock_timestamp()
           returning known.message_id, known.queue_id, known.token)
         select message_id, queue_id, token, pg_notify($5, queue_id::text)::text from given";
    let query = sqlx::query_as(sql)
        .bind(
            holders
                .iter()
                .map(|(h, _)| h.message_id)
                .collect::<Vec<_>>(),
        )
        .bind(holders.iter().map(|(h, _)| h.queue_id).collect::<Vec<_>>())
        .bind(holders.iter().map(|(h, _)| h.token).collect::<Vec<_>>())
        .bind(
            holders
                .iter()
                .map(|(_, unseen)| *unseen)
                .collect::<Vec<_>>(),
        )
        .bind(CHANNEL);
    query.fetch_all(&mut **tx).await
}

/// When the next message of each queue is free, in milliseconds from now: below 0 where it is free already. Queues without any
/// are left out.
pub(crate) async fn next_free(
    pool: &PgPool,
    queues: &[i32],
) -> Result<Vec<(i32, f64)>, sqlx::Error> {
    let mut tx = begin(pool).await?;
    let next = sqlx::query_as(
        "select queue_id, extract(epoch from next.free_at - clock_timestamp())::float8 * 1000
           from unnest($1::int[]) as queue (queue_id), lateral (
                select free_at from message m where m.queue_id = queue.queue_id and not final
                 order by free_at, seq limit 1) as next",
    )
    .bind(queues)
    .fetch_all(&mut *tx)
    .await?;
    tx.commit().await?;
    Ok(next)
}
