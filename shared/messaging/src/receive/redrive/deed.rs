//! The loop that does what was ordered: one batch after the other, each in one commit.

use std::{collections::HashSet, sync::Arc, time::Duration};

use chaos::FailPoints;
use serde_json::Value;
use sqlx::{FromRow, PgPool, Postgres, Transaction};
use tokio::{sync::Notify, time::Instant};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};
use uuid::Uuid;

use super::table::{Redrives, effects};
use crate::{
    bounded,
    envelope::Envelope,
    numbers,
    receive::handler::Handler,
    send::outbox,
    watching::{Sight, Watching, What},
};

/// How long an order may wait unseen, and how long until one that had to wait is tried again.
const POLL: Duration = Duration::from_secs(1);
/// How many batches a second, where the rate lets a batch be more than one message.
const BATCHES: i32 = 5;
/// Dead letters of one commit.
const BATCH_MAX: i32 = 500;
/// With so many rows that the broker has not confirmed, no further batch is begun: a cancel finds the rest parked.
const UNCONFIRMED_MAX: i64 = 1_000;
/// How long a dead receiver keeps others from its order.
const LEASE_SECS: f64 = 10.0;
/// A higher number was not counted but written into a header by somebody: where it cannot grow, the same number again would be
/// taken for a copy.
const REDRIVES_MAX: u32 = 1_000_000;

/// What the loop needs.
pub struct Redriver<H> {
    pool: PgPool,
    handler: Arc<H>,
    wake: Arc<Notify>,
    fail_points: FailPoints,
    lease: Uuid,
    watching: Watching,
}

/// How a turn went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Turn {
    /// There is nothing to do.
    Idle,
    /// There is, but not now.
    Wait,
    /// So many dead letters were decided, of an order with this rate.
    Did(usize, i32),
}

#[derive(FromRow)]
struct Held {
    redrive_id: Uuid,
    per_second: i32,
}

#[derive(FromRow)]
struct Item {
    dead_letter_id: i64,
    state: String,
    message_id: Uuid,
    kind: Option<String>,
    body: Vec<u8>,
    run: Option<String>,
    redrive: i32,
    headers: Value,
}

impl Item {
    /// As it is published: once more than it was. None: there is nothing that could be.
    fn envelope(&self) -> Option<Envelope> {
        let redrive = u32::try_from(self.redrive).ok()?.checked_add(1)?;
        if redrive > REDRIVES_MAX {
            return None;
        }
        let (run, body) = (self.run.clone(), self.body.clone());
        let kind = self.kind.clone()?;
        let envelope = Envelope::parked(self.message_id, kind, &self.headers, redrive, run, body);
        // Postgres has no room for all times that a header may name.
        envelope.filter(|envelope| envelope.accepted_at.timestamp() >= 0)
    }
}

impl<H: Handler> Redriver<H> {
    /// Of these orders.
    pub fn new(redrives: &Redrives<H>, fail_points: FailPoints) -> Self {
        Self {
            pool: redrives.pool.clone(),
            handler: Arc::clone(&redrives.handler),
            wake: Arc::clone(&redrives.wake),
            fail_points,
            lease: Uuid::new_v4(),
            watching: Watching::nobody(),
        }
    }

    /// Somebody watches.
    #[must_use]
    pub fn watched(mut self, watching: Watching) -> Self {
        self.watching = watching;
        self
    }

