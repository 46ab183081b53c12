//! How a failed message comes back on the ladder: late, and without being lost on the way.

use std::time::Duration;

use lapin::BasicProperties;
use reqwest::{Method, StatusCode};
use serde_json::json;
use testkit::{Direction, Process, Program, Server, wait_until};

use crate::{
    load::offer,
    world::{World, linked, part, reaches, ready, turn},
};

const LIMIT: Duration = Duration::from_secs(40);

async fn metric_reaches(node: &Process, name: &str, least: f64) {
    reaches(node, name, least, LIMIT).await;
}

fn on_the_ladder(world: &World, rungs: &str) -> Program {
    let receiver = world.receiver("receiver-1").env("RETRY", "ladder");
    receiver.env("RETRY_LADDER_MS", rungs)
}

async fn waiting_on(world: &World, rungs: &[u32]) -> u32 {
    let mut waiting = 0;
    for rung in rungs {
        let queue = format!("messages.retry.{rung}");
        waiting += world.broker.queue_depth(&queue).await.unwrap().unwrap_or(0);
    }
    waiting
}

#[tokio::test]
async fn on_the_ladder_a_message_comes_back_after_each_rungs_time_and_is_parked_in_the_end() {
    for queue_type in ["quorum", "classic"] {
        let world = World::new().await;
        let receiver = on_the_ladder(&world, "400,1200").env("QUEUE_TYPE", queue_type);
        let receiver = receiver.env("WORK_MAX_FAILURES", 4).start().await;
        let sender = world
            .sender("sender-1")
            .env("QUEUE_TYPE", queue_type)
            .start()
            .await;
        ready(&sender).await;
        ready(&receiver).await;
        let poison = reqwest::Client::new().post(sender.url() + "/api/messages");
        let poison = poison
            .header("X-Run", "r1")
            .json(&json!({"message": "poison: this"}));
        assert_eq!(poison.send().await.unwrap().status(), StatusCode::ACCEPTED);
        // Nobody waits behind it.
        offer(&[sender.url()], 5, 5, Duration::ZERO).await;
        let audit = world.drained(LIMIT).await;
        assert_eq!((audit.processed, audit.parked), (5, 1), "{audit:?}");
        let pauses: Vec<(i32, Option<f64>)> = sqlx::query_as(
            "select attempt, extract(epoch from failed_at - lag(failed_at) over (order by failed_at))::float8
               from receiver.failure order by failed_at",
        )
        .fetch_all(&world.database.admin)
        .await
        .unwrap();
        let attempts: Vec<i32> = pauses.iter().map(|(attempt, _)| *attempt).collect();
        assert_eq!(attempts, [1, 2, 3, 4]);
        let at_least = [0.0, 0.4, 1.2, 1.2];
        for ((_, pause), at_least) in pauses.iter().zip(at_least) {
            let pause = pause.unwrap_or(0.0);
            assert!((at_least..at_least + 3.0).contains(&pause), "{pauses:?}");
        }
        let reason = "select count(*) from receiver.dead_letter where run = 'r1' and reason like 'its work failed 4 times%'";
        assert_eq!(world.count(reason).await, 1);
        assert_eq!(waiting_on(&world, &[400, 1_200]).await, 0);
        let mut receiver = receiver;
        let status = receiver.terminate(LIMIT).await.unwrap();
        assert!(status.success(), "the ladder ends with the rest: {status}");
    }
}

#[tokio::test]
async fn on_the_ladder_nothing_is_lost_or_doubled_when_links_are_cut() {
    let world = World::new().await;
    let receiver = on_the_ladder(&world, "100,200,400").env("WORK_FAIL_ONE_IN", 2);
    let receiver = receiver.env("WORK_DELAY_MAX_MS", 20);
    let receiver = linked(&world, receiver, &world.database.receiver_url).await;
    let sender = world.sender("sender-1").start().await;
    ready(&sender).await;
    ready(&receiver.node).await;
    let urls = [sender.url()];
    let load = offer(&urls, 300, 8, Duration::from_millis(120));
    let cuts = async {
        for cut in 0..5_u64 {
            part(&receiver.node, "rabbitmq", "up", LIMIT).await;
            let goal = receiver.rabbitmq.bytes(Direction::Up) + 9_000 + 3_000 * cut;
            let delayed = "unacked_messages_delayed_total";
            let before = receiver.node.metric(delayed).await.unwrap();
            wait_until("traffic onto the ladder", LIMIT, async || {
                receiver.rabbitmq.bytes(Direction::Up) >= goal
                    && receiver
                        .node
                        .metric(delayed)
                        .await
                        .is_ok_and(|now| now > before)
                    || world.audit().await.processed == 300
            })
            .await;
            receiver.rabbitmq.cut_rst();
            part(&receiver.node, "rabbitmq", "away", LIMIT).await;
        }
    };
    tokio::join!(load, cuts);
    world.drained(LIMIT).await.assert_exactly_once(300);
    assert!(world.count("select count(*) from receiver.failure").await > 100);
    let parked = world
        .count("select count(*) from receiver.dead_letter")
        .await;
    assert_eq!(parked, 0);
}

