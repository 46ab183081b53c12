//! What is declared on the broker is what the code says, and a clash is named, not looped over.

use std::collections::BTreeMap;
use std::time::Duration;

use lapin::{
    ExchangeKind,
    options::{ExchangeDeclareOptions, QueueDeclareOptions},
    types::{AMQPValue, FieldTable},
};
use serde_json::json;
use testkit::{Program, wait_until};

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
async fn a_rung_keeps_messages_whatever_type_the_queue_is_of() {
    for queue_type in ["quorum", "classic"] {
        let world = World::new().await;
        let receiver = world.receiver("receiver-1").env("QUEUE_TYPE", queue_type);
        let receiver = receiver.env("RETRY", "ladder").env("RETRY_LADDER_MS", 300);
        ready(&receiver.start().await).await;
        let path = ["queues", &world.broker.vhost, "messages.retry.300"];
        let rung = world.broker.manage(reqwest::Method::GET, &path, None);
        let rung = rung.await.unwrap();
        assert_eq!(rung["durable"], true);
        assert_eq!(
            rung["arguments"],
            json!({
                "x-queue-type": "quorum", "x-dead-letter-exchange": "messages",
                "x-dead-letter-routing-key": "messages", "x-dead-letter-strategy": "at-least-once",
                "x-overflow": "reject-publish", "x-message-ttl": 300,
            }),
            "{queue_type}"
        );
    }
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

/// Declares a queue of this name, as somebody else might.
async fn declare_as(world: &World, name: &str, arguments: &[(&'static str, AMQPValue)]) {
    let (connection, channel) = world.broker.channel().await.unwrap();
    let arguments = arguments.iter().cloned();
    let arguments: BTreeMap<_, _> = arguments
        .map(|(name, value)| (name.into(), value))
        .collect();
    let arguments = FieldTable::from(arguments);
    let options = QueueDeclareOptions {
        durable: true,
        ..Default::default()
    };
    let declared = channel.queue_declare(name.into(), options, arguments);
    declared.await.unwrap();
    connection.close(200, "declared".into()).await.unwrap();
}

fn text(value: &str) -> AMQPValue {
    AMQPValue::LongString(value.into())
}

async fn declare_classic(world: &World, name: &str) {
    declare_as(world, name, &[("x-queue-type", text("classic"))]).await;
}

/// Runs a node that does not fit the broker to its end; returns what it is told to do.
async fn assert_told(program: Program, queue: &str, setting: &str) -> String {
    assert_blamed(program, &format!("queue {queue:?}"), setting).await
}

async fn assert_blamed(program: Program, what: &str, setting: &str) -> String {
    let program = program
        .env("LISTEN", "127.0.0.1:0")
        .env("OPS_LISTEN", "127.0.0.1:0");
    let (status, log) = program.output(LIMIT).await.unwrap();
    assert_eq!(status.code(), Some(2), "as for any wrong setting: {log}");
    // Not tried again and again.
    assert!(log.matches("exists on the broker").count() < 10, "{log}");
    let start = format!("wrong setting {setting}: {what} exists on the broker");
    let line = log.lines().find(|line| line.starts_with(&start));
    let line = line.unwrap_or_else(|| panic!("{log}"));
    let remedy = line.split(" with other properties ").nth(1);
    assert!(remedy.is_some_and(|text| text.contains(setting)), "{line}");
    line.to_owned()
}

#[tokio::test]
async fn a_queue_of_another_type_is_named_with_the_remedy_and_the_node_ends() {
    let world = World::new().await;
    let classic = [
        ("x-queue-type", text("classic")),
        ("x-dead-letter-exchange", text("messages.dead")),
        ("x-dead-letter-routing-key", text("messages.dead")),
        ("x-overflow", text("reject-publish")),
    ];
    declare_as(&world, "messages", &classic).await;
    for program in [world.sender("sender-1"), world.receiver("receiver-1")] {
        assert_told(program, "messages", "QUEUE_TYPE").await;
    }
}

#[tokio::test]
async fn what_does_not_fit_is_blamed_on_what_decides_on_it_and_on_nothing_else() {
    // an exchange has nothing to do with the type of a queue
    for name in ["messages", "messages.dead"] {
        let world = World::new().await;
        let (connection, channel) = world.broker.channel().await.unwrap();
        let declared = channel.exchange_declare(
            name.into(),
            ExchangeKind::Fanout,
            ExchangeDeclareOptions::default(),
            FieldTable::default(),
        );
        declared.await.unwrap();
        connection.close(200, "declared".into()).await.unwrap();
        let what = format!("exchange {name:?}");
        let told = assert_blamed(world.sender("sender-1"), &what, "AMQP_URL").await;
        assert!(
            !told.contains("QUEUE_TYPE") && !told.contains("WITHOUT"),
            "{told}"
        );
        assert!(
            told.contains("queues and what waits in them stay"),
            "{told}"
        );
    }
    // a property that none of ours decides on, and a queue that is always quorum
    let world = World::new().await;
    let theirs = [
        ("x-queue-type", text("quorum")),
        ("x-max-length", AMQPValue::LongLongInt(9)),
        ("x-delivery-limit", AMQPValue::LongLongInt(1_000)),
        ("x-dead-letter-exchange", text("messages.dead")),
        ("x-dead-letter-routing-key", text("messages.dead")),
        ("x-dead-letter-strategy", text("at-least-once")),
        ("x-overflow", text("reject-publish")),
    ];
    declare_as(&world, "messages", &theirs).await;
    let told = assert_told(world.sender("sender-1"), "messages", "AMQP_URL").await;
    assert!(!told.contains("QUEUE_TYPE"), "{told}");
    let world = World::new().await;
    declare_classic(&world, "messages.dead").await;
    let told = assert_told(world.sender("sender-1"), "messages.dead", "AMQP_URL").await;
    assert!(
        !told.contains("QUEUE_TYPE") && !told.contains("WITHOUT"),
        "{told}"
    );
}

#[tokio::test]
async fn another_node_with_other_settings_is_told_of_the_setting_that_differs() {
    for (first, second, queue, blamed) in [
        (
            ("QUEUE_TYPE", "classic"),
            ("QUEUE_TYPE", "quorum"),
            "messages",
            "QUEUE_TYPE",
        ),
        (
            ("QUEUE_TYPE", "quorum"),
            ("QUEUE_TYPE", "classic"),
            "messages",
            "QUEUE_TYPE",
        ),
        (
            ("WITHOUT", "dead-lettering"),
            ("WITHOUT", ""),
            "messages",
            "WITHOUT",
        ),
        (
            ("WITHOUT", ""),
            ("WITHOUT", "dead-lettering"),
            "messages",
            "WITHOUT",
        ),
        (
            ("WITHOUT", ""),
            ("WITHOUT", "safe-dead-lettering"),
            "messages",
            "WITHOUT",
        ),
        (
            ("WITHOUT", ""),
            ("WITHOUT", "reject-publish"),
            "messages.dead",
            "WITHOUT",
        ),
    ] {
        let world = World::new().await;
        let receiver = world.receiver("receiver-1").env(first.0, first.1);
        ready(&receiver.start().await).await;
        let other = world.receiver("receiver-2").env(second.0, second.1);
        assert_told(other, queue, blamed).await;
    }
}

#[tokio::test]
async fn a_rung_of_another_type_is_named_and_other_times_are_a_way_out() {
    let world = World::new().await;
    declare_classic(&world, "messages.retry.300").await;
    let receiver = |times: &str| {
        let receiver = world.receiver("receiver-1").env("QUEUE_TYPE", "classic");
        receiver
            .env("RETRY", "ladder")
            .env("RETRY_LADDER_MS", times)
    };
    assert_told(receiver("300"), "messages.retry.300", "RETRY_LADDER_MS").await;
    ready(&receiver("301").start().await).await;
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