    /// Until `stop`. What a stopped receiver held, another goes on with at once.
    pub async fn run(self, stop: CancellationToken) {
        while !stop.is_cancelled() {
            let begun = Instant::now();
            let pause = match bounded(self.step()).await {
                Ok(Turn::Did(count, per_second)) => {
                    let due = Duration::from_secs(1).mul_f64(share(count, per_second));
                    due.saturating_sub(begun.elapsed())
                }
                Ok(Turn::Wait) => POLL / 4,
                Ok(Turn::Idle) => POLL,
                Err(error) => {
                    warn!(%error, "dead letters cannot be sent back for now");
                    POLL
                }
            };
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = self.wake.notified(), if pause == POLL => {}
                () = stop.cancelled() => {}
            }
        }
        let freed =
            sqlx::query("update redrive set lease = null, leased_until = null where lease = $1");
        if let Err(error) = bounded(freed.bind(self.lease).execute(&self.pool)).await {
            warn!(%error, "a redrive stays leased for some seconds");
        }
    }

    async fn step(&self) -> Result<Turn, sqlx::Error> {
        let Some(held) = self.hold().await? else {
            return Ok(Turn::Idle);
        };
        if outbox::waiting(&self.pool, UNCONFIRMED_MAX).await? >= UNCONFIRMED_MAX {
            return Ok(Turn::Wait);
        }
        let mut tx = self.pool.begin().await?;
        // Whoever cancels waits here for the commit, or this finds it cancelled.
        let mine: Option<bool> = sqlx::query_scalar(
            "select true from redrive where redrive_id = $1 and state = 'running' and lease = $2 for update",
        )
        .bind(held.redrive_id)
        .bind(self.lease)
        .fetch_optional(&mut *tx)
        .await?;
        if mine.is_none() {
            return Ok(Turn::Wait);
        }
        let items = one_of_each(take(&mut tx, &held).await?);
        if items.is_empty() {
            let ended = end(&mut tx, held.redrive_id).await?;
            tx.commit().await?;
            return Ok(if ended { Turn::Idle } else { Turn::Wait });
        }
        let redriven = self.decide(&mut tx, held.redrive_id, &items).await?;
        self.hit("redrive.before_commit").await?;
        tx.commit().await?;
        self.tell(held.redrive_id, &redriven);
        self.hit("redrive.after_commit").await?;
        Ok(Turn::Did(items.len(), held.per_second))
    }

    /// The oldest order that nobody is at, or that this receiver is at already.
    async fn hold(&self) -> Result<Option<Held>, sqlx::Error> {
        sqlx::query_as(
            "update redrive set lease = $1, leased_until = clock_timestamp() + $2 * interval '1 s'
              where redrive_id = (
                    select redrive_id from redrive
                     where state = 'running'
                       and (lease = $1 or leased_until is null or leased_until <= clock_timestamp())
                     order by started_at limit 1 for update skip locked)
             returning redrive_id, per_second",
        )
        .bind(self.lease)
        .bind(LEASE_SECS)
        .fetch_optional(&self.pool)
        .await
    }

    /// Marks a batch, and adds rows for those that are to be published: these are returned.
    async fn decide(
        &self,
        tx: &mut Transaction<'_, Postgres>,
        redrive_id: Uuid,
        items: &[Item],
    ) -> Result<Vec<Envelope>, sqlx::Error> {
        let parked: Vec<&Item> = items.iter().filter(|item| item.state == "parked").collect();
        let ids: Vec<Uuid> = parked.iter().map(|item| item.message_id).collect();
        let done = effects(&*self.handler, tx, &ids).await?;
        let mut envelopes = Vec::new();
        let (mut redriven, mut has_effect) = (Vec::new(), Vec::new());
        for item in parked {
            if done.contains(&item.message_id) {
                has_effect.push(item.dead_letter_id);
            } else if let Some(envelope) = item.envelope() {
                redriven.push(item.dead_letter_id);
                envelopes.push(envelope);
            }
        }
        outbox::append_redriven(tx, &envelopes).await?;
        let all: Vec<i64> = items.iter().map(|item| item.dead_letter_id).collect();
        sqlx::query(
            "update dead_letter set redriven_by = $1, decided_at = clock_timestamp(),
                    state = case when dead_letter_id = any ($2) then 'redriven' else 'has-effect' end
              where dead_letter_id = any ($2) or dead_letter_id = any ($3)",
        )
        .bind(redrive_id)
        .bind(&redriven)
        .bind(&has_effect)
        .execute(&mut **tx)
        .await?;
        sqlx::query(
            "update redrive_item set done_at = clock_timestamp(),
                    state = case when dead_letter_id = any ($2) then 'redriven'
                                 when dead_letter_id = any ($3) then 'has-effect' else 'gone' end
              where redrive_id = $1 and dead_letter_id = any ($4)",
        )
        .bind(redrive_id)
        .bind(&redriven)
        .bind(&has_effect)
        .bind(&all)
        .execute(&mut **tx)
        .await?;
        sqlx::query(
            "update redrive set redriven = redriven + $2, has_effect = has_effect + $3, gone = gone + $4
              where redrive_id = $1",
        )
        .bind(redrive_id)
        .bind(length(redriven.len()))
        .bind(length(has_effect.len()))
        .bind(length(all.len() - redriven.len() - has_effect.len()))
        .execute(&mut **tx)
        .await?;
        Ok(envelopes)
    }

    async fn hit(&self, name: &'static str) -> Result<(), sqlx::Error> {
        let hit = self.fail_points.hit(name).await;
        hit.map_err(|injected| sqlx::Error::Io(std::io::Error::other(injected.to_string())))
    }

    /// These are committed: who watches is told.
    fn tell(&self, redrive_id: Uuid, redriven: &[Envelope]) {
        info!(redrive = %redrive_id, count = redriven.len(), "dead letters are sent back");
        let count = u64::try_from(redriven.len()).unwrap_or(u64::MAX);
        metrics::counter!(numbers::REDRIVEN).increment(count);
        for envelope in redriven {
            let seen = Sight::new(What::Redriven, envelope.message_id);
            self.watching.tell(&seen.run(envelope.run.as_deref()));
        }
    }
}

