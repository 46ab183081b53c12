//! What a failure of the work does.

use std::time::Duration;

use serde_json::json;
use testkit::{Process, wait_until};

use crate::{
    load::offer,
    world::{World, reaches, ready, turn},
};

const LIMIT: Duration = Duration::from_secs(40);

async fn metric_reaches(node: &Process, name: &str, least: f64) {
    reaches(node, name, least, LIMIT).await;
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
            "reject" => metric_reaches(&receiver, "unacked_messages_requeued_total", 3.0).await,
            "drop" => metric_reaches(&receiver, "unacked_sessions_broken_total", 2.0).await,
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
        metric_reaches(&receiver, "unacked_messages_acknowledged_total", 1.0).await;
        let audit = world.audit().await;
        (audit.processed, audit.parked, audit.missing.len())
    };
    let (acked, parked) = tokio::join!(play("ack"), play("park"));
    assert_eq!(acked, (0, 0, 1));
    assert_eq!(parked, (0, 1, 0));
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
