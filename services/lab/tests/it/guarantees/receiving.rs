//! From the queue to the effect, or to the dead letters.

use std::time::Duration;

use reqwest::Method;
use serde_json::json;
use testkit::{Direction, wait_until};
use tokio::sync::Notify;

use super::{LIMIT, assert_only_the_unsafe_one_loses, both, metric_reaches};
use crate::{
    load::{offer, post},
    world::{linked, part, ready},
};

#[tokio::test]
async fn without_ack_after_commit_a_dying_receiver_takes_its_messages_along() {
    let audits = both("ack-after-commit", async |play| {
        let crash = "consumer.before_commit=crash@1";
        let mut receiver = play.receiver().env("FAIL_POINTS", crash).start().await;
        let sender = play.sender().start().await;
        ready(&sender).await;
        offer(&[sender.url()], 1, 1, Duration::ZERO).await;
        receiver.wait(LIMIT).await.unwrap();
        receiver.set_env("FAIL_POINTS", "");
        receiver.start_again().await;
        play.through(&sender).await
    })
    .await;
    assert_only_the_unsafe_one_loses(&audits, 2, 1);
}

#[tokio::test]
async fn without_an_inbox_a_receiver_that_dies_before_its_ack_has_a_second_effect() {
    let (safe, harmed) = both("inbox", async |play| {
        let crash = "settle.before_ack=crash@1";
        let mut receiver = play.receiver().env("FAIL_POINTS", crash).start().await;
        let sender = play.sender().start().await;
        ready(&sender).await;
        offer(&[sender.url()], 1, 1, Duration::ZERO).await;
        receiver.wait(LIMIT).await.unwrap();
        receiver.set_env("FAIL_POINTS", "");
        receiver.start_again().await;
        metric_reaches(&receiver, "unacked_messages_acknowledged_total", 1.0).await;
        play.world.audit().await
    })
    .await;
    safe.assert_exactly_once(1);
    assert_eq!(
        (harmed.twice.len(), harmed.missing.len()),
        (1, 0),
        "{harmed:?}"
    );
}

#[tokio::test]
async fn without_dead_lettering_what_is_given_up_on_is_gone() {
    let (safe, harmed) = both("dead-lettering", async |play| {
        let receiver = play.receiver().env("WORK_MAX_FAILURES", 2).start().await;
        let sender = play.sender().start().await;
        ready(&sender).await;
        post(&sender.url(), "key", "poison: this").await.unwrap();
        let rejected = "unacked_messages_dead_lettered_rejected_total";
        metric_reaches(&receiver, rejected, 1.0).await;
        if play.off.is_empty() {
            return play.world.drained(LIMIT).await;
        }
        let audit = play.through(&sender).await;
        assert_eq!(
            play.world
                .broker
                .queue_depth("messages.dead")
                .await
                .unwrap(),
            Some(0)
        );
        audit
    })
    .await;
    assert_eq!((safe.accepted, safe.parked, safe.missing.len()), (1, 1, 0));
    assert_eq!((harmed.parked, harmed.missing.len()), (0, 1), "{harmed:?}");
}

#[tokio::test]
async fn without_prefetch_a_receiver_that_starts_second_gets_nothing() {
    const MESSAGES: usize = 20;
    let (safe, harmed) = both("prefetch", async |play| {
        let sender = play.sender().start().await;
        ready(&sender).await;
        offer(&[sender.url()], MESSAGES, 10, Duration::ZERO).await;
        play.outbox_is(0).await;
        let slow = |name| {
            let receiver = play.world.receiver(name).env("WITHOUT", &play.off);
            let receiver = receiver.env("PREFETCH", 2).env("WORK_DELAY_MIN_MS", 2_000);
            receiver.env("WORK_DELAY_MAX_MS", 2_000)
        };
        let first = slow("receiver-1").start().await;
        metric_reaches(&first, "unacked_deliveries_in_hand", 2.0).await;
        let second = slow("receiver-2").start().await;
        ready(&second).await;
        play.world
            .drained(LIMIT)
            .await
            .assert_exactly_once(MESSAGES);
        let by_second = "select count(*) from receiver.processed where node = 'receiver-2'";
        play.world.count(by_second).await * 100 / i64::try_from(MESSAGES).unwrap()
    })
    .await;
    assert!(safe >= 20, "the second's share was {safe} %");
    assert_eq!(harmed, 0);
}

