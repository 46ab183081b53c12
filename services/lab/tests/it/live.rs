//! Live pages and shared knobs: what one node does is seen on the others within a second, and Redis
//! may come and go.

use std::time::{Duration, Instant};

use chaos::knobs::Change;
use daemon::{
    lifecycle::Lifecycle,
    redis::{
        RedisArgs, connect,
        fred::{clients::Pool, interfaces::ClientLike},
    },
};
use live::{Heard, Kind, KnobWriter, Listener, Target};
use reqwest::{Response, StatusCode};
use serde_json::{Value, json};
use testkit::{Process, Server, wait_until, wait_until_eq};

use crate::{
    foreign::ours,
    load::{client, offer},
    world::{World, part, ready},
};

const LIMIT: Duration = Duration::from_mins(1);
/// What is promised; the machine of the tests may be busy with others.
const SOON: Duration = Duration::from_secs(1);

fn redis(world: &World) -> RedisArgs {
    RedisArgs {
        redis_url: world.servers.at.redis.url.clone(),
        redis_prefix: world.redis_prefix.clone(),
    }
}

fn writer(world: &World) -> (Pool, KnobWriter) {
    let pool = connect(&redis(world)).unwrap();
    let writer = KnobWriter::new(pool.clone(), &world.redis_prefix);
    (pool, writer)
}

/// Accepts one message, and gives its id.
async fn accept(sender: &Process, text: &str) -> String {
    let path = sender.url() + "/api/messages";
    let request = client().post(path).json(&json!({"message": text}));
    let answer = request.send().await.unwrap();
    assert_eq!(answer.status(), StatusCode::ACCEPTED);
    let body: Value = answer.json().await.unwrap();
    body.to_string()
        .split('"')
        .find(|word| word.len() == 36)
        .unwrap()
        .to_owned()
}

/// A reader of a live page.
struct Reader {
    answer: Response,
    text: String,
}

impl Reader {
    async fn new(url: String) -> Self {
        let answer = reqwest::Client::new().get(url).send().await.unwrap();
        assert_eq!(answer.status(), StatusCode::OK);
        assert_eq!(answer.headers()["content-type"], "text/event-stream");
        let text = String::new();
        Self { answer, text }
    }

    /// The next state that is told.
    async fn next(&mut self) -> Option<Value> {
        loop {
            if let Some((event, rest)) = self.text.split_once("\n\n") {
                let data = event.lines().find_map(|line| line.strip_prefix("data: "));
                let state = data.map(|data| serde_json::from_str(data).unwrap());
                self.text = String::from(rest);
                if state.is_some() {
                    return state;
                }
                continue;
            }
            let chunk = self.answer.chunk().await.ok()??;
            self.text.push_str(std::str::from_utf8(&chunk).unwrap());
        }
    }

    /// Waits for a state that is so.
    async fn until(&mut self, what: &str, is: impl Fn(&Value) -> bool) -> Value {
        let told = async {
            loop {
                let state = self.next().await.expect("the reader is told on");
                if is(&state) {
                    return state;
                }
            }
        };
        let told = tokio::time::timeout(LIMIT, told).await;
        told.unwrap_or_else(|_| panic!("never told: {what}"))
    }
}

fn rows(state: &Value) -> &str {
    state["rows"].as_str().unwrap_or_default()
}

fn is_live(state: &Value) -> bool {
    state["live"] == json!(true)
}

#[tokio::test]
async fn what_one_node_does_is_told_by_the_pages_of_others_within_a_second() {
    let world = World::new().await;
    let first = world.sender("sender-1").start().await;
    let second = world.sender("sender-2").start().await;
    let receivers = [
        world.receiver("receiver-1").start().await,
        world.receiver("receiver-2").start().await,
    ];
    for node in [&first, &second, &receivers[0], &receivers[1]] {
        ready(node).await;
        part(node, "rabbitmq", "up", LIMIT).await;
    }
    let mut page = Reader::new(second.url() + "/live").await;
    let mut results = Reader::new(receivers[0].url() + "/received/live").await;
    page.until("live", is_live).await;
    results.until("live", is_live).await;

    // The first may wait for a plan or a page fault; the fastest of some is what the road takes.
    let mut fastest = [LIMIT; 2];
    for n in 0..5 {
        let id = accept(&first, &format!("live {n}")).await;
        let began = Instant::now();
        let row = format!("data-message=\"{id}\"");
        let shown = async |reader: &mut Reader| {
            reader
                .until("the row", |state| rows(state).contains(&row))
                .await;
            began.elapsed()
        };
        let took = tokio::join!(shown(&mut page), shown(&mut results));
        fastest = [fastest[0].min(took.0), fastest[1].min(took.1)];
    }
    assert!(fastest.iter().all(|took| *took < SOON), "{fastest:?}");
    let counted = page.until("the count of another node", |state| {
        state["nodes"]["sender-1"]["done"] == json!("5")
    });
    let state = counted.await;
    assert!(rows(&state).contains("/lab/messages/"), "{state}");
}

