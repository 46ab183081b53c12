//! Links that are cut, frozen and refused: at least 50 seeded cuts, and the watchdog's proof.

use std::time::{Duration, Instant};

use messaging::send::outbox::claim;
use rand::{RngExt, SeedableRng, rngs::StdRng};
use sqlx::postgres::PgPoolOptions;
use testkit::{Direction, wait_until};
use uuid::Uuid;

use crate::{
    load::{offer, post},
    world::{World, linked, part, ready},
};

const LIMIT: Duration = Duration::from_mins(1);

#[tokio::test]
async fn fifty_seeded_cuts_lose_nothing_and_double_nothing() {
    const CUTS: usize = 50;
    let world = World::new().await;
    let sender = linked(&world, world.sender("sender-1"), &world.database.sender_url).await;
    let receiver = world
        .receiver("receiver-1")
        .env("WORK_DELAY_MAX_MS", 20)
        .env("WORK_FAIL_ONE_IN", 5);
    let receiver = linked(&world, receiver, &world.database.receiver_url).await;
    ready(&sender.node).await;
    ready(&receiver.node).await;
    let mut random = StdRng::seed_from_u64(4_123);
    let messages = 3_000;
    let urls = [sender.node.url()];
    let load = offer(&urls, messages, 16, Duration::from_millis(250));
    let cuts = async {
        for cut in 0..CUTS {
            let victim = if random.random_bool(0.5) {
                &sender
            } else {
                &receiver
            };
            // Cut in the middle of traffic: when the link is back and has moved some bytes.
            part(&victim.node, "rabbitmq", "up", LIMIT).await;
            let goal = victim.rabbitmq.bytes(Direction::Up) + random.random_range(200..20_000);
            let patience = Instant::now() + Duration::from_secs(5);
            wait_until("traffic on the link", LIMIT, async || {
                victim.rabbitmq.bytes(Direction::Up) >= goal || Instant::now() > patience
            })
            .await;
            if random.random_bool(0.5) {
                victim.rabbitmq.cut_rst();
            } else {
                victim.rabbitmq.cut_fin();
            }
            // No await outlives its deadline: the session ends and another begins.
            wait_until(
                &format!("the node to notice cut {cut}"),
                Duration::from_secs(15),
                async || {
                    victim.rabbitmq.open() == 0
                        || victim
                            .node
                            .ready()
                            .await
                            .is_ok_and(|(_, b)| b["parts"]["rabbitmq"]["state"] != "up")
                },
            )
            .await;
        }
    };
    tokio::join!(load, cuts);
    world.drained(LIMIT).await.assert_exactly_once(messages);
    assert_eq!(
        world
            .count("select count(*) from receiver.dead_letter")
            .await,
        0
    );
}

#[tokio::test]
async fn a_link_that_brings_no_confirms_is_given_up_by_the_watchdog() {
    let world = World::new().await;
    // Heartbeats that would notice it only after a minute.
    let program = world.sender("sender-1").env("HEARTBEAT_SECS", 30);
    let sender = linked(&world, program, &world.database.sender_url).await;
    let _receiver = world.receiver("receiver-1").start().await;
    ready(&sender.node).await;
    part(&sender.node, "rabbitmq", "up", LIMIT).await;
    sender.rabbitmq.freeze(Direction::Down);
    let frozen = Instant::now();
    offer(&[sender.node.url()], 10, 5, Duration::ZERO).await;
    part(&sender.node, "rabbitmq", "away", Duration::from_secs(10)).await;
    assert!(
        frozen.elapsed() >= Duration::from_secs(3),
        "not before its time: {:?}",
        frozen.elapsed()
    );
    assert!(
        sender.node.log().contains("no confirm came"),
        "the watchdog, not something else"
    );
    sender.rabbitmq.cut_rst();
    sender.rabbitmq.thaw();
    world.drained(LIMIT).await.assert_exactly_once(10);
}

#[tokio::test]
async fn a_receiver_whose_link_falls_silent_is_replaced_by_its_heartbeat() {
    let world = World::new().await;
    let sender = world.sender("sender-1").start().await;
    let receiver = linked(
        &world,
        world.receiver("receiver-1"),
        &world.database.receiver_url,
    )
    .await;
    ready(&sender).await;
    ready(&receiver.node).await;
    receiver.rabbitmq.freeze(Direction::Down);
    receiver.rabbitmq.freeze(Direction::Up);
    offer(&[sender.url()], 10, 5, Duration::ZERO).await;
    // Two heartbeats of 2 s, and what the check costs.
    part(&receiver.node, "rabbitmq", "away", Duration::from_secs(15)).await;
    receiver.rabbitmq.cut_rst();
    receiver.rabbitmq.thaw();
    world.drained(LIMIT).await.assert_exactly_once(10);
}

#[tokio::test]
async fn rows_of_a_living_sender_whose_own_link_is_cut_are_published_by_another() {
    let world = World::new().await;
    let cut_off = linked(
        &world,
        world.sender("sender-cut"),
        &world.database.sender_url,
    )
    .await;
    ready(&cut_off.node).await;
    part(&cut_off.node, "rabbitmq", "up", LIMIT).await;
    cut_off.rabbitmq.refuse(true);
    cut_off.rabbitmq.cut_rst();
    part(&cut_off.node, "rabbitmq", "away", LIMIT).await;
    offer(&[cut_off.node.url()], 10, 5, Duration::ZERO).await;
    let _receiver = world.receiver("receiver-1").start().await;
    let other = world.sender("sender-other").start().await;
    world.drained(LIMIT).await.assert_exactly_once(10);
    assert!(
        other
            .metric("unacked_messages_confirmed_total")
            .await
            .unwrap()
            >= 10.0
    );
}

