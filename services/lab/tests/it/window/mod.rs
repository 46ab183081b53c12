//! The inbox forgets what is older than its window, and who meets an old message asks the effects.

use std::time::Duration;

use serde_json::json;
use sqlx::PgPool;
use testkit::{Process, wait_until};
use uuid::Uuid;

use crate::{
    foreign::ours,
    world::{World, reaches, ready, turn},
};

mod pruner;

const LIMIT: Duration = Duration::from_secs(40);
const DUPLICATE: &str = "unacked_messages_duplicate_total";
const IN_HAND: &str = "unacked_deliveries_in_hand";

/// An id of ours that was made so many seconds ago, by the database's clock.
async fn made(pool: &PgPool, secs_ago: i32) -> Uuid {
    let id = "select (lpad(to_hex((extract(epoch from clock_timestamp()) * 1000)::bigint - $1 * 1000::bigint), 12, '0')
                || '7' || substr(md5(random()::text), 1, 3) || '8' || substr(md5(random()::text), 1, 15))::uuid";
    let id = sqlx::query_scalar(id).bind(secs_ago).fetch_one(pool);
    id.await.unwrap()
}

/// Of somebody else, random but for how it begins.
fn foreign(first: u8) -> Uuid {
    let mut bytes = *Uuid::new_v4().as_bytes();
    bytes[0] = first;
    Uuid::from_bytes(bytes)
}

async fn run(pool: &PgPool, sql: &'static str, id: Uuid) {
    sqlx::query(sql).bind(id).execute(pool).await.unwrap();
}

/// Remembers the message.
const ADMIT: &str = "insert into receiver.inbox (message_id) values ($1)";
/// The effect of a message, made by another receiver.
const EFFECT: &str = "insert into receiver.processed (message_id, number, text, node, attempt, redelivered, received_at, took_ms)
    values ($1, 1, 'x', 'receiver-before', 1, false, clock_timestamp(), 0)";

/// Receivers whose admission waits for a row of somebody else.
const WAITS: &str = "select count(*) from pg_stat_activity where wait_event_type = 'Lock'
    and datname = current_database() and query like 'with new as (%insert into inbox%'";

async fn publish(world: &World, id: Uuid, text: &str) {
    publish_to(world, "messages", id, text).await;
}

async fn publish_to(world: &World, queue: &str, id: Uuid, text: &str) {
    let properties = ours().with_message_id(id.to_string().into());
    let body = json!({"number": 1, "text": text}).to_string();
    let published = world
        .broker
        .publish_raw(queue, queue, properties, body.as_bytes());
    published.await.unwrap();
}

async fn effects(world: &World, id: Uuid) -> i64 {
    let count = "select count(*) from receiver.processed where message_id = $1";
    let count = sqlx::query_scalar(count).bind(id);
    count.fetch_one(&world.database.admin).await.unwrap()
}

/// Waits until a receiver has said that everything older than its window is old.
async fn announced(world: &World) {
    wait_until("a boundary to be announced", LIMIT, async || {
        let moved = "select count(*) from receiver.inbox_window
                      where below > '00000000-0000-0000-0000-000000000001'";
        world.count(moved).await == 1
    })
    .await;
}

/// A receiver that begins its work and does not end it, until its knob is turned.
async fn slow(world: &World, name: &str, off: &str) -> Process {
    let receiver = world.receiver(name).env("WORK_DELAY_MIN_MS", 60_000);
    let receiver = receiver.env("WORK_DELAY_MAX_MS", 60_000);
    let receiver = receiver.env("WITHOUT", off).start().await;
    ready(&receiver).await;
    announced(world).await;
    receiver
}

async fn go_on(receiver: &Process) {
    turn(receiver, json!({"delay_min_ms": 0, "delay_max_ms": 0})).await;
}

/// Waits until each receiver has one delivery at work. Looks are answered in turn, so that of the delivery is over when a
/// later one is: that of a duplicate. Gives how many of these were acked.
async fn at_work(world: &World, receivers: &[&Process]) -> f64 {
    for receiver in receivers {
        reaches(receiver, IN_HAND, 1.0, LIMIT).await;
    }
    let done = made(&world.database.admin, 60).await;
    run(&world.database.admin, ADMIT, done).await;
    let known = async || {
        let known = receivers.iter().map(|receiver| receiver.metric(DUPLICATE));
        let known = futures::future::try_join_all(known).await;
        known.unwrap()
    };
    let mut published = 0.0;
    while known().await.iter().any(|known| *known < 1.0) {
        publish(world, done, "done").await;
        published += 1.0;
        wait_until("a duplicate to be known", LIMIT, async || {
            known().await.iter().sum::<f64>() >= published
        })
        .await;
    }
    published
}

