//! The mission's figures: who does how much, how often it fails, and when it is given up on.

use std::time::{Duration, Instant};

use testkit::{Direction, wait_until};

use crate::{
    load::offer,
    world::{World, linked, part, ready},
};

const LIMIT: Duration = Duration::from_mins(2);

#[tokio::test]
async fn two_senders_and_three_receivers_share_sixty_messages() {
    let world = World::new().await;
    let mut senders = Vec::new();
    for n in 1..=2 {
        senders.push(world.sender(&format!("sender-{n}")).start().await);
    }
    let mut receivers = Vec::new();
    for n in 1..=3 {
        // The mission's own settings.
        let receiver = world.receiver(&format!("receiver-{n}"));
        let receiver = receiver
            .env("WORK_DELAY_MAX_MS", 5_000)
            .env("WORK_FAIL_ONE_IN", 5);
        receivers.push(receiver.start().await);
    }
    for node in senders.iter().chain(&receivers) {
        ready(node).await;
    }
    let urls: Vec<String> = senders.iter().map(testkit::Process::url).collect();
    offer(&urls, 60, 8, Duration::ZERO).await;
    world.drained(LIMIT).await.assert_exactly_once(60);
    assert_eq!(
        world
            .count("select count(distinct node) from sender.message")
            .await,
        2
    );
    assert_eq!(
        world
            .count("select count(distinct node) from receiver.processed")
            .await,
        3
    );
    assert!(world.count("select count(*) from receiver.failure").await > 0);
    assert!(
        world
            .count("select count(*) from receiver.processed where attempt > 1 and redelivered")
            .await
            > 0
    );
}

#[tokio::test]
async fn one_delivery_in_five_fails_and_every_message_is_processed() {
    let world = World::new().await;
    let sender = world.sender("sender-1").start().await;
    let _receiver = world
        .receiver("receiver-1")
        .env("WORK_FAIL_ONE_IN", 5)
        .start()
        .await;
    ready(&sender).await;
    let messages = 2_000;
    offer(&[sender.url()], messages, 32, Duration::ZERO).await;
    world.drained(LIMIT).await.assert_exactly_once(messages);
    let failed = world.count("select count(*) from receiver.failure").await;
    let deliveries = failed + i64::try_from(messages).unwrap();
    let percent = 100 * failed / deliveries;
    assert!(
        (17..=23).contains(&percent),
        "{failed} of {deliveries} deliveries failed"
    );
}

#[tokio::test]
async fn a_message_that_always_fails_is_parked_after_exactly_twenty_failures_however_often_the_link_is_cut()
 {
    let world = World::new().await;
    let sender = world.sender("sender-1").start().await;
    let poisoned = world
        .receiver("receiver-1")
        .env("WORK_FAIL_ONE_IN", 1)
        .env("WORK_DELAY_MAX_MS", 200);
    let receiver = linked(&world, poisoned, &world.database.receiver_url).await;
    ready(&sender).await;
    ready(&receiver.node).await;
    offer(&[sender.url()], 3, 3, Duration::ZERO).await;
    for _ in 0..8 {
        part(&receiver.node, "rabbitmq", "up", LIMIT).await;
        let seen = receiver.rabbitmq.bytes(Direction::Up);
        let patience = Instant::now() + Duration::from_secs(2);
        wait_until("a few deliveries", LIMIT, async || {
            receiver.rabbitmq.bytes(Direction::Up) > seen + 300 || Instant::now() > patience
        })
        .await;
        receiver.rabbitmq.cut_rst();
    }
    let audit = world.drained(LIMIT).await;
    assert_eq!((audit.processed, audit.parked), (0, 3));
    assert_eq!(
        world.count("select count(*) from receiver.failure").await,
        60
    );
    assert_eq!(world.count("select count(*) from receiver.dead_letter where reason like 'its work failed 20 times%'").await, 3);
}

#[tokio::test]
async fn a_receiver_that_starts_second_does_its_share() {
    let world = World::new().await;
    let sender = world.sender("sender-1").start().await;
    ready(&sender).await;
    offer(&[sender.url()], 500, 16, Duration::ZERO).await;
    wait_until("all to be published", LIMIT, async || {
        world.count("select count(*) from sender.outbox").await == 0
    })
    .await;
    let slow = |name| world.receiver(name).env("WORK_DELAY_MAX_MS", 400);
    let first = slow("receiver-1").start().await;
    ready(&first).await;
    wait_until("the first to be at work", LIMIT, async || {
        world.count("select count(*) from receiver.processed").await >= 20
    })
    .await;
    let second = slow("receiver-2").start().await;
    ready(&second).await;
    let before = world.count("select count(*) from receiver.processed").await;
    world.drained(LIMIT).await.assert_exactly_once(500);
    let by_second = world
        .count("select count(*) from receiver.processed where node = 'receiver-2'")
        .await;
    let share = 100 * by_second / (500 - before);
    assert!(
        (40..=60).contains(&share),
        "{by_second} of {} by the second: {share} %",
        500 - before
    );
}

#[tokio::test]
async fn a_message_that_is_never_settled_is_parked_for_that_and_not_for_an_earlier_failure() {
    let world = World::new().await;
    let sender = world.sender("sender-1").start().await;
    let receiver = world
        .receiver("receiver-1")
        .env("MAX_DELIVERIES", 3)
        .env("WORK_FAIL_ONE_IN", 1)
        .env("FAIL_POINTS", "settle.before_ack=park");
    let receiver = linked(&world, receiver, &world.database.receiver_url).await;
    ready(&sender).await;
    ready(&receiver.node).await;
    offer(&[sender.url()], 1, 1, Duration::ZERO).await;
    wait_until("one failure", LIMIT, async || {
        world.count("select count(*) from receiver.failure").await == 1
    })
    .await;
    let put = async |path: &str, body: &'static str| {
        let url = receiver.node.ops_url() + path;
        let answer = reqwest::Client::new().put(url).body(body).send().await;
        assert!(answer.unwrap().status().is_success(), "{path}");
    };
    // From now on its work never ends.
    let endless = r#"{"fail_one_in": 0, "delay_min_ms": 60000, "delay_max_ms": 60000}"#;
    put("/ops/knobs", endless).await;
    put("/ops/fail-points", "").await;
    let parked = "select count(*) from receiver.dead_letter";
    for attempt in 2..10 {
        let begun = format!(
            "select count(*) from receiver.delivery where attempt = {attempt} and outcome is null"
        );
        wait_until("a delivery, or the end", LIMIT, async || {
            world.count(&begun).await == 1 || world.count(parked).await == 1
        })
        .await;
        if world.count(parked).await == 1 {
            break;
        }
        receiver.rabbitmq.cut_rst();
    }
    let found: (String, i32) = sqlx::query_as("select reason, attempts from receiver.dead_letter")
        .fetch_one(&world.database.admin)
        .await
        .unwrap();
    let reason = "delivered more than 3 times without being settled; failures of its work: 1";
    assert_eq!(found, (reason.to_owned(), 5));
}
