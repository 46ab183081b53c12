//! Copies that are written late: of what was read before a change, or long before they are written.

use std::time::{Duration, Instant};

use daemon::redis::{
    RedisArgs,
    fred::{
        clients::Pool,
        interfaces::ClientLike,
        types::{ClusterHash, CustomCommand},
    },
};
use notes::cache::{Cache, CacheArgs, Changes, Mark, Said, Trust};
use testkit::{Servers, wait_until};

const LIMIT: Duration = Duration::from_secs(10);

/// A cache of one's own, and who tells it of changes.
fn cache(trust: Trust, time_to_live: u64) -> (Cache, Changes) {
    let (cache, changes, ..) = cache_in(trust, time_to_live);
    (cache, changes)
}

/// And where it is: the Redis, and what the names of all its keys begin with.
fn cache_in(trust: Trust, time_to_live: u64) -> (Cache, Changes, Pool, String) {
    let redis = RedisArgs {
        redis_url: Servers::shared().at.redis.url,
        redis_prefix: testkit::redis_prefix(),
    };
    let args = CacheArgs {
        notes_cache: trust,
        notes_cache_ms: time_to_live,
    };
    let pool = daemon::redis::connect(&redis).unwrap();
    let prefix = redis.redis_prefix;
    let changes = Changes::new(pool.clone(), &prefix);
    let cache = Cache::new(pool.clone(), &prefix, &args);
    (cache, changes, pool, prefix)
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
async fn a_page_has_one_copy_however_many_changes_there_are() {
    for trust in [Trust::Expiring, Trust::Truth] {
        let (cache, changes, redis, prefix) = cache_in(trust, 60_000);
        for round in 0..20 {
            let now = mark(&cache).await;
            cache.keep("a", now, &round).await;
            assert_eq!(copy(&cache).await, Some(round));
            assert!(changes.tell().await);
        }
        let keys = CustomCommand::new("KEYS", ClusterHash::FirstKey, false);
        let keys: Vec<String> = redis
            .custom(keys, vec![format!("{prefix}*")])
            .await
            .unwrap();
        assert_eq!(
            keys.len(),
            2,
            "the copy and the number of changes: {keys:?}"
        );
    }
}

#[tokio::test]
async fn a_late_copy_in_the_place_of_a_fresh_one_costs_a_reading_and_is_not_shown() {
    let (cache, changes) = cache(Trust::Truth, 60_000);
    let before = mark(&cache).await;
    assert!(changes.tell().await);
    let after = mark(&cache).await;
    cache.keep("a", after, &2).await;
    assert_eq!(copy(&cache).await, Some(2));
    cache.keep("a", before, &1).await;
    assert_eq!(copy(&cache).await, None);
    cache.keep("a", mark(&cache).await, &2).await;
    assert_eq!(copy(&cache).await, Some(2));
}

#[tokio::test]
async fn what_is_large_is_not_kept() {
    let (cache, _changes) = cache(Trust::Expiring, 60_000);
    for (length, kept) in [(256 * 1024, false), (255 * 1024, true)] {
        let large = "x".repeat(length);
        cache.keep("a", mark(&cache).await, &large).await;
        let said = cache.look::<String>("a").await;
        assert_eq!(matches!(said, Said::Hit(copy, _) if copy == large), kept);
    }
}

#[tokio::test]
async fn a_copy_of_what_was_read_before_a_change_is_worth_nothing_after_it() {
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
