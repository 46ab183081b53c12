//! Rows to publish. A row is here from the commit that accepted its message until the broker has
//! confirmed it, and nobody publishes a message that has no row.
//!
//! A row is free when its `free_at` has passed, by the database's clock. A claim is a lease: it moves
//! `free_at` into the future and names the publisher session that holds it. A node that dies, or that
//! cannot reach the database, stops renewing, and the rows become free for every other node.
//!
//! Between a confirm and its [`mark`] the node may die: the row is published again, under
//! the same id, and the receiver's inbox knows it.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use chrono::{DateTime, Utc};
use sqlx::{FromRow, PgConnection, PgPool, Postgres, Transaction, postgres::types::PgInterval};
use uuid::Uuid;

use crate::{
    envelope::Envelope,
    guarantee::{Guarantee, Without},
};

/// How long a claim holds without being renewed.
pub const LEASE: Duration = Duration::from_secs(10);

/// Whether what is accepted is also an order to publish it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outbox {
    /// It is a row, from the same commit on, until the broker has confirmed it.
    Rows,
    /// It is published from memory after the commit: what goes wrong there is lost.
    MemoryOnly,
}

impl Outbox {
    pub(crate) fn new(without: &Without) -> Self {
        if without.has(Guarantee::Outbox) {
            Self::MemoryOnly
        } else {
            Self::Rows
        }
    }

    /// How many groups may wait for the publishers.
    pub(crate) fn places(self) -> usize {
        match self {
            // further ones are left to be claimed
            Self::Rows => 64,
            // further ones would be lost, and that only because there is much to do
            Self::MemoryOnly => 1_000_000,
        }
    }

    /// See [`append`].
    pub(crate) async fn append(
        self,
        tx: &mut Transaction<'_, Postgres>,
        envelopes: &[Envelope],
        lease: Option<Uuid>,
    ) -> Result<(), sqlx::Error> {
        match self {
            Self::Rows => append(tx, envelopes, lease).await,
            Self::MemoryOnly => Ok(()),
        }
    }
}

/// Adds rows for `envelopes`, in the transaction that stores the messages themselves. With a `lease`
/// they are held by that publisher session at once; without, they are free for any.
async fn append(
    tx: &mut Transaction<'_, Postgres>,
    envelopes: &[Envelope],
    lease: Option<Uuid>,
) -> Result<(), sqlx::Error> {
    let ids: Vec<Uuid> = envelopes.iter().map(|e| e.message_id).collect();
    let kinds: Vec<&str> = envelopes.iter().map(|e| e.kind.as_str()).collect();
    let bodies: Vec<&[u8]> = envelopes.iter().map(|e| e.body.as_slice()).collect();
    let nodes: Vec<&str> = envelopes.iter().map(|e| e.node.as_str()).collect();
    let runs: Vec<Option<&str>> = envelopes.iter().map(|e| e.run.as_deref()).collect();
    let times: Vec<DateTime<Utc>> = envelopes.iter().map(|e| e.accepted_at).collect();
    sqlx::query(
        "insert into outbox (message_id, kind, body, node, run, accepted_at, lease, free_at)
         select id, kind, body, node, run, accepted_at, $7::uuid,
                clock_timestamp() + case when $7::uuid is null then interval '0' else $8 end
           from unnest($1::uuid[], $2::text[], $3::bytea[], $4::text[], $5::text[], $6::timestamptz[])
             as row (id, kind, body, node, run, accepted_at)",
    )
    .bind(ids)
    .bind(kinds)
    .bind(bodies)
    .bind(nodes)
    .bind(runs)
    .bind(times)
    .bind(lease)
    .bind(interval(LEASE))
    .execute(&mut **tx)
    .await?;
    Ok(())
}

/// Adds rows for messages that are sent back on purpose, free for any session, in the transaction that says so of their dead
/// letters. None of them may have a row already.
pub(crate) async fn append_redriven(
    tx: &mut Transaction<'_, Postgres>,
    envelopes: &[Envelope],
) -> Result<(), sqlx::Error> {
    append(tx, envelopes, None).await?;
    let redrives = envelopes
        .iter()
        .map(|e| i32::try_from(e.redrive).unwrap_or(i32::MAX));
    sqlx::query(
        "update outbox set redrive = row.redrive
           from unnest($1::uuid[], $2::int[]) as row (id, redrive) where message_id = row.id",
    )
    .bind(envelopes.iter().map(|e| e.message_id).collect::<Vec<_>>())
    .bind(redrives.collect::<Vec<_>>())
    .execute(&mut **tx)
    .await?;
    Ok(())
}