#[tokio::test]
async fn dying_between_the_rung_and_the_ack_has_the_message_twice_and_one_effect() {
    let world = World::new().await;
    let receiver = on_the_ladder(&world, "1500").env("WORK_FAIL_ONE_IN", 1);
    let crash = "settle.before_ack=crash@1";
    let mut receiver = receiver.env("FAIL_POINTS", crash).start().await;
    let sender = world.sender("sender-1").start().await;
    ready(&sender).await;
    offer(&[sender.url()], 1, 1, Duration::ZERO).await;
    receiver.wait(LIMIT).await.unwrap();
    assert_eq!(waiting_on(&world, &[1_500]).await, 1, "the rung has it");
    receiver.set_env("FAIL_POINTS", "");
    receiver.set_env("WORK_FAIL_ONE_IN", "0");
    receiver.start_again().await;
    metric_reaches(&receiver, "unacked_messages_duplicate_total", 1.0).await;
    world.drained(LIMIT).await.assert_exactly_once(1);
    assert_eq!(waiting_on(&world, &[1_500]).await, 0);
}

/// A sender and a receiver on a classic queue, and one message whose work hangs: it fails when a knob
/// is turned.
async fn hanging(world: &World) -> (Process, Process) {
    let receiver = on_the_ladder(world, "300").env("QUEUE_TYPE", "classic");
    let receiver = receiver.env("WORK_FAIL_ONE_IN", 1);
    let receiver = receiver.env("WORK_FAILURE_ACTION", "hang").start().await;
    let sender = world.sender("sender-1").env("QUEUE_TYPE", "classic");
    let sender = sender.start().await;
    ready(&sender).await;
    ready(&receiver).await;
    offer(&[sender.url()], 1, 1, Duration::ZERO).await;
    wait_until("the work to hang", LIMIT, async || {
        let hanging = "select count(*) from receiver.delivery where outcome is null";
        world.count(hanging).await == 1
    })
    .await;
    (sender, receiver)
}

/// Has `messages` refuse all that comes; the message that shows it waits in the outbox.
async fn refuse(world: &World, sender: &Process) {
    world.fill_up().await;
    offer(&[sender.url()], 1, 1, Duration::ZERO).await;
    metric_reaches(sender, "unacked_messages_refused_total", 1.0).await;
}

/// What hangs fails now; nothing after it does.
async fn fail_once(receiver: &Process) {
    let change = json!({"fail_one_in": 0, "failure_action": "nack"});
    turn(receiver, change).await;
}

#[tokio::test]
async fn a_message_is_held_while_its_rung_refuses_and_a_rung_that_is_gone_is_declared_again() {
    let world = World::new().await;
    let (sender, receiver) = hanging(&world).await;
    refuse(&world, &sender).await;
    // What cannot leave a rung counts: it is full with one message that `messages` does not take.
    world
        .policy("rung", "retry", json!({"max-length": 0}))
        .await;
    let rung = "messages.retry.300";
    wait_until("the rung to refuse", LIMIT, async || {
        let kept = BasicProperties::default().with_delivery_mode(2);
        let published = world.broker.publish_raw("", rung, kept, b"x").await;
        published.is_err_and(|error| error.to_string().contains("not confirmed"))
    })
    .await;
    fail_once(&receiver).await;
    metric_reaches(&receiver, "unacked_messages_refused_total", 2.0).await;
    let failures = "select count(*) from receiver.failure";
    assert_eq!(world.count(failures).await, 1, "held, not worked on again");
    world.no_policy("rung").await;
    let gone = ["queues", &world.broker.vhost, rung];
    let gone = world.broker.manage(Method::DELETE, &gone, None);
    gone.await.unwrap();
    world.make_room().await;
    metric_reaches(&receiver, "unacked_messages_delayed_total", 1.0).await;
    world.drained(LIMIT).await.assert_exactly_once(2);
}

#[tokio::test]
async fn a_rung_keeps_what_a_classic_queue_refuses_to_take_back_also_when_the_broker_is_killed() {
    let world = World::own().await;
    let (sender, receiver) = hanging(&world).await;
    refuse(&world, &sender).await;
    fail_once(&receiver).await;
    metric_reaches(&receiver, "unacked_messages_delayed_total", 1.0).await;
    wait_until("its time on the rung to be over", LIMIT, async || {
        let over = "select count(*) from receiver.failure where failed_at < clock_timestamp() - interval '2 s'";
        world.count(over).await == 1
    })
    .await;
    world.make_room().await;
    world.servers.kill(Server::RabbitMq).await;
    world.servers.start_again(Server::RabbitMq).await;
    // What it was told right before it was killed it may have forgotten, or only its queue has: so it is told anew, both ways.
    // Then the rung has been refused once more, and the broker lets it try again after three minutes.
    world.fill_up().await;
    world.make_room().await;
    world
        .drained(Duration::from_mins(4))
        .await
        .assert_exactly_once(2);
}
