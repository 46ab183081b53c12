//! Messages that are not ours: parked with the reason, once, and counted.

use std::time::Duration;

use lapin::{
    BasicProperties,
    types::{AMQPValue, FieldTable},
};
use testkit::wait_until;
use uuid::Uuid;

use crate::world::{World, ready};

const LIMIT: Duration = Duration::from_mins(1);

fn ours() -> BasicProperties {
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
