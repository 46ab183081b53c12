//! Reading through the cache: it hits, it is told of changes, it is never too old, and it is not needed.

use std::time::{Duration, Instant};

use futures::future::join_all;
use reqwest::StatusCode;
use testkit::{Direction, Process, Proxy, Server, wait_until};

use crate::world::{LIMIT, World, started};

const READS: &str = "unacked_notes_database_reads_total";

/// How often a node has read the list from the database.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a small count"
)]
async fn reads(api: &Process) -> u64 {
    api.metric(READS).await.unwrap() as u64
}

/// Saves a note and waits until it is in the database.
async fn save(world: &World, api: &Process, content: &str) {
    let id = world.offer(&api.url(), content).await;
    world.state(&api.url(), id, "saved").await;
}

/// What tells the cache of nothing: there is no Redis at that address.
fn mute(world: &World) -> testkit::Program {
    world
        .worker("worker-1")
        .env("REDIS_URL", "redis://127.0.0.1:1/0")
}

/// Waits until a node shows the list from the cache, of which it may have no link yet.
async fn warm(world: &World, api: &Process) {
    wait_until("the list to come from the cache", LIMIT, async || {
        let said = world.get(&api.url(), "/").await;
        said.header("x-cache") == Some("hit")
    })
    .await;
}

#[tokio::test]
async fn what_is_asked_for_again_comes_from_the_cache_at_every_node() {
    let world = World::new().await;
    let (api, _worker) = world.both().await;
    let other = started(world.api("notes-2")).await;
    save(&world, &api, "a").await;
    warm(&world, &api).await;
    warm(&world, &other).await;
    let before = (reads(&api).await, reads(&other).await);
    for node in [&api, &other] {
        for path in ["/", "/?limit=20", "/notes"] {
            let said = world.get(&node.url(), path).await;
            assert_eq!(said.header("x-cache"), Some("hit"), "{path}");
            let age: u64 = said.header("age").unwrap().parse().unwrap();
            assert!(age <= 10, "{age}");
            assert_eq!(said.contents(), ["a"]);
        }
    }
    assert_eq!((reads(&api).await, reads(&other).await), before);
}

#[tokio::test]
async fn a_commit_of_a_worker_is_seen_long_before_the_copy_would_be_too_old() {
    let world = World::new().await;
    let long = 3_600_000;
    let api = started(world.api("notes-1").env("NOTES_CACHE_MS", long)).await;
    let worker = started(world.worker("worker-1")).await;
    for round in 1..=20 {
        save(&world, &api, &format!("note {round}")).await;
        // Told after the commit, so a moment later; never as late as an hour.
        wait_until("the list to have the new note", LIMIT, async || {
            world.get(&api.url(), "/").await.contents().len() == round
        })
        .await;
    }
    let told = "unacked_notes_invalidations_total";
    assert!(worker.metric(told).await.unwrap() >= 20.0);
}

#[tokio::test]
async fn a_change_that_nobody_tells_is_shown_when_the_time_to_live_is_over() {
    let world = World::new().await;
    let live = Duration::from_secs(3);
    let api = world.api("notes-1").env("NOTES_CACHE_MS", live.as_millis());
    let api = started(api).await;
    let _worker = started(mute(&world)).await;
    warm(&world, &api).await;
    let kept = Instant::now();
    save(&world, &api, "a").await;
    wait_until("the list to have the note", LIMIT, async || {
        let said = world.get(&api.url(), "/").await;
        let late = kept.elapsed();
        let right = said.contents() == ["a"];
        assert!(
            right || late < live + Duration::from_secs(1),
            "wrong after {late:?}"
        );
        right
    })
    .await;
    assert!(
        kept.elapsed() >= live / 2,
        "the copy was not used: {:?}",
        kept.elapsed()
    );
}

#[tokio::test]
async fn a_copy_that_is_taken_for_the_truth_is_wrong_for_ever_when_nobody_tells() {
    let world = World::new().await;
    let node = |name| world.api(name).env("NOTES_CACHE_MS", 500);
    let trusting = started(node("notes-1").env("NOTES_CACHE", "truth")).await;
    let _worker = started(mute(&world)).await;
    warm(&world, &trusting).await;
    save(&world, &trusting, "a").await;
    let apart = node("notes-2").env("REDIS_PREFIX", testkit::redis_prefix());
    let careful = started(apart).await;
    wait_until(
        "who trusts no copy for long to see the note",
        LIMIT,
        async || world.get(&careful.url(), "/").await.contents() == ["a"],
    )
    .await;
    let page = world
        .client
        .get(trusting.url())
        .header("accept", "text/html");
    let page = page.send().await.unwrap().text().await.unwrap();
    assert!(page.contains("Guarantee off: cache-expiry"), "{page}");
    // Three times as long as the copy could have lived otherwise.
    let from = Instant::now();
    while from.elapsed() < Duration::from_millis(1_500) {
        let said = world.get(&trusting.url(), "/").await;
        assert_eq!(said.header("x-cache"), Some("hit"));
        assert!(said.contents().is_empty(), "{said:?}");
    }
}

