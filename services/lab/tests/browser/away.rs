//! What the sender's page says when a part is away, on a node of the test's own.

use std::time::Duration;

use reqwest::{Client, StatusCode, header};
use testkit::{Broker, Database, Process, Program, Servers, wait_until};

use crate::stack::{lab, unique};

const LIMIT: Duration = Duration::from_secs(20);
/// Nobody listens there.
const NOWHERE: &str = "127.0.0.1:1";

async fn sender(change: &[(&str, String)]) -> (Process, Database, Broker) {
    let servers = Servers::shared();
    let database = Database::fresh(&servers).await;
    let broker = Broker::vhost(&servers).await;
    let mut program = Program::new("sender-away", lab())
        .arg("sender")
        .env("DATABASE_URL", &database.sender_url)
        .env("AMQP_URL", &broker.amqp_url)
        .env("REDIS_URL", &servers.at.redis.url)
        .env("REDIS_PREFIX", testkit::redis_prefix());
    for (name, value) in change {
        program = program.env(name, value);
    }
    (program.start().await, database, broker)
}

async fn page_with(sender: &Process, says: &str) -> (StatusCode, String) {
    wait_until(&format!("a page with \"{says}\""), LIMIT, async || {
        let answer = Client::new().get(sender.url()).send().await.unwrap();
        let (status, page) = (answer.status(), answer.text().await.unwrap());
        if page.contains(says) {
            Ok((status, page))
        } else {
            Err(page)
        }
    })
    .await
}

#[tokio::test]
async fn without_rabbitmq_messages_are_accepted_and_wait() {
    let (sender, _database, _broker) =
        sender(&[("AMQP_URL", format!("amqp://a:b@{NOWHERE}/%2f"))]).await;
    page_with(&sender, "RabbitMQ is away since").await;
    page_with(&sender, "No message yet").await;
    let text = unique("waits");
    let answer = Client::builder()
        .cookie_store(true)
        .build()
        .unwrap()
        .post(sender.url())
        .form(&[("message", &text)])
        .send()
        .await
        .unwrap();
    assert_eq!(answer.status(), StatusCode::OK);
    let page = answer.text().await.unwrap();
    assert!(page.contains("Accepted as #1"), "{page}");
    let (status, page) = page_with(&sender, "1 message waits in the outbox").await;
    assert_eq!(status, StatusCode::OK);
    assert!(page.contains(">waiting<") && page.contains(&text), "{page}");
}

#[tokio::test]
async fn without_redis_pages_work_without_a_session() {
    let (sender, _database, _broker) =
        sender(&[("REDIS_URL", format!("redis://:x@{NOWHERE}/0"))]).await;
    let (status, page) = page_with(&sender, "Redis is away since").await;
    assert_eq!(status, StatusCode::OK);
    assert!(
        page.contains("not available") && page.contains("disabled"),
        "{page}"
    );
    // The first page without tables is a 503; this waits for them.
    page_with(&sender, "No message yet").await;
    let answer = Client::new()
        .post(sender.url())
        .form(&[("message", "hi")])
        .send()
        .await
        .unwrap();
    assert_eq!(answer.url().query(), Some("accepted=1"));
    assert!(answer.headers().get(header::SET_COOKIE).is_none());
    let page = answer.text().await.unwrap();
    assert!(
        page.contains("Accepted as #1") && page.contains("sender-away"),
        "{page}"
    );
    let reset = Client::new().post(format!("{}/reset-session", sender.url()));
    let reset = reset.form(&[("csrf", "x")]).send().await.unwrap();
    assert_eq!(reset.status(), StatusCode::SERVICE_UNAVAILABLE);
}

#[tokio::test]
async fn without_postgres_the_page_keeps_what_was_typed() {
    let url = format!("postgres://sender:x@{NOWHERE}/unacked");
    let (sender, _database, _broker) = sender(&[("DATABASE_URL", url)]).await;
    let (status, page) = page_with(&sender, "PostgreSQL is away since").await;
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
    assert!(page.contains("cannot be shown"), "{page}");
    let text = unique("typed");
    let answer = Client::new()
        .post(sender.url())
        .form(&[("message", &text)])
        .send()
        .await
        .unwrap();
    assert_eq!(answer.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert!(answer.headers().contains_key(header::RETRY_AFTER));
    let page = answer.text().await.unwrap();
    assert!(
        page.contains(&text) && page.contains("was not accepted"),
        "{page}"
    );
    let api = Client::new().post(format!("{}/api/messages", sender.url()));
    let answer = api
        .json(&serde_json::json!({"message": "hi"}))
        .send()
        .await
        .unwrap();
    assert_eq!(answer.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert!(answer.headers().contains_key(header::RETRY_AFTER));
    let problem: serde_json::Value = answer.json().await.unwrap();
    assert_eq!(problem["type"], "urn:unacked:problem:database_away");
}
