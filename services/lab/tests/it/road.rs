//! One test per row of the road's table: the process dies at the fail point, comes back, and every
//! message has exactly one effect.

use std::time::Duration;

use testkit::{Process, wait_until};
use uuid::Uuid;

use crate::{
    load::{offer, post},
    world::{World, ready},
};

const LIMIT: Duration = Duration::from_mins(1);
const MESSAGES: usize = 20;

/// Runs messages through a sender and a receiver, one of which dies at `fail_point` and is started
/// again; gives both, to look at.
async fn die_at(world: &World, fail_point: &str) -> (Process, Process) {
    let spec = format!("{fail_point}=crash@1");
    let sender_dies = fail_point.starts_with("submit") || fail_point.starts_with("relay");
    let (mut sender, mut receiver) = (world.sender("sender-1"), world.receiver("receiver-1"));
    if sender_dies {
        sender = sender.env("FAIL_POINTS", &spec);
    } else {
        receiver = receiver.env("FAIL_POINTS", &spec);
    }
    let (mut sender, mut receiver) = (sender.start().await, receiver.start().await);
    ready(&sender).await;
    let urls = [sender.url()];
    let victim = if sender_dies {
        &mut sender
    } else {
        &mut receiver
    };
    let revive = async {
        let status = victim
            .wait(LIMIT)
            .await
            .expect("the node dies at the fail point");
        assert!(!status.success(), "it crashed: {status}");
        victim.set_env("FAIL_POINTS", "");
        victim.start_again().await;
    };
    tokio::join!(offer(&urls, MESSAGES, 4, Duration::ZERO), revive);
    (sender, receiver)
}

#[tokio::test]
async fn dying_before_the_commit_of_a_submission_stores_nothing_and_the_repetition_is_one_message()
{
    let world = World::new().await;
    let _nodes = die_at(&world, "submit.before_commit").await;
    world.drained(LIMIT).await.assert_exactly_once(MESSAGES);
}

#[tokio::test]
async fn dying_after_the_commit_of_a_submission_is_found_out_by_the_repetition() {
    let world = World::new().await;
    let mut sender = world
        .sender("sender-1")
        .env("FAIL_POINTS", "submit.after_commit=crash@1")
        .start()
        .await;
    let _receiver = world.receiver("receiver-1").start().await;
    ready(&sender).await;
    let key = Uuid::new_v4().to_string();
    assert!(
        post(&sender.url(), &key, "hello").await.is_err(),
        "the client is not told"
    );
    sender.wait(LIMIT).await.unwrap();
    sender.set_env("FAIL_POINTS", "");
    sender.start_again().await;
    ready(&sender).await;
    let again = post(&sender.url(), &key, "hello").await.unwrap();
    assert_eq!(
        (again.status.as_u16(), &again.body["repeated"]),
        (202, &true.into()),
        "{again:?}"
    );
    world.drained(LIMIT).await.assert_exactly_once(1);
}

#[tokio::test]
async fn dying_before_the_publish_leaves_the_rows_to_be_published() {
    let world = World::new().await;
    let _nodes = die_at(&world, "relay.before_publish").await;
    world.drained(LIMIT).await.assert_exactly_once(MESSAGES);
}

#[tokio::test]
async fn dying_between_publish_and_confirm_may_publish_twice_and_has_one_effect() {
    let world = World::new().await;
    let _nodes = die_at(&world, "relay.after_publish").await;
    world.drained(LIMIT).await.assert_exactly_once(MESSAGES);
}

#[tokio::test]
async fn dying_between_confirm_and_mark_publishes_twice_and_has_one_effect() {
    let world = World::new().await;
    let (_sender, receiver) = die_at(&world, "relay.after_confirm").await;
    world.drained(LIMIT).await.assert_exactly_once(MESSAGES);
    wait_until("the second copy to be recognised", LIMIT, async || {
        receiver
            .metric("unacked_messages_duplicate_total")
            .await
            .is_ok_and(|n| n >= 1.0)
    })
    .await;
}

#[tokio::test]
async fn dying_with_a_delivery_in_hand_has_it_delivered_again() {
    let world = World::new().await;
    let (_sender, receiver) = die_at(&world, "consumer.on_delivery").await;
    world.drained(LIMIT).await.assert_exactly_once(MESSAGES);
    assert!(
        receiver
            .metric("unacked_messages_redelivered_total")
            .await
            .unwrap()
            >= 1.0
    );
}

#[tokio::test]
async fn dying_before_the_commit_of_an_effect_rolls_it_back_and_does_it_again() {
    let world = World::new().await;
    let _nodes = die_at(&world, "consumer.before_commit").await;
    world.drained(LIMIT).await.assert_exactly_once(MESSAGES);
    assert!(
        world
            .count("select count(*) from receiver.processed where attempt > 1")
            .await
            >= 1
    );
}

