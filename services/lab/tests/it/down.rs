//! Each server absent at start, stopped, killed and paused: the behaviour that the plan names, and
//! recovery by itself.
//!
//! These tests break servers, so each has its own.

use std::{
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
    time::{Duration, Instant},
};

use futures::future::join_all;
use reqwest::StatusCode;
use serde_json::json;
use testkit::{Process, Server, wait_until};
use uuid::Uuid;

use crate::{
    load::{client, offer, post},
    world::{World, part, ready, turn},
};

const LIMIT: Duration = Duration::from_secs(90);

struct Pair {
    world: World,
    sender: Process,
    receiver: Process,
}

impl Pair {
    async fn start() -> Self {
        let world = World::own().await;
        let sender = world.sender("sender-1").start().await;
        let receiver = world.receiver("receiver-1").start().await;
        ready(&sender).await;
        ready(&receiver).await;
        Self {
            world,
            sender,
            receiver,
        }
    }

    async fn post(&self) -> u16 {
        let key = Uuid::new_v4().to_string();
        post(&self.sender.url(), &key, "hello")
            .await
            .unwrap()
            .status
            .as_u16()
    }

    async fn page(&self) -> (u16, String) {
        let response = client().get(self.sender.url()).send().await.unwrap();
        (response.status().as_u16(), response.text().await.unwrap())
    }

    async fn results(&self) -> (u16, String) {
        let response = client()
            .get(format!("{}/received", self.receiver.url()))
            .send()
            .await
            .unwrap();
        (response.status().as_u16(), response.text().await.unwrap())
    }

    /// All is well again by itself, and everything accepted has its one effect.
    async fn recovered(self) {
        ready(&self.sender).await;
        ready(&self.receiver).await;
        offer(&[self.sender.url()], 5, 5, Duration::ZERO).await;
        let accepted = self.world.audit().await.accepted;
        self.world
            .drained(LIMIT)
            .await
            .assert_exactly_once(accepted);
        self.world.servers.end().await;
    }
}

/// How a server goes away, and comes back.
#[derive(Debug, Clone, Copy)]
enum Away {
    Stopped,
    Killed,
    Paused,
}

impl Away {
    async fn begin(self, pair: &Pair, server: Server) {
        match self {
            Self::Stopped => pair.world.servers.stop(server).await,
            Self::Killed => pair.world.servers.kill(server).await,
            Self::Paused => pair.world.servers.pause(server).await,
        }
    }

    async fn end(self, pair: &Pair, server: Server) {
        match self {
            Self::Stopped | Self::Killed => pair.world.servers.start_again(server).await,
            Self::Paused => pair.world.servers.resume(server).await,
        }
    }
}

async fn without_rabbitmq(away: Away) {
    let pair = Pair::start().await;
    away.begin(&pair, Server::RabbitMq).await;
    part(&pair.sender, "rabbitmq", "away", LIMIT).await;
    part(&pair.receiver, "rabbitmq", "away", LIMIT).await;
    for _ in 0..10 {
        assert_eq!(
            pair.post().await,
            202,
            "{away:?}: messages are still accepted"
        );
    }
    let (status, page) = pair.page().await;
    assert!(
        status == 200 && page.contains("RabbitMQ is away"),
        "{away:?}: {status} {page}"
    );
    wait_until("the page to say that 10 wait", LIMIT, async || {
        pair.page().await.1.contains("10 messages wait")
    })
    .await;
    assert!(
        pair.sender.ready().await.unwrap().0,
        "a sender is ready without it"
    );
    assert!(!pair.receiver.ready().await.unwrap().0, "a receiver is not");
    away.end(&pair, Server::RabbitMq).await;
    pair.recovered().await;
}

#[tokio::test]
async fn messages_are_accepted_while_rabbitmq_is_stopped() {
    without_rabbitmq(Away::Stopped).await;
}

#[tokio::test]
async fn messages_are_accepted_while_rabbitmq_is_killed() {
    without_rabbitmq(Away::Killed).await;
}

#[tokio::test]
async fn messages_are_accepted_while_rabbitmq_hangs() {
    without_rabbitmq(Away::Paused).await;
}