/// How many rows there are, counted to `most` only.
pub(crate) async fn waiting(pool: &PgPool, most: i64) -> Result<i64, sqlx::Error> {
    sqlx::query_scalar("select count(*) from (select from outbox limit $1) as counted")
        .bind(most)
        .fetch_one(pool)
        .await
}

#[derive(FromRow)]
struct Row {
    message_id: Uuid,
    kind: String,
    body: Vec<u8>,
    node: String,
    run: Option<String>,
    accepted_at: DateTime<Utc>,
    tries: i32,
    redrive: i32,
}

/// A claimed row: publish it, then say how it went.
#[derive(Debug, Clone)]
pub struct Claimed {
    /// What to publish.
    pub envelope: Envelope,
    /// How often that was tried before and refused or returned.
    pub tries: i32,
}

/// Claims up to `most` free rows for the publisher session `lease`, the longest free first. Rows that
/// another node is claiming at this moment are skipped, not waited for.
///
/// The inner select is an array on purpose: planned while the table was empty, a semi-join would
/// run it, with its limit, once for every row.
pub async fn claim(pool: &PgPool, lease: Uuid, most: usize) -> Result<Vec<Claimed>, sqlx::Error> {
    let rows: Vec<Row> = sqlx::query_as(
        "update outbox set lease = $1, free_at = clock_timestamp() + $2
          where message_id = any (array(
                select message_id from outbox where free_at <= clock_timestamp()
                 order by free_at limit $3 for update skip locked))
         returning message_id, kind, body, node, run, accepted_at, tries, redrive",
    )
    .bind(lease)
    .bind(interval(LEASE))
    .bind(i64::try_from(most).unwrap_or(i64::MAX))
    .fetch_all(pool)
    .await?;
    Ok(rows
        .into_iter()
        .map(|row| Claimed {
            envelope: Envelope {
                message_id: row.message_id,
                kind: row.kind,
                accepted_at: row.accepted_at,
                node: row.node,
                run: row.run,
                attempts: 0,
                redrive: u32::try_from(row.redrive).unwrap_or(0),
                body: row.body,
            },
            tries: row.tries,
        })
        .collect())
}

/// Holds these rows of the session `lease` for another [`LEASE`]. Rows that are being marked at this
/// moment are left alone: they are about to go.
pub async fn renew(pool: &PgPool, lease: Uuid, message_ids: &[Uuid]) -> Result<(), sqlx::Error> {
    sqlx::query(
        "update outbox set free_at = clock_timestamp() + $3
          where message_id = any (array(
                select message_id from outbox where message_id = any ($2) and lease = $1
                   for update skip locked))",
    )
    .bind(lease)
    .bind(message_ids)
    .bind(interval(LEASE))
    .execute(pool)
    .await?;
    Ok(())
}

/// Frees everything that the session `lease` still holds.
pub async fn release(pool: &PgPool, lease: Uuid) -> Result<(), sqlx::Error> {
    sqlx::query("update outbox set lease = null, free_at = clock_timestamp() where lease = $1")
        .bind(lease)
        .execute(pool)
        .await?;
    Ok(())
}

/// What the broker said of one publish.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Every queue it was routed to has it.
    Confirmed,
    /// It was routed to no queue, and came back.
    Unroutable,
    /// A queue refused it (full, or failing inside).
    Refused,
}

impl Outcome {
    /// As in the database and in metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Confirmed => "confirmed",
            Self::Unroutable => "unroutable",
            Self::Refused => "refused",
        }
    }
}

/// One publish, seen to its end.
#[derive(Debug, Clone)]
pub struct Published {
    /// Which message.
    pub message_id: Uuid,
    /// In which redrive: the order to publish that this was. 0 for none.
    pub redrive: u32,
    /// How it went.
    pub outcome: Outcome,
    /// The how manieth try this was, from 1.
    pub tries: i32,
    /// When it was handed to the library.
    pub at: Instant,
    /// Milliseconds from then to the broker's word.
    pub confirm_ms: i32,
}

/// Removes confirmed rows, and gives the others back with a pause that grows from 1 s to 30 s. The
/// history of tries is written in the same transaction, since it costs no further round trip.
///
/// A row is known by its message **and** its redrive. A message that was sent back, given up on and sent back again has another
/// row by then, and a mark that comes late must not take that one for its own.
pub async fn mark(pool: &PgPool, node: &str, published: &[Published]) -> Result<(), sqlx::Error> {
    let mut tx = pool.begin().await?;
    for (redrive, ids) in orders(published, Outcome::Confirmed) {
        // Whoever holds the lease by now: the broker has the message.
        sqlx::query("delete from outbox where message_id = any($1) and redrive = $2")
            .bind(ids)
            .bind(redrive)
            .execute(&mut *tx)
            .await?;
    }
    for outcome in [Outcome::Unroutable, Outcome::Refused] {
        for (redrive, ids) in orders(published, outcome) {
            give_back(&mut tx, &ids, redrive, outcome).await?;
        }
    }
    record(&mut tx, node, published).await?;
    tx.commit().await
}

