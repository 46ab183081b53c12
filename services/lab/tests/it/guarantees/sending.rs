//! From the accepting commit to the queue.

use std::{
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};

use serde_json::json;
use testkit::{Direction, Server, Servers, wait_until};

use super::{LIMIT, Play, assert_only_the_unsafe_one_loses, both, metric_reaches};
use crate::{
    load::offer,
    world::{World, lab, part, ready},
};

#[tokio::test]
async fn without_an_outbox_what_is_accepted_while_the_broker_is_away_is_lost() {
    let audits = both("outbox", async |play| {
        let _receiver = play.receiver().start().await;
        let sender = play.linked_sender().await;
        sender.rabbitmq.refuse(true);
        sender.rabbitmq.cut_rst();
        part(&sender.node, "rabbitmq", "away", LIMIT).await;
        offer(&[sender.node.url()], 3, 3, Duration::ZERO).await;
        sender.rabbitmq.refuse(false);
        part(&sender.node, "rabbitmq", "up", LIMIT).await;
        play.through(&sender.node).await
    })
    .await;
    assert_only_the_unsafe_one_loses(&audits, 4, 3);
}

#[tokio::test]
async fn without_confirms_what_was_on_a_silent_link_is_lost_when_it_is_cut() {
    let audits = both("confirms", async |play| {
        let _receiver = play.receiver().start().await;
        let sender = play.linked_sender().await;
        sender.rabbitmq.freeze(Direction::Up);
        offer(&[sender.node.url()], 3, 3, Duration::ZERO).await;
        let point = "relay.after_publish";
        wait_until("all to be published", LIMIT, async || {
            sender
                .node
                .fail_point(point)
                .await
                .is_ok_and(|(passed, _)| passed >= 3)
        })
        .await;
        // Taken for published by who does not wait for a confirm.
        play.outbox_is(if play.off.is_empty() { 3 } else { 0 })
            .await;
        sender.rabbitmq.cut_rst();
        part(&sender.node, "rabbitmq", "away", LIMIT).await;
        sender.rabbitmq.thaw();
        part(&sender.node, "rabbitmq", "up", LIMIT).await;
        play.through(&sender.node).await
    })
    .await;
    assert_only_the_unsafe_one_loses(&audits, 4, 3);
}

#[tokio::test]
async fn without_mandatory_what_no_queue_takes_is_lost() {
    let audits = both("mandatory", async |play| {
        let _receiver = play.receiver().start().await;
        let sender = play.linked_sender().await;
        play.consumed().await;
        play.bind("messages", false).await;
        offer(&[sender.node.url()], 3, 3, Duration::ZERO).await;
        play.outbox_is(if play.off.is_empty() { 3 } else { 0 })
            .await;
        play.bind("messages", true).await;
        play.through(&sender.node).await
    })
    .await;
    assert_only_the_unsafe_one_loses(&audits, 4, 3);
}

#[tokio::test]
async fn without_persistence_a_classic_queue_loses_its_messages_with_the_broker() {
    let servers = Servers::start(lab()).await;
    let (safe, harmed) = (
        World::on(servers.clone()).await,
        World::on(servers.clone()).await,
    );
    let plays = [("", safe), ("persistence", harmed)].map(|(off, world)| {
        let off = off.to_owned();
        Play { world, off }
    });
    let mut senders = Vec::new();
    for play in &plays {
        let sender = play.sender().env("QUEUE_TYPE", "classic").start().await;
        ready(&sender).await;
        offer(&[sender.url()], 10, 5, Duration::ZERO).await;
        play.outbox_is(0).await;
        senders.push(sender);
    }
    servers.stop(Server::RabbitMq).await;
    servers.start_again(Server::RabbitMq).await;
    let mut audits = Vec::new();
    for (play, sender) in plays.iter().zip(&senders) {
        let receiver = play.receiver().env("QUEUE_TYPE", "classic").start().await;
        ready(&receiver).await;
        audits.push(play.through(sender).await);
    }
    let harmed = audits.pop().unwrap();
    assert_only_the_unsafe_one_loses(&(audits.pop().unwrap(), harmed), 11, 10);
}

#[tokio::test]
async fn without_a_message_id_what_is_published_twice_has_two_effects() {
    let (safe, harmed) = both("message-id", async |play| {
        let receiver = play.receiver().start().await;
        let sender = play.linked_sender().await;
        // The broker gets it, and its confirm gets lost.
        sender.rabbitmq.freeze(Direction::Down);
        offer(&[sender.node.url()], 1, 1, Duration::ZERO).await;
        metric_reaches(&receiver, "unacked_messages_acknowledged_total", 1.0).await;
        sender.rabbitmq.cut_rst();
        part(&sender.node, "rabbitmq", "away", LIMIT).await;
        sender.rabbitmq.thaw();
        metric_reaches(&receiver, "unacked_messages_acknowledged_total", 2.0).await;
        play.world.audit().await
    })
    .await;
    assert_eq!((safe.processed, safe.twice.len()), (1, 0), "{safe:?}");
    assert_eq!(
        (harmed.twice.len(), harmed.unexpected.len()),
        (1, 0),
        "{harmed:?}"
    );
}

#[tokio::test]
async fn without_reject_publish_a_full_queue_throws_its_oldest_messages_out() {
    const MESSAGES: usize = 12;
    let more = AtomicUsize::new(0);
    let (safe, harmed) = both("reject-publish", async |play| {
        let sender = play.sender().start().await;
        ready(&sender).await;
        part(&sender, "rabbitmq", "up", LIMIT).await;
        // Without a word on what becomes of the rest: on a quorum queue a policy would have the last.
        play.world
            .policy("test", "^messages$", json!({"max-length": 3}))
            .await;
        offer(&[sender.url()], MESSAGES, 1, Duration::ZERO).await;
        if play.off.is_empty() {
            // a quorum queue says that it is full a moment after it was, and takes what comes until then
            wait_until("the queue to refuse", LIMIT, async || {
                let refused = sender.metric("unacked_messages_refused_total").await;
                if matches!(refused, Ok(refused) if refused >= 1.0) {
                    return Ok(());
                }
                more.fetch_add(1, Ordering::Relaxed);
                offer(&[sender.url()], 1, 1, Duration::ZERO).await;
                Err(format!("{refused:?}"))
            })
            .await;
        } else {
            play.outbox_is(0).await;
        }
        let _receiver = play.receiver().start().await;
        play.world.drained(LIMIT).await
    })
    .await;
    safe.assert_exactly_once(MESSAGES + more.into_inner());
    assert!(harmed.parked > 0 && harmed.missing.is_empty(), "{harmed:?}");
}