#[tokio::test]
async fn a_cold_page_is_read_once_however_many_ask_for_it_at_once() {
    let world = World::new().await;
    let (api, worker) = world.both().await;
    save(&world, &api, "a").await;
    drop(worker);
    let url = api.url();
    for limit in [7, 8, 9] {
        // Until the answer of the database, which it cannot give yet, everybody is a first one.
        let lock = "begin; lock table notes.processed in access exclusive mode";
        let mut holder = world.database.admin.acquire().await.unwrap();
        sqlx::raw_sql(lock).execute(&mut *holder).await.unwrap();
        let before = reads(&api).await;
        let path = format!("/?limit={limit}");
        let asked = join_all((0..100).map(|_| world.get(&url, &path)));
        let release = async {
            wait_until("somebody to read", LIMIT, async || {
                reads(&api).await > before
            })
            .await;
            sqlx::raw_sql("rollback")
                .execute(&mut *holder)
                .await
                .unwrap();
        };
        let (answers, ()) = tokio::join!(asked, release);
        for answer in answers {
            assert_eq!(answer.contents(), ["a"]);
        }
        assert_eq!(reads(&api).await - before, 1);
    }
}

#[tokio::test]
async fn a_redis_that_is_gone_or_silent_costs_time_and_nothing_else() {
    let world = World::new().await;
    let redis = Proxy::before(&world.servers.at.redis.url).await;
    let url = redis.url(&world.servers.at.redis.url);
    let api = started(world.api("notes-1").env("REDIS_URL", &url)).await;
    let _worker = started(world.worker("worker-1").env("REDIS_URL", &url)).await;
    let silent = || {
        redis.freeze(Direction::Up);
        redis.freeze(Direction::Down);
    };
    let gone = || {
        redis.refuse(true);
        redis.cut_rst();
    };
    let mut saved = Saved::default();
    saved.with_cache(&world, &api).await;
    silent();
    saved.without_cache(&world, &api).await;
    redis.heal();
    saved.with_cache(&world, &api).await;
    gone();
    saved.without_cache(&world, &api).await;
    redis.heal();
    saved.with_cache(&world, &api).await;
}

#[tokio::test]
async fn redis_may_be_killed_and_come_back() {
    let world = World::own().await;
    let (api, _worker) = world.both().await;
    let mut saved = Saved::default();
    saved.with_cache(&world, &api).await;
    world.servers.kill(Server::Redis).await;
    saved.without_cache(&world, &api).await;
    world.servers.start_again(Server::Redis).await;
    saved.with_cache(&world, &api).await;
    drop(api);
    world.servers.end().await;
}

/// How many notes were saved, and so are to be shown.
#[derive(Default)]
struct Saved(usize);

impl Saved {
    /// Whatever the cache holds from before, it is used, and right when the time to live is over.
    async fn with_cache(&mut self, world: &World, api: &Process) {
        self.0 += 1;
        save(world, api, &self.0.to_string()).await;
        wait_until("the cache to be used and right", LIMIT, async || {
            let said = world.get(&api.url(), "/").await;
            let newest = said.contents().into_iter().next();
            let right = newest == Some(self.0.to_string());
            if right && said.header("x-cache") == Some("hit") {
                Ok(())
            } else {
                Err(said)
            }
        })
        .await;
    }

    /// Each look is right at once, and none takes long.
    async fn without_cache(&mut self, world: &World, api: &Process) {
        for _ in 0..5 {
            self.0 += 1;
            save(world, api, &self.0.to_string()).await;
            let began = Instant::now();
            let said = world.get(&api.url(), "/").await;
            let took = began.elapsed();
            assert_eq!(said.header("x-cache"), Some("off"), "{said:?}");
            assert_eq!(said.contents()[0], self.0.to_string());
            assert!(took < Duration::from_secs(2), "{took:?}");
        }
        let url = api.url();
        let many = join_all((0..200).map(|_| world.get(&url, "/"))).await;
        assert!(many.iter().all(|said| said.status == StatusCode::OK));
        world.saved_once(self.0).await;
    }
}