#[tokio::test]
async fn an_old_message_that_has_its_effect_costs_no_work() {
    let world = World::new().await;
    let pool = &world.database.admin;
    let receiver = world.receiver("receiver-1").start().await;
    ready(&receiver).await;
    announced(&world).await;
    // forgotten by a window of a day: ours, and one of somebody else that begins like an old one
    let (of_ours, of_others) = (made(pool, 2 * 86_400).await, foreign(0));
    // remembered: younger, and one of somebody else that is beyond all times
    let (young, beyond) = (made(pool, 3_600).await, foreign(0xff));
    for id in [of_ours, of_others, young, beyond] {
        run(pool, EFFECT, id).await;
    }
    for id in [young, beyond] {
        run(pool, ADMIT, id).await;
    }
    for id in [of_ours, of_others, young, beyond] {
        // Its work would fail, if there were any.
        publish(&world, id, "poison: done").await;
    }
    reaches(&receiver, DUPLICATE, 4.0, LIMIT).await;
    let failures = "select count(*) from receiver.failure";
    assert_eq!(world.count(failures).await, 0);

    // and what only looks old is done like any other, once
    let new = [made(pool, 2 * 86_400).await, foreign(0), foreign(0xff)];
    for id in new {
        publish(&world, id, "new").await;
        publish(&world, id, "new").await;
    }
    reaches(&receiver, DUPLICATE, 7.0, LIMIT).await;
    for id in new.into_iter().chain([of_ours, of_others, young, beyond]) {
        assert_eq!(effects(&world, id).await, 1, "{id}");
    }
}

/// Its effect comes, and its row goes, while another receiver works on it.
async fn forgotten_during_the_work(off: &str) -> i64 {
    let world = World::new().await;
    let pool = &world.database.admin;
    let receiver = slow(&world, "receiver-1", off).await;
    let id = made(pool, 2 * 86_400).await;
    publish(&world, id, "old").await;
    let before = at_work(&world, &[&receiver]).await;
    run(pool, EFFECT, id).await;
    go_on(&receiver).await;
    let acknowledged = "unacked_messages_acknowledged_total";
    reaches(&receiver, acknowledged, before + 1.0, LIMIT).await;
    if off.is_empty() {
        let log = receiver.log();
        assert!(log.contains("a duplicate, found at the commit"), "{log}");
    }
    effects(&world, id).await
}

#[tokio::test]
async fn without_look_behind_a_message_that_the_inbox_has_forgotten_has_a_second_effect() {
    let (safe, harmed) = tokio::join!(
        forgotten_during_the_work(""),
        forgotten_during_the_work("look-behind")
    );
    assert_eq!((safe, harmed), (1, 2));
}

#[tokio::test]
async fn without_look_behind_nobody_asks_before_the_work_either() {
    let world = World::new().await;
    let receiver = world.receiver("receiver-1").env("WITHOUT", "look-behind");
    let receiver = receiver.start().await;
    ready(&receiver).await;
    announced(&world).await;
    let id = made(&world.database.admin, 2 * 86_400).await;
    run(&world.database.admin, EFFECT, id).await;
    publish(&world, id, "old").await;
    reaches(&receiver, "unacked_messages_processed_total", 1.0, LIMIT).await;
    assert_eq!(effects(&world, id).await, 2);
    // what it does remember is a duplicate as ever
    publish(&world, id, "old").await;
    reaches(&receiver, DUPLICATE, 1.0, LIMIT).await;
    assert_eq!(effects(&world, id).await, 2);
}

#[tokio::test]
async fn two_who_admit_the_same_old_message_at_once_have_one_effect() {
    let world = World::new().await;
    let first = slow(&world, "receiver-1", "").await;
    let second = slow(&world, "receiver-2", "").await;
    let id = made(&world.database.admin, 2 * 86_400).await;
    // one each: both queues of deliveries are empty, and the broker takes turns
    publish(&world, id, "old").await;
    publish(&world, id, "old").await;
    let before = at_work(&world, &[&first, &second]).await;
    // The first has written its row and is not yet committed; the second waits for it.
    first.arm("consumer.before_commit=park").await.unwrap();
    go_on(&first).await;
    wait_until("the first to be before its commit", LIMIT, async || {
        first.fail_point("consumer.before_commit").await.unwrap().1 == 1
    })
    .await;
    go_on(&second).await;
    wait_until("the second to wait for the row", LIMIT, async || {
        world.count(WAITS).await == 1
    })
    .await;
    first.arm("").await.unwrap();
    wait_until("one to be a duplicate", LIMIT, async || {
        let (first, second) = tokio::join!(first.metric(DUPLICATE), second.metric(DUPLICATE));
        (first.unwrap() + second.unwrap() - before - 1.0).abs() < 0.5
    })
    .await;
    assert_eq!(effects(&world, id).await, 1);
}