#[tokio::test]
async fn a_listener_hears_each_step_of_a_message() {
    let world = World::new().await;
    let life = Lifecycle::new(LIMIT);
    let ears = Listener::start(&redis(&world), &life);
    let mut heard = ears.subscribe();
    let mut hearing = ears.hearing();
    hearing
        .wait_for(live::listener::Hearing::is_live)
        .await
        .unwrap();
    let sender = world.sender("sender-1").start().await;
    let receiver = world.receiver("receiver-1").start().await;
    ready(&sender).await;
    ready(&receiver).await;
    let id = accept(&sender, "a step at a time").await;
    let mut missing = vec![
        Kind::Accepted,
        Kind::Published,
        Kind::Delivered,
        Kind::Processed,
    ];
    let steps = async {
        while !missing.is_empty() {
            let Heard::Frame(frame) = heard.recv().await.unwrap() else {
                continue;
            };
            for event in &frame.sample {
                assert_eq!(event.id.to_string(), id);
                assert!(frame.totals[&event.kind] >= 1);
                missing.retain(|kind| *kind != event.kind);
            }
        }
    };
    tokio::time::timeout(LIMIT, steps).await.unwrap();
    life.stop();
}

#[tokio::test]
async fn without_redis_pages_say_so_and_messages_go_on() {
    let world = World::own().await;
    let sender = world.sender("sender-1").start().await;
    let receiver = world.receiver("receiver-1").start().await;
    ready(&sender).await;
    ready(&receiver).await;
    let mut page = Reader::new(receiver.url() + "/received/live").await;
    page.until("live", is_live).await;
    world.servers.kill(Server::Redis).await;
    page.until("not live", |state| !is_live(state)).await;
    offer(&[sender.url()], 50, 4, Duration::ZERO).await;
    let audit = world.drained(LIMIT).await;
    audit.assert_exactly_once(50);
    world.servers.start_again(Server::Redis).await;
    page.until("live again", is_live).await;
    let id = accept(&sender, "after").await;
    page.until("the row", |state| rows(state).contains(&id))
        .await;
}

async fn knobs(receiver: &Process) -> Value {
    let answer = reqwest::get(receiver.ops_url() + "/ops/knobs")
        .await
        .unwrap();
    answer.json().await.unwrap()
}

fn fails(one_in: u32) -> Change {
    Change {
        fail_one_in: Some(one_in),
        ..Change::default()
    }
}

#[tokio::test]
async fn knobs_reach_all_nodes_and_new_ones_and_end_with_the_hash() {
    let world = World::own().await;
    let node = |name| world.receiver(name).env("LAB_OPS", true).start();
    let (first, second) = tokio::join!(node("receiver-1"), node("receiver-2"));
    ready(&first).await;
    ready(&second).await;
    let (pool, writer) = writer(&world);
    let one_in = async |node: &Process| knobs(node).await["fail_one_in"].clone();
    let becomes = async |node: &Process, right: u32| {
        let seen = async || one_in(node).await;
        wait_until_eq("the knob", LIMIT, json!(right), seen).await;
    };
    wait_until("redis", LIMIT, async || writer.read().await).await;

    let began = Instant::now();
    writer.set(&Target::All, fails(7)).await.unwrap();
    becomes(&first, 7).await;
    becomes(&second, 7).await;
    assert!(began.elapsed() < 2 * SOON, "{:?}", began.elapsed());
    let own = Target::Node("receiver-2".to_owned());
    writer.set(&own, fails(3)).await.unwrap();
    becomes(&second, 3).await;
    assert_eq!(one_in(&first).await, json!(7));
    let third = node("receiver-3").await;
    becomes(&third, 7).await;
    let shared = reqwest::get(third.ops_url() + "/ops/knobs/shared").await;
    let shared: Value = shared.unwrap().json().await.unwrap();
    assert_eq!(shared["all"], json!({"fail_one_in": 7}));

    wait_until("redis to be emptied", LIMIT, async || {
        pool.next().flushall::<()>(false).await
    })
    .await;
    for node in [&first, &second, &third] {
        becomes(node, 0).await;
    }
}