/// Those with this outcome, by redrive: of a sender all are of none.
fn orders(published: &[Published], outcome: Outcome) -> BTreeMap<i32, Vec<Uuid>> {
    let mut orders: BTreeMap<i32, Vec<Uuid>> = BTreeMap::new();
    for one in published.iter().filter(|one| one.outcome == outcome) {
        let redrive = i32::try_from(one.redrive).unwrap_or(i32::MAX);
        orders.entry(redrive).or_default().push(one.message_id);
    }
    orders
}

async fn give_back(
    connection: &mut PgConnection,
    ids: &[Uuid],
    redrive: i32,
    outcome: Outcome,
) -> Result<(), sqlx::Error> {
    sqlx::query(
        "update outbox set state = $2, tries = tries + 1, lease = null,
                free_at = clock_timestamp() + least(30, power(2, least(tries, 5))) * interval '1 s'
          where message_id = any($1) and redrive = $3",
    )
    .bind(ids)
    .bind(outcome.as_str())
    .bind(redrive)
    .execute(connection)
    .await?;
    Ok(())
}

async fn record(
    connection: &mut PgConnection,
    node: &str,
    published: &[Published],
) -> Result<(), sqlx::Error> {
    // Told as an age, by the database's clock: marks gather, and a delivery may long be over when this is written.
    let age = |at: Instant| i64::try_from(at.elapsed().as_micros()).unwrap_or(i64::MAX);
    sqlx::query(
        "insert into publication (message_id, node, try, outcome, confirm_ms, published_at, late_ms)
         select id, $5, try, outcome, ms, clock_timestamp() - age * interval '1 us', least(age / 1000, 2147483647)
           from unnest($1::uuid[], $2::int[], $3::text[], $4::int[], $6::bigint[])
             as row (id, try, outcome, ms, age)",
    )
    .bind(published.iter().map(|p| p.message_id).collect::<Vec<_>>())
    .bind(published.iter().map(|p| p.tries).collect::<Vec<_>>())
    .bind(
        published
            .iter()
            .map(|p| p.outcome.as_str())
            .collect::<Vec<_>>(),
    )
    .bind(published.iter().map(|p| p.confirm_ms).collect::<Vec<_>>())
    .bind(node)
    .bind(published.iter().map(|p| age(p.at)).collect::<Vec<_>>())
    .execute(connection)
    .await?;
    Ok(())
}

/// How many rows wait.
#[derive(Debug, Clone, Default, PartialEq, Eq, FromRow)]
pub struct Depth {
    /// All rows.
    pub waiting: i64,
    /// Those that came back unroutable at their last try.
    pub unroutable: i64,
    /// Those that the queue refused at their last try.
    pub refused: i64,
    /// When the oldest was accepted.
    pub oldest: Option<DateTime<Utc>>,
}

/// Counts the rows: reads the whole table, so not for every request.
pub async fn depth(pool: &PgPool) -> Result<Depth, sqlx::Error> {
    sqlx::query_as(
        "select count(*) as waiting,
                count(*) filter (where state = 'unroutable') as unroutable,
                count(*) filter (where state = 'refused') as refused,
                min(accepted_at) as oldest
           from outbox",
    )
    .fetch_one(pool)
    .await
}

/// How many further rows fit under `max`, exactly: concurrent callers wait for each other until they
/// commit. Only for the neighbourhood of the limit.
pub async fn room(tx: &mut Transaction<'_, Postgres>, max: u64) -> Result<u64, sqlx::Error> {
    // Any number will do, as long as nothing else in this database locks it.
    sqlx::query("select pg_advisory_xact_lock(7277)")
        .execute(&mut **tx)
        .await?;
    let (rows,): (i64,) = sqlx::query_as("select count(*) from outbox")
        .fetch_one(&mut **tx)
        .await?;
    Ok(max.saturating_sub(u64::try_from(rows).unwrap_or(0)))
}

fn interval(duration: Duration) -> PgInterval {
    PgInterval {
        months: 0,
        days: 0,
        microseconds: i64::try_from(duration.as_micros()).unwrap_or(i64::MAX),
    }
}