#[tokio::test]
async fn dying_between_the_row_of_an_old_message_and_the_commit_does_it_again_once() {
    let world = World::new().await;
    let crash = "consumer.before_commit=crash@1";
    let receiver = world.receiver("receiver-1").env("FAIL_POINTS", crash);
    let mut receiver = receiver.start().await;
    ready(&receiver).await;
    announced(&world).await;
    let id = made(&world.database.admin, 2 * 86_400).await;
    publish(&world, id, "old").await;
    receiver.wait(LIMIT).await.unwrap();
    assert_eq!(effects(&world, id).await, 0);
    receiver.set_env("FAIL_POINTS", "");
    receiver.start_again().await;
    reaches(&receiver, "unacked_messages_processed_total", 1.0, LIMIT).await;
    publish(&world, id, "old").await;
    reaches(&receiver, DUPLICATE, 1.0, LIMIT).await;
    assert_eq!(effects(&world, id).await, 1);
}

/// A statement that waits may be older than the boundary: rows could have gone for one that it does not see.
#[tokio::test]
async fn an_admission_that_waits_heeds_what_is_announced_meanwhile() {
    let world = World::new().await;
    let pool = &world.database.admin;
    let receiver = slow(&world, "receiver-1", "").await;
    let id = made(pool, 60).await;
    publish(&world, id, "young").await;
    let before = at_work(&world, &[&receiver]).await;
    // Another one writes it, and never commits.
    let mut other = pool.begin().await.unwrap();
    let row = sqlx::query(ADMIT).bind(id).execute(&mut *other);
    row.await.unwrap();
    go_on(&receiver).await;
    wait_until("the receiver to wait for the row", LIMIT, async || {
        world.count(WAITS).await == 1
    })
    .await;
    // As if a third one had done it, its row were gone by now, and that had been announced.
    run(pool, EFFECT, id).await;
    run(
        pool,
        "update receiver.inbox_window set below = $1",
        made(pool, 30).await,
    )
    .await;
    other.rollback().await.unwrap();
    reaches(&receiver, DUPLICATE, before + 1.0, LIMIT).await;
    assert_eq!(effects(&world, id).await, 1);
}

#[tokio::test]
async fn a_dead_letter_whose_effect_the_inbox_has_forgotten_is_not_parked() {
    let world = World::new().await;
    let pool = &world.database.admin;
    let receiver = world.receiver("receiver-1").start().await;
    ready(&receiver).await;
    announced(&world).await;
    let (done, not_done) = (made(pool, 2 * 86_400).await, made(pool, 2 * 86_400).await);
    run(pool, EFFECT, done).await;
    for id in [done, not_done] {
        publish_to(&world, "messages.dead", id, "given up on").await;
    }
    wait_until("the other one to be parked", LIMIT, async || {
        let parked = "select count(*) from receiver.dead_letter";
        world.count(parked).await >= 1
    })
    .await;
    wait_until("both to be acked", LIMIT, async || {
        let depth = world.broker.queue_statistics("messages.dead").await;
        depth.is_ok_and(|depth| depth.ready + depth.unacked == 0)
    })
    .await;
    let parked: Vec<Uuid> = sqlx::query_scalar("select message_id from receiver.dead_letter")
        .fetch_all(pool)
        .await
        .unwrap();
    assert_eq!(parked, [not_done]);
}

#[tokio::test]
async fn a_receiver_empties_its_inbox_by_itself() {
    let world = World::new().await;
    let receiver = world.receiver("receiver-1").env("INBOX_WINDOW_SECS", 1);
    let receiver = receiver.start().await;
    ready(&receiver).await;
    let id = Uuid::now_v7();
    publish(&world, id, "soon forgotten").await;
    reaches(&receiver, "unacked_inbox_pruned_total", 1.0, LIMIT).await;
    assert_eq!(world.count("select count(*) from receiver.inbox").await, 0);
    publish(&world, id, "soon forgotten").await;
    reaches(&receiver, DUPLICATE, 1.0, LIMIT).await;
    assert_eq!(effects(&world, id).await, 1);
}

#[tokio::test]
async fn a_window_of_no_time_is_refused() {
    let world = World::new().await;
    for secs in ["0", "315360001", "1d"] {
        let receiver = world.receiver("receiver-1").env("INBOX_WINDOW_SECS", secs);
        let (status, log) = receiver.output(LIMIT).await.unwrap();
        assert_eq!(status.code(), Some(2), "{log}");
        let named = log.contains("INBOX_WINDOW_SECS") && log.contains(secs);
        assert!(named, "{log}");
    }
}
