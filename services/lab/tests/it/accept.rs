//! Accepting: keys, limits, and what clients are told.

use std::time::Duration;

use futures::future::join_all;
use testkit::wait_until;
use uuid::Uuid;

use crate::{
    load::{offer, post},
    world::{World, part, ready},
};

const LIMIT: Duration = Duration::from_mins(1);

#[tokio::test]
async fn a_request_repeated_at_once_at_two_nodes_is_one_message() {
    let world = World::new().await;
    let senders = [
        world.sender("sender-1").start().await,
        world.sender("sender-2").start().await,
    ];
    let _receiver = world.receiver("receiver-1").start().await;
    for sender in &senders {
        ready(sender).await;
    }
    let urls: Vec<String> = senders.iter().map(testkit::Process::url).collect();
    let key = Uuid::new_v4().to_string();
    let answers = join_all((0..20).map(|n| post(&urls[n % 2], &key, "once"))).await;
    let mut ids: Vec<String> = answers
        .into_iter()
        .map(|answer| {
            let answer = answer.unwrap();
            assert_eq!(answer.status, 202, "{answer:?}");
            answer.body["message_id"].as_str().unwrap().to_owned()
        })
        .collect();
    ids.dedup();
    assert_eq!(ids.len(), 1, "{ids:?}");
    world.drained(LIMIT).await.assert_exactly_once(1);
}

#[tokio::test]
async fn a_key_that_was_used_for_another_text_is_refused() {
    let world = World::new().await;
    let sender = world.sender("sender-1").start().await;
    ready(&sender).await;
    assert_eq!(post(&sender.url(), "k", "one").await.unwrap().status, 202);
    let other = post(&sender.url(), "k", "two").await.unwrap();
    assert_eq!(other.status, 422, "{other:?}");
    assert_eq!(world.count("select count(*) from sender.message").await, 1);
}

#[tokio::test]
async fn no_more_than_the_limit_wait_and_then_it_is_said() {
    let world = World::new().await;
    // Messages wait: there is no broker at that address.
    let sender = world
        .sender("sender-1")
        .env("OUTBOX_MAX", 10)
        .env("AMQP_URL", "amqp://a:b@127.0.0.1:1/%2f");
    let mut sender = sender.start().await;
    ready(&sender).await;
    let answers = join_all((0..30).map(|n| {
        let url = sender.url();
        async move {
            post(&url, &format!("k{n}"), "x")
                .await
                .unwrap()
                .status
                .as_u16()
        }
    }))
    .await;
    let accepted = answers.iter().filter(|status| **status == 202).count();
    assert_eq!(accepted, 10, "{answers:?}");
    assert!(
        answers.iter().all(|status| [202, 503].contains(status)),
        "{answers:?}"
    );
    // A repetition of what was accepted is still answered.
    let kept: Vec<(String,)> = sqlx::query_as("select idempotency_key from sender.message")
        .fetch_all(&world.database.admin)
        .await
        .unwrap();
    assert_eq!(
        post(&sender.url(), &kept[0].0, "x").await.unwrap().status,
        202
    );
    // With a broker they go out, and there is room again.
    sender.kill().await;
    sender.set_env("AMQP_URL", &world.broker.amqp_url);
    let _receiver = world.receiver("receiver-1").start().await;
    sender.start_again().await;
    world.drained(LIMIT).await.assert_exactly_once(10);
    offer(&[sender.url()], 5, 5, Duration::ZERO).await;
    world.drained(LIMIT).await.assert_exactly_once(15);
}

#[tokio::test]
async fn a_commit_of_unknown_outcome_is_answered_as_unknown() {
    let world = World::new().await;
    let sender = world
        .sender("sender-1")
        .env("FAIL_POINTS", "submit.after_commit=error@1")
        .start()
        .await;
    let _receiver = world.receiver("receiver-1").start().await;
    ready(&sender).await;
    let unknown = post(&sender.url(), "k", "hello").await.unwrap();
    assert_eq!(unknown.status, 503, "{unknown:?}");
    assert!(
        unknown.body.to_string().contains("Idempotency-Key"),
        "{unknown:?}"
    );
    let again = post(&sender.url(), "k", "hello").await.unwrap();
    assert_eq!(again.status, 202);
    world.drained(LIMIT).await.assert_exactly_once(1);
}

#[tokio::test]
async fn wrong_settings_are_named_in_one_line_with_exit_code_2() {
    let world = World::new().await;
    let cases = [
        ("PREFETCH", "0"),
        ("WORK_DELAY_MAX_MS", "soon"),
        ("QUEUE_TYPE", "mirrored"),
        ("DATABASE_URL", "mysql://x:secret@h/d"),
        ("AMQP_URL", "localhost:secret"),
        ("REDIS_URL", "ftp://x:secret@h"),
        ("FAIL_POINTS", "nowhere=crash"),
        ("NODE_NAME", "a b"),
        ("LISTEN", "everywhere"),
        ("REDRIVE_TOKEN", "secret12345"),
    ];
    for (name, value) in cases {
        let program = world
            .receiver("receiver-1")
            .env("LISTEN", "127.0.0.1:0")
            .env("OPS_LISTEN", "127.0.0.1:0");
        let (status, said) = program.env(name, value).output(LIMIT).await.unwrap();
        assert_eq!(status.code(), Some(2), "{name}: {said}");
        let start = format!("wrong setting {name}");
        assert!(said.starts_with(&start), "{name}: {said}");
        assert!(said.trim().lines().count() == 1, "{name}: {said}");
        assert!(!said.contains("secret"), "{name}: {said}");
        let flag = format!("--{}", name.to_lowercase().replace('_', "-"));
        let program = world.receiver("receiver-1").arg(format!("{flag}={value}"));
        let (status, said) = program.output(LIMIT).await.unwrap();
        assert_eq!(status.code(), Some(2), "{flag}: {said}");
        let start = format!("wrong setting {flag}");
        assert!(said.starts_with(&start), "{flag}: {said}");
        assert!(!said.contains("secret"), "{flag}: {said}");
    }
}

#[tokio::test]
async fn four_nodes_that_start_together_migrate_once() {
    let world = World::new().await;
    let names = ["sender-1", "sender-2", "sender-3", "sender-4"];
    let nodes = join_all(names.map(|name| world.sender(name).start())).await;
    for node in &nodes {
        ready(node).await;
        part(node, "postgres", "up", LIMIT).await;
    }
    wait_until("the schema to be there", LIMIT, async || {
        world.count("select count(*) from sender.message").await == 0
    })
    .await;
}
