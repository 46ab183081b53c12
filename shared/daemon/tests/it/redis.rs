use std::time::{Duration, Instant};

use daemon::{
    lifecycle::Lifecycle,
    monitor,
    parts::{Kind, Parts},
    redis::{
        COMMAND_LIMIT, RedisArgs, connect,
        fred::{clients::Pool, interfaces::KeysInterface},
    },
};
use testkit::{Direction, Proxy, Servers, redis_prefix, wait_until};

use crate::{LIMIT, becomes};

async fn through_a_proxy(servers: &Servers) -> (Proxy, Pool) {
    let proxy = Proxy::before(&servers.at.redis.url).await;
    let redis_url = proxy.url(&servers.at.redis.url);
    let args = RedisArgs {
        redis_url,
        redis_prefix: redis_prefix(),
    };
    let pool = connect(&args).unwrap();
    (proxy, pool)
}

async fn works(pool: &Pool) {
    let key = redis_prefix();
    wait_until("a command that works", LIMIT, async || {
        pool.set::<(), _, _>(&key, 1, None, None, false).await
    })
    .await;
}

/// Errs, and within the limit of one command.
async fn errs_in_time(pool: &Pool) {
    let began = Instant::now();
    let outcome = pool.get::<Option<i64>, _>("x").await;
    let took = began.elapsed();
    assert!(outcome.is_err(), "it worked");
    assert!(
        took < COMMAND_LIMIT + Duration::from_millis(500),
        "it took {took:?}"
    );
}

#[tokio::test]
async fn redis_may_be_absent_at_start() {
    let servers = Servers::shared();
    let (proxy, pool) = through_a_proxy(&servers).await;
    proxy.refuse(true);
    proxy.cut_rst();
    errs_in_time(&pool).await;
    errs_in_time(&pool).await;
    proxy.refuse(false);
    works(&pool).await;
}

#[tokio::test]
async fn a_redis_that_leaves_and_comes_back_is_used_again() {
    let servers = Servers::shared();
    let (proxy, pool) = through_a_proxy(&servers).await;
    works(&pool).await;
    for _ in 0..3 {
        proxy.refuse(true);
        proxy.cut_rst();
        errs_in_time(&pool).await;
        proxy.refuse(false);
        works(&pool).await;
    }
}

#[tokio::test]
async fn a_redis_that_hangs_costs_one_command_limit_and_is_used_again() {
    let servers = Servers::shared();
    let (proxy, pool) = through_a_proxy(&servers).await;
    works(&pool).await;
    for direction in [Direction::Up, Direction::Down] {
        proxy.freeze(direction);
        // Longer than it takes to give the connection up.
        for _ in 0..6 {
            errs_in_time(&pool).await;
        }
        proxy.thaw();
        works(&pool).await;
    }
}

#[tokio::test]
async fn a_link_to_redis_that_is_gone_without_a_word_is_replaced() {
    let servers = Servers::shared();
    let (proxy, pool) = through_a_proxy(&servers).await;
    let (parts, lifecycle) = (Parts::new(), Lifecycle::new(LIMIT));
    monitor::watch_redis(&pool, &parts.part("redis"), &lifecycle);
    works(&pool).await;
    proxy.strand();
    errs_in_time(&pool).await;
    works(&pool).await;
    becomes(&parts.part("redis"), Kind::Up).await;
    lifecycle.stop();
    lifecycle.finish().await;
}

#[tokio::test]
async fn the_monitor_tells_when_redis_hangs_and_when_it_is_back() {
    let servers = Servers::shared();
    let (proxy, pool) = through_a_proxy(&servers).await;
    let (parts, lifecycle) = (Parts::new(), Lifecycle::new(LIMIT));
    let part = parts.part("redis");
    monitor::watch_redis(&pool, &part, &lifecycle);
    becomes(&part, Kind::Up).await;
    proxy.freeze(Direction::Down);
    becomes(&part, Kind::Away).await;
    assert!(part.state().why.is_some_and(|why| !why.is_empty()));
    proxy.thaw();
    becomes(&part, Kind::Up).await;
    lifecycle.stop();
    lifecycle.finish().await;
}
