//! The testkit on real servers. Run by `cargo lab test`.

use std::time::Duration;

use lapin::{BasicProperties, options::QueueDeclareOptions, types::FieldTable};
use testkit::{Broker, Database, Server, Servers, lab_binary, wait_until, wait_until_eq};

const LIMIT: Duration = Duration::from_secs(20);

#[tokio::test]
async fn a_fresh_database_has_the_schemas_and_each_role_only_its_own() {
    let servers = Servers::shared();
    let database = Database::fresh(&servers).await;
    let sender = sqlx::PgPool::connect(&database.sender_url).await.unwrap();
    sqlx::raw_sql("create table message (message_id uuid)")
        .execute(&sender)
        .await
        .unwrap();
    let count = "select count(*) from sender.message";
    let seen: i64 = sqlx::query_scalar(count)
        .fetch_one(&database.admin)
        .await
        .unwrap();
    assert_eq!(seen, 0);
    let receiver = sqlx::PgPool::connect(&database.receiver_url).await.unwrap();
    let refused = sqlx::query_scalar::<_, i64>(count)
        .fetch_one(&receiver)
        .await
        .unwrap_err();
    assert!(
        refused.to_string().contains("permission denied"),
        "{refused}"
    );
    let auditor = sqlx::PgPool::connect(&database.auditor_url).await.unwrap();
    let seen: i64 = sqlx::query_scalar(count).fetch_one(&auditor).await.unwrap();
    assert_eq!(seen, 0);
}

#[tokio::test]
async fn a_database_and_a_vhost_are_gone_after_the_test_though_somebody_is_connected() {
    let servers = Servers::shared();
    let (database, other) = (
        Database::fresh(&servers).await,
        Database::fresh(&servers).await,
    );
    let _connected = sqlx::PgPool::connect(&database.sender_url).await.unwrap();
    let gone = "select count(*) from pg_database where datname = $1";
    let name = database.name.clone();
    drop(database);
    let count: i64 = sqlx::query_scalar(gone)
        .bind(&name)
        .fetch_one(&other.admin)
        .await
        .unwrap();
    assert_eq!(count, 0);

    let (broker, other) = (Broker::vhost(&servers).await, Broker::vhost(&servers).await);
    let vhost = broker.vhost.clone();
    let _connected = broker.channel().await.unwrap();
    drop(broker);
    let gone = other
        .manage(reqwest::Method::GET, &["vhosts", &vhost], None)
        .await
        .unwrap_err();
    assert!(gone.to_string().contains("404"), "{gone}");
}

#[tokio::test]
async fn what_is_published_waits_in_the_queue_and_what_has_no_queue_is_an_error() {
    let broker = Broker::vhost(&Servers::shared()).await;
    assert_eq!(broker.queue_depth("messages").await.unwrap(), None);
    let (_connection, channel) = broker.channel().await.unwrap();
    let durable = QueueDeclareOptions {
        durable: true,
        ..QueueDeclareOptions::default()
    };
    channel
        .queue_declare("messages".into(), durable, FieldTable::default())
        .await
        .unwrap();
    broker
        .publish_raw("", "messages", BasicProperties::default(), b"hello")
        .await
        .unwrap();
    assert_eq!(broker.queue_depth("messages").await.unwrap(), Some(1));
    let returned = broker
        .publish_raw("", "elsewhere", BasicProperties::default(), b"")
        .await;
    assert!(returned.unwrap_err().to_string().contains("returned"));
    wait_until_eq("statistics of the queue", LIMIT, Some(1), async || {
        broker
            .queue_statistics("messages")
            .await
            .ok()
            .map(|depth| depth.ready)
    })
    .await;
}

#[tokio::test]
async fn connections_are_closed_by_the_broker() {
    let broker = Broker::vhost(&Servers::shared()).await;
    let (connection, _channel) = broker.channel().await.unwrap();
    wait_until("a closed connection", LIMIT, async || {
        match broker.close_connections().await {
            Ok(0) => Err("none to close".to_owned()),
            Ok(count) => Ok(count),
            Err(error) => Err(format!("{error:#}")),
        }
    })
    .await;
    wait_until_eq("the end", LIMIT, false, async || {
        connection.status().connected()
    })
    .await;
}

#[tokio::test]
async fn own_servers_are_killed_and_paused_and_come_back() {
    let servers = Servers::start(&lab_binary()).await;
    let database = Database::fresh(&servers).await;
    let broker = Broker::vhost(&servers).await;
    let answers = async || {
        let asked = sqlx::query("select 1").execute(&database.admin);
        tokio::time::timeout(Duration::from_secs(1), asked)
            .await
            .is_ok_and(|asked| asked.is_ok())
    };
    assert!(answers().await);
    servers.pause(Server::Postgres).await;
    assert!(!answers().await);
    servers.resume(Server::Postgres).await;
    wait_until("Postgres after a pause", LIMIT, answers).await;
    servers.kill(Server::Postgres).await;
    assert!(!answers().await);
    servers.start_again(Server::Postgres).await;
    wait_until("Postgres after a kill", LIMIT, answers).await;
    servers.stop(Server::RabbitMq).await;
    broker.queue_depth("messages").await.unwrap_err();
    servers.start_again(Server::RabbitMq).await;
    assert_eq!(broker.queue_depth("messages").await.unwrap(), None);
    drop((database, broker));
    servers.end().await;
}