#[tokio::test]
async fn without_drain_a_stop_leaves_work_to_be_done_again() {
    let (safe, harmed) = both("drain", async |play| {
        let slow = play.receiver().env("WORK_DELAY_MIN_MS", 3_000);
        let mut receiver = slow.env("WORK_DELAY_MAX_MS", 3_000).start().await;
        let sender = play.sender().start().await;
        ready(&sender).await;
        ready(&receiver).await;
        offer(&[sender.url()], 4, 4, Duration::ZERO).await;
        wait_until("the work to have begun", LIMIT, async || {
            // Long enough ago that the look which comes first is over, on a busy machine too.
            let begun = "select count(*) from receiver.delivery
                          where outcome is null and started_at < clock_timestamp() - interval '1 s'";
            play.world.count(begun).await == 4
        })
        .await;
        receiver.terminate(LIMIT).await.unwrap();
        receiver.start_again().await;
        // Nothing is lost by it either way: the other guarantees hold.
        play.world.drained(LIMIT).await.assert_exactly_once(4);
        let again = "select count(*) from receiver.processed where redelivered";
        play.world.count(again).await
    })
    .await;
    assert_eq!((safe, harmed), (0, 4));
}

#[tokio::test]
async fn without_reconsume_a_receiver_looks_healthy_and_does_nothing() {
    both("reconsume", async |play| {
        let receiver = play.receiver().start().await;
        ready(&receiver).await;
        play.consumed().await;
        let path = ["queues", &play.world.broker.vhost, "messages"];
        play.world
            .broker
            .manage(Method::DELETE, &path, None)
            .await
            .unwrap();
        // What is published while a queue is being deleted goes with it.
        if play.off.is_empty() {
            part(&receiver, "rabbitmq", "away", LIMIT).await;
            part(&receiver, "rabbitmq", "up", LIMIT).await;
        } else {
            wait_until("the queue to be gone", LIMIT, async || {
                let depth = play.world.broker.queue_depth("messages").await;
                depth.is_ok_and(|depth| depth.is_none())
            })
            .await;
        }
        // A sender that starts later declares the queue again.
        let sender = play.sender().start().await;
        ready(&sender).await;
        part(&sender, "rabbitmq", "up", LIMIT).await;
        offer(&[sender.url()], 3, 3, Duration::ZERO).await;
        if play.off.is_empty() {
            play.world.drained(LIMIT).await.assert_exactly_once(3);
            return;
        }
        play.outbox_is(0).await;
        let depth = play.world.broker.queue_depth("messages").await.unwrap();
        assert_eq!(depth, Some(3), "nobody takes them");
        assert!(receiver.ready().await.unwrap().0, "and it looks healthy");
        let seen = play
            .world
            .broker
            .manage(Method::GET, &path, None)
            .await
            .unwrap();
        assert_eq!(seen["consumers"].as_u64().unwrap_or(0), 0);
    })
    .await;
}

#[tokio::test]
async fn without_safe_dead_lettering_a_dead_letter_is_lost_while_its_queue_is_away() {
    let (safe, harmed) = both("safe-dead-lettering", async |play| {
        let receiver = play.receiver().env("WORK_MAX_FAILURES", 1).start().await;
        let sender = play.sender().start().await;
        part(&sender, "rabbitmq", "up", LIMIT).await;
        play.consumed().await;
        play.bind("messages.dead", false).await;
        post(&sender.url(), "key", "poison: this").await.unwrap();
        let rejected = "unacked_messages_dead_lettered_rejected_total";
        metric_reaches(&receiver, rejected, 1.0).await;
        if play.off.is_empty() {
            play.bind("messages.dead", true).await;
            // Any change has the broker look at once, else it does so after three minutes.
            play.world
                .policy("test", "^messages$", json!({"delivery-limit": 900}))
                .await;
            return play.world.drained(LIMIT).await;
        }
        let audit = play.through(&sender).await;
        play.bind("messages.dead", true).await;
        play.world
            .policy("test", "^messages$", json!({"delivery-limit": 900}))
            .await;
        audit
    })
    .await;
    assert_eq!((safe.parked, safe.missing.len()), (1, 0), "{safe:?}");
    assert_eq!((harmed.parked, harmed.missing.len()), (0, 1), "{harmed:?}");
}

#[tokio::test]
async fn without_heartbeats_what_is_on_a_silent_link_waits_for_long() {
    let safe_one_is_done = Notify::new();
    let (safe, harmed) = both("heartbeat", async |play| {
        let program = play.receiver().env("HEARTBEAT_SECS", 1);
        let receiver = linked(&play.world, program, &play.world.database.receiver_url).await;
        let sender = play.sender().start().await;
        ready(&sender).await;
        ready(&receiver.node).await;
        receiver.rabbitmq.freeze(Direction::Up);
        receiver.rabbitmq.freeze(Direction::Down);
        offer(&[sender.url()], 3, 3, Duration::ZERO).await;
        play.outbox_is(0).await;
        let _other = play.world.receiver("receiver-2").start().await;
        if play.off.is_empty() {
            let audit = play.world.drained(LIMIT).await;
            part(&receiver.node, "rabbitmq", "away", LIMIT).await;
            safe_one_is_done.notify_one();
            return audit;
        }
        safe_one_is_done.notified().await;
        assert!(receiver.node.ready().await.unwrap().0, "nobody has noticed");
        play.world.audit().await
    })
    .await;
    safe.assert_exactly_once(3);
    assert_eq!(harmed.missing.len(), 3, "{harmed:?}");
}