async fn without_postgres(away: Away) {
    let pair = Pair::start().await;
    offer(&[pair.sender.url()], 5, 5, Duration::ZERO).await;
    away.begin(&pair, Server::Postgres).await;
    part(&pair.sender, "postgres", "away", LIMIT).await;
    part(&pair.receiver, "postgres", "away", LIMIT).await;
    let began = Instant::now();
    let key = Uuid::new_v4().to_string();
    let refused = client()
        .post(format!("{}/api/messages", pair.sender.url()))
        .header("Idempotency-Key", key)
        .json(&serde_json::json!({"message": "x"}))
        .send()
        .await
        .unwrap();
    assert_eq!(refused.status(), 503, "{away:?}");
    assert!(refused.headers().contains_key("retry-after"), "{away:?}");
    assert!(
        began.elapsed() < Duration::from_secs(10),
        "{away:?}: {:?}",
        began.elapsed()
    );
    for (status, page) in [pair.page().await, pair.results().await] {
        assert!(
            status == 503 && page.contains("<html"),
            "{away:?}: {status} {page}"
        );
    }
    assert!(!pair.sender.ready().await.unwrap().0);
    away.end(&pair, Server::Postgres).await;
    pair.recovered().await;
}

#[tokio::test]
async fn nothing_is_accepted_and_nothing_lost_while_postgres_is_stopped() {
    without_postgres(Away::Stopped).await;
}

#[tokio::test]
async fn nothing_is_accepted_and_nothing_lost_while_postgres_is_killed() {
    without_postgres(Away::Killed).await;
}

#[tokio::test]
async fn nothing_is_accepted_and_nothing_lost_while_postgres_hangs() {
    without_postgres(Away::Paused).await;
}

#[tokio::test]
async fn under_many_readers_no_page_fails_once_postgres_is_back() {
    let world = World::own().await;
    let sender = world.sender("sender-1").start().await;
    ready(&sender).await;
    let (right, wrong) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let done = AtomicBool::new(false);
    let reader = async || {
        let client = client();
        while !done.load(Ordering::Relaxed) {
            let page = client.get(sender.url()).send().await;
            let read = page.is_ok_and(|page| page.status() == StatusCode::OK);
            let count = if read { &right } else { &wrong };
            count.fetch_add(1, Ordering::Relaxed);
        }
    };
    let readers = join_all((0..64).map(|_| reader()));
    let more = async |what, count: &AtomicUsize| {
        let enough = count.load(Ordering::Relaxed) + 1_000;
        let read = async || count.load(Ordering::Relaxed) >= enough;
        wait_until(what, LIMIT, read).await;
    };
    let outage = async {
        more("pages", &right).await;
        world.servers.kill(Server::Postgres).await;
        more("pages that say that it is away", &wrong).await;
        world.servers.start_again(Server::Postgres).await;
        part(&sender, "postgres", "up", LIMIT).await;
        // Those that were asked for before that.
        more("pages", &right).await;
        let before = wrong.load(Ordering::Relaxed);
        more("more pages", &right).await;
        more("still more pages", &right).await;
        done.store(true, Ordering::Relaxed);
        before
    };
    let (before, _) = tokio::join!(outage, readers);
    assert_eq!(wrong.load(Ordering::Relaxed), before);
}

#[tokio::test]
async fn deliveries_are_held_not_nacked_while_postgres_is_away() {
    let world = World::own().await;
    let sender = world.sender("sender-1").start().await;
    let receiver = world
        .receiver("receiver-1")
        .env("PREFETCH", 16)
        .env("WORK_DELAY_MIN_MS", 60_000)
        .env("WORK_DELAY_MAX_MS", 60_000)
        .start()
        .await;
    ready(&sender).await;
    ready(&receiver).await;
    offer(&[sender.url()], 100, 16, Duration::ZERO).await;
    wait_until("work to begin on 16", LIMIT, async || {
        let in_hand = receiver.metric("unacked_deliveries_in_hand").await;
        in_hand.is_ok_and(|count| count > 15.5)
    })
    .await;
    world.servers.kill(Server::Postgres).await;
    part(&receiver, "postgres", "away", LIMIT).await;
    // Their work ends now, and its effect cannot be stored.
    turn(&receiver, json!({"delay_min_ms": 0, "delay_max_ms": 0})).await;
    let page = format!("{}/received", receiver.url());
    wait_until("all 16 to be held", LIMIT, async || {
        let page = client().get(&page).send().await.unwrap();
        page.text()
            .await
            .unwrap()
            .contains("16 deliveries are held here")
    })
    .await;
    world.servers.start_again(Server::Postgres).await;
    world.drained(LIMIT).await.assert_exactly_once(100);
    assert!(
        receiver
            .metric("unacked_messages_requeued_total")
            .await
            .unwrap()
            < 0.5,
        "none was nacked"
    );
    assert_eq!(
        world
            .count("select max(attempt) from receiver.processed")
            .await,
        1
    );
    world.servers.end().await;
}

