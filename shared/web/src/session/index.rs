//! The index of active sessions: a sorted set of their ids, scored by when they end.

use std::time::Duration;

use daemon::{
    clock,
    redis::fred::{
        interfaces::SortedSetsInterface,
        types::sorted_sets::{Ordering, ZSort},
    },
};

use super::redis::{Away, Redis};

const PRUNE_EACH: Duration = Duration::from_secs(30);
/// How many are taken out at once: Redis does nothing else meanwhile.
const PRUNE_MAX: i64 = 2_000;

pub(super) async fn add(redis: &Redis, id: String, ends: i64) -> Result<(), Away> {
    // Only later: of two requests at once, the slower may have read the clock earlier.
    let later = Some(Ordering::GreaterThan);
    let entry = (score(ends), id);
    let add = redis
        .pool
        .zadd::<(), _, _>(redis.index(), None, later, false, false, entry);
    redis.ask("index", add).await
}

pub(super) async fn remove(redis: &Redis, id: String) -> Result<(), Away> {
    redis
        .ask("index", redis.pool.zrem::<(), _, _>(redis.index(), id))
        .await
}

/// Never ends; sleeps longer than it works.
pub(super) async fn prune_forever(redis: &Redis) {
    loop {
        // Away, or not connected yet: nothing is missed, and the next round tries again.
        while redis.reachable()
            && let Ok(taken) = prune(redis).await
            && taken == PRUNE_MAX
        {}
        tokio::time::sleep(PRUNE_EACH).await;
    }
}

/// Takes out a bounded number of ended sessions, by name: by rank, two nodes that prune at once
/// would take out living ones.
async fn prune(redis: &Redis) -> Result<i64, Away> {
    let (index, now) = (redis.index(), score(now()));
    let ended = redis.pool.zrange::<Vec<String>, _, _, _>(
        index.as_str(),
        f64::NEG_INFINITY,
        now,
        Some(ZSort::ByScore),
        false,
        Some((0, PRUNE_MAX)),
        false,
    );
    let ended = redis.ask("prune", ended).await?;
    if !ended.is_empty() {
        redis
            .ask("prune", redis.pool.zrem::<(), _, _>(index, ended.clone()))
            .await?;
    }
    Ok(i64::try_from(ended.len()).unwrap_or(i64::MAX))
}

/// The scores of sessions that have not ended: a key is gone in the second that it ends in.
pub(super) fn living() -> std::ops::RangeInclusive<f64> {
    score(now() + 1)..=f64::INFINITY
}

fn now() -> i64 {
    clock::now().timestamp()
}

#[expect(
    clippy::cast_precision_loss,
    reason = "seconds fit a float for 200 million years"
)]
fn score(seconds: i64) -> f64 {
    seconds as f64
}