#[tokio::test]
async fn dying_between_the_effect_and_the_ack_has_no_second_effect() {
    let world = World::new().await;
    let (_sender, receiver) = die_at(&world, "settle.before_ack").await;
    world.drained(LIMIT).await.assert_exactly_once(MESSAGES);
    wait_until("the redelivery to be recognised", LIMIT, async || {
        receiver
            .metric("unacked_messages_duplicate_total")
            .await
            .is_ok_and(|n| n >= 1.0)
    })
    .await;
}

#[tokio::test]
async fn dying_between_parking_and_the_ack_parks_once() {
    let world = World::new().await;
    let poison = |program: testkit::Program| {
        program
            .env("WORK_FAIL_ONE_IN", 1)
            .env("WORK_MAX_FAILURES", 2)
    };
    let sender = world.sender("sender-1").start().await;
    let mut receiver = poison(world.receiver("receiver-1"))
        .env("FAIL_POINTS", "dead_letter.after_park=crash@2")
        .start()
        .await;
    ready(&sender).await;
    offer(&[sender.url()], 5, 5, Duration::ZERO).await;
    receiver.wait(LIMIT).await.unwrap();
    receiver.set_env("FAIL_POINTS", "");
    receiver.start_again().await;
    let audit = world.drained(LIMIT).await;
    assert_eq!((audit.accepted, audit.processed, audit.parked), (5, 0, 5));
    wait_until("the queue of dead letters to be empty", LIMIT, async || {
        world
            .broker
            .queue_statistics("messages.dead")
            .await
            .is_ok_and(|depth| depth.ready + depth.unacked == 0)
    })
    .await;
    assert_eq!(
        world
            .count("select count(*) from receiver.dead_letter")
            .await,
        5
    );
}

#[tokio::test]
async fn rows_of_a_dead_sender_are_published_by_another() {
    let world = World::new().await;
    let mut dead = world
        .sender("sender-dead")
        .env("FAIL_POINTS", "relay.before_publish=crash@1")
        .start()
        .await;
    let _receiver = world.receiver("receiver-1").start().await;
    ready(&dead).await;
    let _ = post(&dead.url(), "k", "left behind").await;
    dead.wait(LIMIT).await.unwrap();
    let _other = world.sender("sender-other").start().await;
    // Not before the dead node's lease of 10 s has ended.
    world.drained(LIMIT).await.assert_exactly_once(1);
}

#[tokio::test]
async fn a_receiver_paused_in_the_middle_of_a_commit_stops_nobody_else() {
    let world = World::new().await;
    let sender = world.sender("sender-1").start().await;
    let paused = world
        .receiver("receiver-paused")
        .env("FAIL_POINTS", "consumer.before_commit=park")
        .start()
        .await;
    ready(&sender).await;
    ready(&paused).await;
    offer(&[sender.url()], 1, 1, Duration::ZERO).await;
    wait_until(
        "the receiver to stand before its commit",
        LIMIT,
        async || {
            paused
                .fail_point("consumer.before_commit")
                .await
                .is_ok_and(|(_, parked)| parked == 1)
        },
    )
    .await;
    // It holds an open transaction with the inbox row of the message, and says nothing more.
    paused.pause();
    let _other = world.receiver("receiver-other").start().await;
    offer(&[sender.url()], MESSAGES, 4, Duration::ZERO).await;
    world.drained(LIMIT).await.assert_exactly_once(MESSAGES + 1);
    let by_other = world
        .count("select count(*) from receiver.processed where node = 'receiver-other'")
        .await;
    assert_eq!(
        by_other, 21,
        "the paused message too: its node's heartbeat ended"
    );
}

#[tokio::test]
async fn at_sigterm_what_has_begun_is_finished_and_the_rest_goes_back() {
    let world = World::new().await;
    let sender = world.sender("sender-1").start().await;
    let mut receiver = world
        .receiver("receiver-1")
        .env("WORK_DELAY_MAX_MS", 2_000)
        .env("PREFETCH", 4)
        .start()
        .await;
    ready(&sender).await;
    ready(&receiver).await;
    offer(&[sender.url()], MESSAGES, 8, Duration::ZERO).await;
    wait_until("work to be in hand", LIMIT, async || {
        receiver
            .metric("unacked_deliveries_in_hand")
            .await
            .is_ok_and(|n| n >= 4.0)
    })
    .await;
    let status = receiver.terminate(Duration::from_secs(15)).await.unwrap();
    assert!(status.success(), "{status}");
    let unfinished = world
        .count("select count(*) from receiver.delivery where outcome is null")
        .await;
    assert_eq!(unfinished, 0, "everything begun was settled");
    let mut sender = sender;
    assert!(
        sender
            .terminate(Duration::from_secs(15))
            .await
            .unwrap()
            .success()
    );
    receiver.set_env("WORK_DELAY_MAX_MS", 0);
    receiver.start_again().await;
    world.drained(LIMIT).await.assert_exactly_once(MESSAGES);
}