async fn without_redis(away: Away) {
    let pair = Pair::start().await;
    away.begin(&pair, Server::Redis).await;
    part(&pair.sender, "redis", "away", LIMIT).await;
    assert_eq!(
        pair.post().await,
        202,
        "{away:?}: messages are still accepted"
    );
    for _ in 0..3 {
        let began = Instant::now();
        let (status, page) = pair.page().await;
        assert!(
            status == 200 && page.contains("Redis is away"),
            "{away:?}: {status} {page}"
        );
        assert!(
            began.elapsed() < Duration::from_secs(2),
            "{away:?}: {:?}",
            began.elapsed()
        );
        assert_eq!(pair.results().await.0, 200);
    }
    assert!(
        pair.sender.ready().await.unwrap().0,
        "a node is ready without it"
    );
    away.end(&pair, Server::Redis).await;
    part(&pair.sender, "redis", "up", LIMIT).await;
    pair.recovered().await;
}

#[tokio::test]
async fn pages_work_without_sessions_while_redis_is_stopped() {
    without_redis(Away::Stopped).await;
}

#[tokio::test]
async fn pages_work_without_sessions_while_redis_is_killed() {
    without_redis(Away::Killed).await;
}

#[tokio::test]
async fn pages_work_without_sessions_while_redis_hangs() {
    without_redis(Away::Paused).await;
}

#[tokio::test]
async fn nodes_start_without_any_server_and_begin_when_they_come() {
    let world = World::own().await;
    for server in [Server::Postgres, Server::Redis, Server::RabbitMq] {
        world.servers.stop(server).await;
    }
    let sender = world.sender("sender-1").start().await;
    let receiver = world.receiver("receiver-1").start().await;
    // RabbitMQ is not even tried before there are tables to take rows from.
    for (name, state) in [
        ("postgres", "away"),
        ("redis", "away"),
        ("rabbitmq", "starting"),
    ] {
        part(&sender, name, state, LIMIT).await;
    }
    assert!(!sender.ready().await.unwrap().0 && !receiver.ready().await.unwrap().0);
    for server in [Server::RabbitMq, Server::Postgres, Server::Redis] {
        world.servers.start_again(server).await;
    }
    Pair {
        world,
        sender,
        receiver,
    }
    .recovered()
    .await;
}

#[tokio::test]
async fn a_broker_short_of_memory_releases_nothing_and_doubles_nothing() {
    let pair = Pair::start().await;
    pair.world.servers.alarm(true).await;
    // The alarm blocks a connection at its next publish.
    let blocked = wait_until("publishing to be blocked", LIMIT, async || {
        pair.post().await;
        let (_, body) = pair.sender.ready().await.map_err(|e| e.to_string())?;
        if body["parts"]["rabbitmq"]["state"] == "blocked" {
            Ok(())
        } else {
            Err(body.to_string())
        }
    });
    blocked.await;
    for _ in 0..20 {
        assert_eq!(pair.post().await, 202);
    }
    // Longer than the watchdog and than a lease, were it not renewed; a second sender takes nothing.
    let other = pair.world.sender("sender-other").start().await;
    let began = Instant::now();
    wait_until("a lease's time to pass", LIMIT, async || {
        began.elapsed() > Duration::from_secs(12)
    })
    .await;
    assert!(
        pair.sender
            .metric("unacked_sessions_broken_total")
            .await
            .unwrap()
            < 0.5,
        "the session stands: {}",
        pair.sender.log()
    );
    pair.world.servers.alarm(false).await;
    let accepted = pair.world.audit().await.accepted;
    pair.world
        .drained(LIMIT)
        .await
        .assert_exactly_once(accepted);
    let published = pair
        .world
        .count("select count(*) from sender.publication")
        .await;
    assert_eq!(
        published,
        i64::try_from(accepted).unwrap(),
        "each was published once"
    );
    drop(other);
    pair.recovered().await;
}