#[tokio::test]
async fn the_prefetch_is_turned_under_load_and_every_message_has_one_effect() {
    let world = World::new().await;
    let sender = world.sender("sender-1").start().await;
    let receiver = world.receiver("receiver-1").env("LAB_OPS", true);
    let receiver = receiver.env("WORK_DELAY_MAX_MS", 20).start().await;
    ready(&sender).await;
    part(&receiver, "rabbitmq", "up", LIMIT).await;
    let (_pool, writer) = writer(&world);
    wait_until("redis", LIMIT, async || writer.read().await).await;
    let turns = async {
        for prefetch in [1, 40, 3, 64, 2, 16] {
            turn_prefetch(&world, &writer, prefetch).await;
        }
    };
    let urls = [sender.url()];
    tokio::join!(turns, offer(&urls, 1_500, 16, Duration::ZERO));
    let audit = world.drained(LIMIT).await;
    audit.assert_exactly_once(1_500);
    // what was in hand stayed there; the broker itself takes back what it had on the way to a consumer that is cancelled
    let ended = "select count(*) from receiver.session where ended_at is not null";
    assert_eq!(world.count(ended).await, 0, "a turn cost the session");
}

#[tokio::test]
async fn what_waits_to_be_begun_while_the_prefetch_is_turned_is_not_acked_with_the_rest() {
    const MESSAGES: i64 = 600;
    let world = World::own().await;
    let receiver = world.receiver("receiver-1").env("PREFETCH", 150);
    let mut receiver = receiver
        .env("WORK_DELAY_MIN_MS", 50)
        .env("WORK_DELAY_MAX_MS", 50)
        .start()
        .await;
    ready(&receiver).await;
    let (_pool, writer) = writer(&world);
    wait_until("redis", LIMIT, async || writer.read().await).await;
    // what comes in is held, and what comes after it waits to be begun
    world.servers.pause(Server::Postgres).await;
    for number in 0..MESSAGES {
        let body = json!({"number": number, "text": "x"}).to_string();
        let published = world
            .broker
            .publish_raw("messages", "messages", ours(), body.as_bytes());
        published.await.unwrap();
    }
    part(&receiver, "postgres", "away", LIMIT).await;
    // each turn leaves a consumer behind that has some, and begins one that is given more
    for prefetch in [100, 50] {
        turn_prefetch(&world, &writer, prefetch).await;
    }
    world.servers.resume(Server::Postgres).await;
    let effects = "select count(distinct message_id) from receiver.processed";
    wait_until("the effects", LIMIT, async || {
        match world.count(effects).await {
            MESSAGES => Ok(()),
            now => Err(now),
        }
    })
    .await;
    // an ack of what had been answered already would have closed the channel, and with it the session
    let ended = receiver.terminate(LIMIT).await.unwrap();
    assert!(ended.success(), "{ended}");
    let ends: Vec<Option<String>> = sqlx::query_scalar("select ended_by from receiver.session")
        .fetch_all(&world.database.admin)
        .await
        .unwrap();
    assert_eq!(ends, [Some("stopped".to_owned())]);
    world.servers.end().await;
}

/// The bounds of the consumers of `messages`, by the broker.
/// Turns it for all receivers, and waits until the broker knows of no other.
async fn turn_prefetch(world: &World, writer: &KnobWriter, prefetch: u16) {
    let change = Change {
        prefetch: Some(prefetch),
        ..Change::default()
    };
    writer.set(&Target::All, change).await.unwrap();
    let consumers = async || prefetches(world).await;
    let right = vec![u64::from(prefetch)];
    wait_until_eq("the broker's word", LIMIT, right, consumers).await;
}

async fn prefetches(world: &World) -> Vec<u64> {
    let path = ["consumers", &world.broker.vhost];
    let manage = world.broker.manage(reqwest::Method::GET, &path, None);
    let consumers: Value = manage.await.unwrap();
    let all = consumers.as_array().cloned().unwrap_or_default();
    let ours = |consumer: &&Value| consumer["queue"]["name"] == json!("messages");
    let bound = |consumer: &Value| consumer["prefetch_count"].as_u64();
    all.iter().filter(ours).filter_map(bound).collect()
}
