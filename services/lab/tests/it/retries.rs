//! What a failure of the work does, and how its message comes back: at once, or on the ladder.

use std::time::Duration;

use reqwest::{Method, StatusCode};
use serde_json::json;
use testkit::{Direction, Process, Program, wait_until};

use crate::{
    load::offer,
    world::{World, linked, part, ready, turn},
};

const LIMIT: Duration = Duration::from_secs(40);

async fn reaches(node: &Process, name: &str, least: f64) {
    wait_until(
        &format!("{name} to reach {least}"),
        LIMIT,
        async || match node.metric(name).await {
            Ok(now) if now >= least => Ok(()),
            Ok(now) => Err(now.to_string()),
            Err(error) => Err(error.to_string()),
        },
    )
    .await;
}

/// A sender and a receiver whose work always fails, in this way; one message is on its way.
async fn failing(world: &World, action: &str) -> (Process, Process) {
    let receiver = world.receiver("receiver-1").env("WORK_FAIL_ONE_IN", 1);
    // Slowly, since a message that is delivered a hundred times is given up on.
    let receiver = receiver.env("WORK_DELAY_MIN_MS", 100);
    let receiver = receiver.env("WORK_DELAY_MAX_MS", 100);
    let receiver = receiver.env("WORK_MAX_FAILURES", 800);
    let receiver = receiver.env("WORK_FAILURE_ACTION", action).start().await;
    let sender = world.sender("sender-1").start().await;
    ready(&sender).await;
    ready(&receiver).await;
    offer(&[sender.url()], 1, 1, Duration::ZERO).await;
    (sender, receiver)
}

#[tokio::test]
async fn a_failure_may_reject_drop_the_connection_or_hang_and_nothing_is_lost() {
    let play = async |action: &str| {
        let world = World::new().await;
        let (_sender, receiver) = failing(&world, action).await;
        match action {
            "reject" => reaches(&receiver, "unacked_messages_requeued_total", 3.0).await,
            "drop" => reaches(&receiver, "unacked_sessions_broken_total", 2.0).await,
            _ => {
                wait_until("the work to hang", LIMIT, async || {
                    let seen = "select count(*) from receiver.delivery where outcome is null
                                   and started_at < clock_timestamp() - interval '1 s'";
                    world.count(seen).await == 1
                })
                .await;
                assert_eq!(
                    world.count("select count(*) from receiver.failure").await,
                    0
                );
            }
        }
        turn(
            &receiver,
            json!({"fail_one_in": 0, "failure_action": "nack"}),
        )
        .await;
        world.drained(LIMIT).await.assert_exactly_once(1);
        let failures = world.count("select count(*) from receiver.failure").await;
        assert!(failures >= 1, "{action}: {failures}");
    };
    tokio::join!(play("reject"), play("drop"), play("hang"));
}

#[tokio::test]
async fn a_failure_may_crash_the_receiver() {
    let world = World::new().await;
    let (_sender, mut receiver) = failing(&world, "crash").await;
    let status = receiver.wait(LIMIT).await.unwrap();
    assert!(!status.success(), "{status}");
    receiver.set_env("WORK_FAIL_ONE_IN", "0");
    receiver.start_again().await;
    world.drained(LIMIT).await.assert_exactly_once(1);
    assert_eq!(
        world.count("select count(*) from receiver.failure").await,
        0
    );
}

#[tokio::test]
async fn a_broken_receiver_may_ack_without_an_effect_or_park_at_once() {
    let play = async |action: &str| {
        let world = World::new().await;
        let (_sender, receiver) = failing(&world, action).await;
        reaches(&receiver, "unacked_messages_acknowledged_total", 1.0).await;
        let audit = world.audit().await;
        (audit.processed, audit.parked, audit.missing.len())
    };
    let (acked, parked) = tokio::join!(play("ack"), play("park"));
    assert_eq!(acked, (0, 0, 1));
    assert_eq!(parked, (0, 1, 0));
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
    reaches(&receiver, "unacked_messages_duplicate_total", 1.0).await;
    world.drained(LIMIT).await.assert_exactly_once(1);
    assert_eq!(waiting_on(&world, &[1_500]).await, 0);
}

#[tokio::test]
async fn a_message_is_held_while_its_rung_refuses_and_a_rung_that_is_gone_is_declared_again() {
    let world = World::new().await;
    // A quorum queue would take one more than its limit.
    let receiver = on_the_ladder(&world, "300").env("QUEUE_TYPE", "classic");
    let receiver = receiver.env("WORK_FAIL_ONE_IN", 1).start().await;
    let sender = world.sender("sender-1").env("QUEUE_TYPE", "classic");
    let sender = sender.start().await;
    ready(&sender).await;
    ready(&receiver).await;
    let vhost = &world.broker.vhost;
    let full = json!({"pattern": "retry", "apply-to": "queues", "definition": {"max-length": 0}});
    let policy = ["policies", vhost, "full"];
    let manage = async |method, path: &[&str], body| {
        world.broker.manage(method, path, body).await.unwrap();
    };
    manage(Method::PUT, &policy, Some(full)).await;
    offer(&[sender.url()], 1, 1, Duration::ZERO).await;
    reaches(&receiver, "unacked_messages_refused_total", 2.0).await;
    let failures = "select count(*) from receiver.failure";
    assert_eq!(world.count(failures).await, 1, "held, not worked on again");
    manage(Method::DELETE, &policy, None).await;
    manage(
        Method::DELETE,
        &["queues", vhost, "messages.retry.300"],
        None,
    )
    .await;
    reaches(&receiver, "unacked_messages_delayed_total", 1.0).await;
    turn(&receiver, json!({"fail_one_in": 0})).await;
    world.drained(LIMIT).await.assert_exactly_once(1);
}

#[tokio::test]
async fn settings_of_the_work_that_do_not_fit_are_refused() {
    let world = World::new().await;
    for (settings, said) in [
        (
            &[("WORK_DELAY_MIN_MS", "7"), ("WORK_DELAY_MAX_MS", "6")][..],
            "wrong setting WORK_DELAY_MIN_MS \"7\": right is at most WORK_DELAY_MAX_MS, 6",
        ),
        (
            &[("WORK_FAILURE_ACTION", "nak")],
            "right is one of nack, reject, drop, crash, ack, park, hang",
        ),
        (
            &[("RETRY_LADDER_MS", "5,1")],
            "each longer than the one before",
        ),
        (&[("RETRY", "never")], "right is requeue or ladder"),
    ] {
        let program = world.receiver("receiver-1");
        let program = settings
            .iter()
            .fold(program, |p, (name, value)| p.env(name, value));
        let (status, log) = program.output(LIMIT).await.unwrap();
        assert_eq!(status.code(), Some(2), "{log}");
        assert!(log.contains(said), "{log}");
    }
}
