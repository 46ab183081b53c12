//! The loop that clears up each second: messages whose last lease has ended become dead letters, old keys and old counts go.
//!
//! Nothing waits for it: a lease ends by itself, and who asks for dead letters buries them first. Every node has one; each row
//! is taken by whoever comes first.

use std::time::{Duration, Instant};

use daemon::database::{is_away, within};
use sqlx::PgPool;
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use crate::{dead_letter, numbers, pushed, tally};

const EACH: Duration = Duration::from_secs(1);
/// Old keys and counts are looked for less often.
const PRUNE_EACH: Duration = Duration::from_secs(20);
/// In one statement.
const BATCH: i64 = 500;
const LIMIT: Duration = Duration::from_secs(5);

/// Clears up until the process stops.
pub(crate) async fn run(pool: PgPool, stop: CancellationToken) -> anyhow::Result<()> {
    let mut each = interval(EACH);
    each.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut pruned: Option<Instant> = None;
    while stop.run_until_cancelled(each.tick()).await.is_some() {
        let prune = pruned.is_none_or(|pruned| pruned.elapsed() >= PRUNE_EACH);
        let round = async {
            bury(&pool, &stop, Duration::MAX).await?;
            if prune {
                prune_all(&pool, &stop).await?;
            }
            Ok::<_, sqlx::Error>(())
        };
        match round.await {
            Ok(()) if prune => pruned = Some(Instant::now()),
            Ok(()) => {}
            Err(error) if is_away(&error) => tracing::debug!(%error, "nothing is cleared up"),
            Err(error) => tracing::warn!(%error, "nothing is cleared up"),
        }
    }
    Ok(())
}

/// Buries all that are dead now, as far as that takes no longer than this: when thousands die at a time, a request need not wait
/// for all of them.
pub(crate) async fn bury(
    pool: &PgPool,
    stop: &CancellationToken,
    time: Duration,
) -> Result<(), sqlx::Error> {
    let began = Instant::now();
    while !stop.is_cancelled() {
        let buried = within(LIMIT, dead_letter::bury(pool, BATCH)).await?;
        if buried.dead > 0 {
            tracing::info!(messages = buried.dead, "given up on");
            numbers::count(numbers::DEAD, usize::try_from(buried.dead).unwrap_or(0));
        }
        if buried.all() < BATCH || began.elapsed() >= time {
            break;
        }
    }
    Ok(())
}

async fn prune_all(pool: &PgPool, stop: &CancellationToken) -> Result<(), sqlx::Error> {
    within(LIMIT, tally::prune(pool)).await?;
    while !stop.is_cancelled() {
        if within(LIMIT, pushed::prune(pool, BATCH)).await? < BATCH.unsigned_abs() {
            break;
        }
    }
    Ok(())
}