#[tokio::test]
async fn a_sender_that_loses_both_links_after_claiming_lets_go_of_its_rows() {
    let world = World::new().await;
    let lost = linked(
        &world,
        world.sender("sender-lost"),
        &world.database.sender_url,
    )
    .await;
    ready(&lost.node).await;
    part(&lost.node, "rabbitmq", "up", LIMIT).await;
    // It claims and publishes, hears nothing, and cannot say so to the database either.
    lost.rabbitmq.freeze(Direction::Up);
    offer(&[lost.node.url()], 5, 5, Duration::ZERO).await;
    lost.postgres.freeze(Direction::Up);
    let _receiver = world.receiver("receiver-1").start().await;
    let _other = world.sender("sender-other").start().await;
    world.drained(LIMIT).await.assert_exactly_once(5);
}

#[tokio::test]
async fn rows_of_a_commit_that_was_not_answered_are_published_though_the_session_lives() {
    let world = World::new().await;
    let program = world.sender("sender-1").env("LAB_OPS", true);
    let sender = linked(&world, program, &world.database.sender_url).await;
    let _receiver = world.receiver("receiver-1").start().await;
    ready(&sender.node).await;
    part(&sender.node, "rabbitmq", "up", LIMIT).await;
    let point = "submit.before_commit";
    sender.node.arm(&format!("{point}=park")).await.unwrap();
    let url = sender.node.url();
    let answer = post(&url, "k", "hello");
    let cut = async {
        wait_until("the commit to be near", LIMIT, async || {
            Ok::<_, String>(sender.node.fail_point(point).await.unwrap().1 == 1)
                .and_then(|parked| parked.then_some(()).ok_or("not yet".to_owned()))
        })
        .await;
        // The commit goes out, and its answer does not come in.
        sender.postgres.freeze(Direction::Down);
        sender.node.arm("").await.unwrap();
    };
    let (answer, ()) = tokio::join!(answer, cut);
    assert_eq!(answer.unwrap().status, 503, "the outcome is unknown");
    sender.postgres.thaw();
    world.drained(LIMIT).await.assert_exactly_once(1);
}

#[tokio::test]
async fn a_claim_takes_no_more_than_it_may_though_it_was_planned_for_an_empty_table() {
    let world = World::new().await;
    let sender = world.sender("sender-1").start().await;
    ready(&sender).await;
    drop(sender);
    let admin = &world.database.admin;
    let run = async |sql: &'static str| sqlx::query(sql).execute(admin).await.unwrap();
    run("vacuum analyze sender.outbox").await;
    let pool = PgPoolOptions::new().max_connections(1);
    let pool = pool.connect(&world.database.sender_url).await.unwrap();
    let lease = Uuid::new_v4();
    // After five executions Postgres settles for a plan, made for what it knew then.
    for _ in 0..7 {
        assert!(claim(&pool, lease, 100).await.unwrap().is_empty());
    }
    run(
        "insert into sender.outbox (message_id, kind, body, node, accepted_at)
         select gen_random_uuid(), 'message.v1', '', 'n', now() from generate_series(1, 2000)",
    )
    .await;
    assert_eq!(claim(&pool, lease, 100).await.unwrap().len(), 100);
    let claimed = world.count("select count(*) from sender.outbox where lease is not null");
    assert_eq!(claimed.await, 100);
}

#[tokio::test]
async fn unroutable_messages_are_kept_shown_and_published_when_there_is_a_way() {
    let world = World::new().await;
    let sender = world.sender("sender-1").start().await;
    let receiver = world.receiver("receiver-1").start().await;
    ready(&sender).await;
    // Whoever opens a session binds the queue: nobody may be about to.
    part(&sender, "rabbitmq", "up", LIMIT).await;
    part(&receiver, "rabbitmq", "up", LIMIT).await;
    let vhost = &world.broker.vhost;
    let binding = [
        "bindings", vhost, "e", "messages", "q", "messages", "messages",
    ];
    world
        .broker
        .manage(reqwest::Method::DELETE, &binding, None)
        .await
        .unwrap();
    // More than a batch, in part before and in part after others: none may be taken for confirmed.
    offer(&[sender.url()], 200, 16, Duration::ZERO).await;
    wait_until("all to be shown as unroutable", LIMIT, async || {
        world
            .count("select count(*) from sender.outbox where state = 'unroutable'")
            .await
            == 200
    })
    .await;
    let id = world
        .count("select number from sender.message order by number desc limit 1")
        .await;
    assert!(id > 0);
    let body = serde_json::json!({"routing_key": "messages", "arguments": {}});
    world
        .broker
        .manage(reqwest::Method::POST, &binding[..6], Some(body))
        .await
        .unwrap();
    world.drained(LIMIT).await.assert_exactly_once(200);
    assert!(
        sender
            .metric("unacked_messages_unroutable_returned_total")
            .await
            .unwrap()
            >= 200.0
    );
}

#[tokio::test]
async fn a_queue_that_refuses_makes_messages_wait_and_then_takes_them() {
    let world = World::new().await;
    let sender = world.sender("sender-1").start().await;
    ready(&sender).await;
    part(&sender, "rabbitmq", "up", LIMIT).await;
    world.fill_up().await;
    // The policy takes effect a little later, and lets a few through.
    wait_until("a publish to be refused", LIMIT, async || {
        post(&sender.url(), &Uuid::new_v4().to_string(), "x")
            .await
            .unwrap();
        world
            .count("select count(*) from sender.outbox where state = 'refused'")
            .await
            >= 3
    })
    .await;
    let _receiver = world.receiver("receiver-1").start().await;
    world.make_room().await;
    let accepted = world.audit().await.accepted;
    world.drained(LIMIT).await.assert_exactly_once(accepted);
}
