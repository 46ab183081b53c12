//! Copies that are written late: of what was read before a change, or long before they are written.

use std::time::{Duration, Instant};

use daemon::redis::RedisArgs;
use notes::cache::{Cache, CacheArgs, Changes, Mark, Said, Trust};
use testkit::{Servers, wait_until};

const LIMIT: Duration = Duration::from_secs(10);

/// A cache of one's own, and who tells it of changes.
fn cache(trust: Trust, time_to_live: u64) -> (Cache, Changes) {
    let redis = RedisArgs {
        redis_url: Servers::shared().at.redis.url,
        redis_prefix: testkit::redis_prefix(),
    };
    let args = CacheArgs {
        notes_cache: trust,
        notes_cache_ms: time_to_live,
    };
    let pool = daemon::redis::connect(&redis).unwrap();
    let changes = Changes::new(pool.clone(), &redis.redis_prefix);
    (Cache::new(pool, &redis.redis_prefix, &args), changes)
}

/// The mark of a moment at which there is no copy.
async fn mark(cache: &Cache) -> Mark {
    wait_until("the cache to answer", LIMIT, async || {
        match cache.look::<u32>("a").await {
            Said::Miss(mark) => Ok(mark),
            other => Err(other),
        }
    })
    .await
}

async fn copy(cache: &Cache) -> Option<u32> {
    match cache.look("a").await {
        Said::Hit(copy, _) => Some(copy),
        Said::Miss(_) => None,
        Said::Off => panic!("the cache does not answer"),
    }
}

#[tokio::test]
async fn a_copy_of_what_was_read_before_a_change_is_out_of_reach_after_it() {
    let (cache, changes) = cache(Trust::Expiring, 60_000);
    let before = mark(&cache).await;
    assert!(changes.tell().await);
    // Only now, by a reader that was slow.
    cache.keep("a", before, &1).await;
    assert_eq!(copy(&cache).await, None);
    let after = mark(&cache).await;
    cache.keep("a", after, &2).await;
    assert_eq!(copy(&cache).await, Some(2));
    assert!(changes.tell().await);
    assert_eq!(copy(&cache).await, None, "all copies of before are");
}

#[tokio::test]
async fn a_copy_is_as_old_as_what_it_is_of_and_not_as_its_writing() {
    let (cache, _changes) = cache(Trust::Expiring, 300);
    let before = mark(&cache).await;
    let read = Instant::now();
    wait_until("the time to live to be over", LIMIT, async || {
        read.elapsed() > Duration::from_millis(310)
    })
    .await;
    cache.keep("a", before, &1).await;
    assert_eq!(copy(&cache).await, None);
}

#[tokio::test]
async fn a_copy_that_is_taken_for_the_truth_has_no_end() {
    let (cache, changes) = cache(Trust::Truth, 100);
    let before = mark(&cache).await;
    let read = Instant::now();
    cache.keep("a", before, &1).await;
    wait_until(
        "three times the time to live to be over",
        LIMIT,
        async || read.elapsed() > Duration::from_millis(300),
    )
    .await;
    assert_eq!(copy(&cache).await, Some(1));
    assert!(changes.tell().await);
    assert_eq!(copy(&cache).await, None);
}
