//! Messages that are not ours: parked with the reason, once, and counted.

use std::time::Duration;

use lapin::{
    BasicProperties,
    types::{AMQPValue, FieldTable},
};
use reqwest::Method;
use serde_json::json;
use testkit::wait_until;
use uuid::Uuid;

use crate::world::{World, ready};

const LIMIT: Duration = Duration::from_mins(1);

/// What every message of ours carries.
pub(crate) fn ours() -> BasicProperties {
    let mut headers = FieldTable::default();
    headers.insert("x-lab-node".into(), AMQPValue::LongString("x".into()));
    headers.insert("x-lab-accepted-us".into(), AMQPValue::LongLongInt(1));
    BasicProperties::default()
        .with_message_id(Uuid::new_v4().to_string().into())
        .with_type("message.v1".into())
        .with_headers(headers)
}

#[tokio::test]
async fn foreign_messages_are_parked_once_with_the_reason() {
    let world = World::new().await;
    let mut receiver = world.receiver("receiver-1").start().await;
    ready(&receiver).await;
    let mut wild = FieldTable::default();
    wild.insert(
        "bytes".into(),
        AMQPValue::LongString(vec![0xff, 0, 1].into()),
    );
    let cases: [(BasicProperties, &[u8], &str); 7] = [
        (BasicProperties::default(), b"hello", "no message id"),
        (
            BasicProperties::default().with_message_id("42".into()),
            b"hello",
            "no message id",
        ),
        (
            BasicProperties::default().with_headers(wild),
            b"\0\xff\xfe",
            "no message id",
        ),
        (ours().with_type("invoice.v3".into()), b"{}", "invoice.v3"),
        (ours(), b"\xff\xff", "its body"),
        (ours(), b"{\"number\": \"one\"}", "its body"),
        (ours(), b"{\"number\": 1, \"text\": \"a\\u0000b\"}", "NUL"),
    ];
    for (properties, body, _) in &cases {
        world
            .broker
            .publish_raw("messages", "messages", properties.clone(), body)
            .await
            .unwrap();
    }
    let rows = i64::try_from(cases.len()).unwrap();
    wait_until("all to be parked", LIMIT, async || {
        world
            .count("select count(*) from receiver.dead_letter")
            .await
            == rows
    })
    .await;
    for (_, body, reason) in &cases {
        let found: Vec<(String,)> =
            sqlx::query_as("select reason from receiver.dead_letter where body = $1")
                .bind(*body)
                .fetch_all(&world.database.admin)
                .await
                .unwrap();
        assert!(
            found.iter().any(|(found,)| found.contains(reason)),
            "{reason}: {found:?}"
        );
    }
    assert!(
        (receiver
            .metric("unacked_messages_not_ours_total")
            .await
            .unwrap()
            - 7.0)
            .abs()
            < 0.5
    );
    // A restart changes nothing: the queue of dead letters is empty.
    receiver.kill().await;
    receiver.start_again().await;
    ready(&receiver).await;
    assert_eq!(
        world.broker.queue_depth("messages.dead").await.unwrap(),
        Some(0)
    );
    assert_eq!(
        world
            .count("select count(*) from receiver.dead_letter")
            .await,
        rows
    );
}

/// The client library reads headers by recursion, on a thread of its own.
#[tokio::test]
async fn headers_that_are_nested_deeply_kill_nobody() {
    let world = World::new().await;
    let mut receiver = world.receiver("receiver-1").start().await;
    ready(&receiver).await;
    let mut deep = json!("the innermost");
    for _ in 0..1_500 {
        deep = json!({ "n": deep });
    }
    let path = [
        "exchanges",
        world.broker.vhost.as_str(),
        "messages",
        "publish",
    ];
    let message = json!({
        "routing_key": "messages", "payload": "hello", "payload_encoding": "string",
        "properties": {"headers": {"deep": deep}, "delivery_mode": 2},
    });
    let published = world.broker.manage(Method::POST, &path, Some(message));
    assert_eq!(published.await.unwrap()["routed"], true);
    wait_until("it to be parked", LIMIT, async || {
        world
            .count("select count(*) from receiver.dead_letter where reason like '%message id%'")
            .await
            == 1
    })
    .await;
    assert!(receiver.ended().is_none(), "the receiver lives");
}

#[tokio::test]
async fn a_newer_sender_may_add_fields() {
    let world = World::new().await;
    let receiver = world.receiver("receiver-1").start().await;
    ready(&receiver).await;
    world
        .broker
        .publish_raw(
            "messages",
            "messages",
            ours(),
            br#"{"number": 1, "text": "hi", "mood": "good"}"#,
        )
        .await
        .unwrap();
    wait_until("it to be processed", LIMIT, async || {
        world
            .count("select count(*) from receiver.processed where text = 'hi'")
            .await
            == 1
    })
    .await;
}
