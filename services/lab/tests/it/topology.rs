//! What is declared on the broker is what the code says, and a clash is named, not looped over.

use std::time::Duration;

use lapin::{
    options::QueueDeclareOptions,
    types::{AMQPValue, FieldTable},
};
use serde_json::json;
use testkit::wait_until;

use crate::world::{World, part, ready};

const LIMIT: Duration = Duration::from_mins(1);

#[tokio::test]
async fn queues_are_declared_with_the_arguments_that_keep_messages() {
    let world = World::new().await;
    let receiver = world.receiver("receiver-1").start().await;
    ready(&receiver).await;
    let queue = async |name: &str| {
        world
            .broker
            .manage(
                reqwest::Method::GET,
                &["queues", &world.broker.vhost, name],
                None,
            )
            .await
            .unwrap()
    };
    let messages = queue("messages").await;
    assert_eq!(messages["durable"], true);
    assert_eq!(
        messages["arguments"],
        json!({
            "x-queue-type": "quorum", "x-delivery-limit": 1000, "x-dead-letter-exchange": "messages.dead",
            "x-dead-letter-routing-key": "messages.dead", "x-dead-letter-strategy": "at-least-once",
            "x-overflow": "reject-publish",
        })
    );
    let dead = queue("messages.dead").await;
    assert_eq!(
        dead["arguments"],
        json!({"x-queue-type": "quorum", "x-delivery-limit": 1_000_000, "x-overflow": "reject-publish"})
    );
}

#[tokio::test]
async fn each_role_has_its_own_connection_named_after_its_node() {
    let world = World::new().await;
    let receiver = world.receiver("receiver-1").start().await;
    let sender = world.sender("sender-1").start().await;
    ready(&receiver).await;
    part(&sender, "rabbitmq", "up", LIMIT).await;
    wait_until("three named connections", LIMIT, async || {
        let all = world
            .broker
            .manage(
                reqwest::Method::GET,
                &["vhosts", &world.broker.vhost, "connections"],
                None,
            )
            .await
            .unwrap();
        let mut names: Vec<String> = all
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(|c| {
                c["client_properties"]["connection_name"]
                    .as_str()
                    .map(str::to_owned)
            })
            .collect();
        names.sort();
        if names
            == [
                "receiver-1 consumer",
                "receiver-1 dead letters",
                "sender-1 publisher",
            ]
        {
            Ok(())
        } else {
            Err(names)
        }
    })
    .await;
}

#[tokio::test]
async fn a_queue_of_another_type_is_named_with_the_remedy_and_the_node_ends() {
    let world = World::new().await;
    let (connection, channel) = world.broker.channel().await.unwrap();
    let mut arguments = FieldTable::default();
    arguments.insert(
        "x-queue-type".into(),
        AMQPValue::LongString("classic".into()),
    );
    let options = QueueDeclareOptions {
        durable: true,
        ..Default::default()
    };
    channel
        .queue_declare("messages".into(), options, arguments)
        .await
        .unwrap();
    for program in [world.sender("sender-1"), world.receiver("receiver-1")] {
        let program = program
            .env("LISTEN", "127.0.0.1:0")
            .env("OPS_LISTEN", "127.0.0.1:0");
        let (status, log) = program.output(LIMIT).await.unwrap();
        assert_eq!(status.code(), Some(2), "as for any wrong setting: {log}");
        // Not tried again and again.
        assert!(log.matches("exists on the broker").count() < 10, "{log}");
        let line = log
            .lines()
            .find(|line| line.contains("exists on the broker with other properties"));
        let line = line.unwrap_or_else(|| panic!("{log}"));
        assert!(
            line.contains("messages") && line.contains("QUEUE_TYPE"),
            "{line}"
        );
    }
    drop(connection);
}

#[tokio::test]
async fn a_classic_queue_works_too() {
    let world = World::new().await;
    let sender = world
        .sender("sender-1")
        .env("QUEUE_TYPE", "classic")
        .start()
        .await;
    let receiver = world
        .receiver("receiver-1")
        .env("QUEUE_TYPE", "classic")
        .env("WORK_FAIL_ONE_IN", 3);
    let _receiver = receiver.start().await;
    ready(&sender).await;
    crate::load::offer(&[sender.url()], 50, 8, Duration::ZERO).await;
    world.drained(LIMIT).await.assert_exactly_once(50);
}

#[tokio::test]
async fn a_consumer_that_the_broker_ends_is_repaired() {
    let world = World::new().await;
    let sender = world.sender("sender-1").start().await;
    let receiver = world.receiver("receiver-1").start().await;
    ready(&sender).await;
    ready(&receiver).await;
    world
        .broker
        .manage(
            reqwest::Method::DELETE,
            &["queues", &world.broker.vhost, "messages"],
            None,
        )
        .await
        .unwrap();
    wait_until("the receiver to notice", LIMIT, async || {
        receiver.log().contains("the broker ended the consumer")
    })
    .await;
    // Declared again by the next session. What is published before that goes with the deleted queue.
    part(&receiver, "rabbitmq", "up", LIMIT).await;
    crate::load::offer(&[sender.url()], 10, 5, Duration::ZERO).await;
    world.drained(LIMIT).await.assert_exactly_once(10);
    assert!(receiver.log().contains("the broker ended the consumer"));
}

#[tokio::test]
async fn many_nodes_that_start_together_on_a_new_broker_create_one_topology() {
    let world = World::new().await;
    let names = [
        "receiver-1",
        "receiver-2",
        "receiver-3",
        "receiver-4",
        "receiver-5",
    ];
    let nodes = futures::future::join_all(names.map(|name| world.receiver(name).start())).await;
    let sender = world.sender("sender-1").start().await;
    for node in &nodes {
        ready(node).await;
        assert!(
            !node.log().contains("INTERNAL_ERROR"),
            "{}",
            node.log_tail()
        );
    }
    ready(&sender).await;
    crate::load::offer(&[sender.url()], 20, 5, Duration::ZERO).await;
    world.drained(LIMIT).await.assert_exactly_once(20);
}