/// The next dead letters of an order, locked: who else has them in an order of its own waits, and finds them decided. One
/// whose message is still in the outbox waits: a row there is one publish.
async fn take(tx: &mut Transaction<'_, Postgres>, held: &Held) -> Result<Vec<Item>, sqlx::Error> {
    sqlx::query_as(
        "select d.dead_letter_id, d.state, d.message_id, d.kind, d.body, d.run, d.redrive, d.headers
           from redrive_item i join dead_letter d using (dead_letter_id)
          where i.redrive_id = $1 and i.state = 'selected'
            and not exists (select from outbox o where o.message_id = d.message_id)
          order by i.dead_letter_id limit $2 for update of d",
    )
    .bind(held.redrive_id)
    .bind(i64::from(batch(held.per_second)))
    .fetch_all(&mut **tx)
    .await
}

/// Of two dead letters of one message the first. Nothing of ours makes two that are parked, but whoever publishes under an id of
/// ours can; a row of the outbox is one publish, so the other one has its turn later.
fn one_of_each(mut items: Vec<Item>) -> Vec<Item> {
    let mut seen = HashSet::new();
    items.retain(|item| seen.insert(item.message_id));
    items
}

/// Ends an order of which nothing is left.
async fn end(tx: &mut Transaction<'_, Postgres>, redrive_id: Uuid) -> Result<bool, sqlx::Error> {
    let ended = sqlx::query(
        "update redrive set state = 'done', ended_at = clock_timestamp(), lease = null, leased_until = null
          where redrive_id = $1
            and not exists (select from redrive_item i where i.redrive_id = $1 and i.state = 'selected')",
    )
    .bind(redrive_id)
    .execute(&mut **tx)
    .await?;
    let ended = ended.rows_affected() == 1;
    if ended {
        info!(redrive = %redrive_id, "a redrive is done");
    }
    Ok(ended)
}

fn batch(per_second: i32) -> i32 {
    (per_second / BATCHES).clamp(1, BATCH_MAX)
}

/// The part of a second that so many take.
fn share(count: usize, per_second: i32) -> f64 {
    let count = u32::try_from(count).unwrap_or(u32::MAX);
    f64::from(count) / f64::from(per_second.max(1))
}

fn length(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn batches_are_small_enough_to_keep_the_rate_and_large_enough_for_a_high_one() {
        assert_eq!([1, 4, 50, 10_000].map(batch), [1, 1, 10, 500]);
        assert!((share(10, 50) - 0.2).abs() < 1e-9);
        assert!((share(1, 1) - 1.0).abs() < 1e-9);
    }
}
