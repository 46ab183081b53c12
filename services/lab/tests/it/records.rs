//! What a passport says of rows as they may lie in the ledger, and that what it reads has a limit.

use std::time::{Duration, Instant};

use lab::passport::cause::{Sure, What};
use lab::passport::{passport, records};
use messaging::send::outbox::{Outcome, Published, mark};
use sqlx::{AssertSqlSafe, PgPool};
use testkit::{Direction, Proxy};
use uuid::Uuid;

use crate::world::{World, address, ready};

/// The tables of both services, and who reads them.
async fn tables() -> (World, PgPool) {
    let world = World::new().await;
    let sender = world.sender("sender-1").start().await;
    let receiver = world.receiver("receiver-1").start().await;
    ready(&sender).await;
    ready(&receiver).await;
    let auditor = PgPool::connect(&world.database.auditor_url).await.unwrap();
    (world, auditor)
}

async fn run(world: &World, sql: &str, id: Uuid) {
    let made = sqlx::query(AssertSqlSafe(sql.to_owned())).bind(id);
    made.execute(&world.database.admin).await.unwrap();
}

const SESSION: Uuid = Uuid::from_u128(7);

/// A delivery an hour ago and so many seconds, of the session or of another one.
fn delivery(node: &str, seconds: i64, attempt: i64, rest: &str) -> String {
    let session = if node == "receiver-1" {
        SESSION
    } else {
        Uuid::from_u128(8)
    };
    format!(
        "insert into receiver.delivery (delivery_id, message_id, node, attempt, redelivered, started_at, boot, session, outcome, answer)
         select (lpad(to_hex((extract(epoch from at) * 1000)::bigint), 12, '0') || '70008' || lpad('{attempt}', 15, '0'))::uuid,
                $1, '{node}', {attempt}, {attempt} > 1, at, '{session}', '{session}', {rest}
           from (select clock_timestamp() - interval '1 h' + interval '{seconds} s' as at) as moment"
    )
}

/// Why the message came back after its first delivery.
async fn why(auditor: &PgPool, id: Uuid) -> (What, Sure) {
    let passport = passport(auditor, id).await.unwrap().unwrap();
    let cause = passport.steps.iter().find_map(|step| step.then.clone());
    let cause = cause.unwrap();
    (cause.what, cause.sure)
}

#[tokio::test]
async fn a_node_that_took_further_messages_is_not_called_dead() {
    let (world, auditor) = tables().await;
    let (id, other) = (Uuid::new_v4(), Uuid::new_v4());
    session(&world).await;
    run(&world, &delivery("receiver-1", 0, 1, "null, null"), id).await;
    run(
        &world,
        &delivery("receiver-2", 10, 2, "'failed', 'nack'"),
        id,
    )
    .await;
    // taken before the message came again: that says nothing
    run(
        &world,
        &delivery("receiver-1", 1, 1, "'processed', 'ack'"),
        other,
    )
    .await;
    assert_eq!(why(&auditor, id).await, (What::NodeDied, Sure::Inferred));
    run(
        &world,
        &delivery("receiver-1", 60, 1, "'processed', 'ack'"),
        other,
    )
    .await;
    assert_eq!(why(&auditor, id).await, (What::Unknown, Sure::Unknown));
    // its failure is on record, though the end of the delivery is not
    let failure = "insert into receiver.failure (failure_id, message_id, node, attempt, reason, failed_at)
        select gen_random_uuid(), $1, 'receiver-1', 1, 'no luck', clock_timestamp() - interval '1 h' + interval '5 s'";
    run(&world, failure, id).await;
    assert_eq!(why(&auditor, id).await, (What::Nack, Sure::Inferred));
}

/// Open since two hours ago, with no end on record.
async fn session(world: &World) {
    let session = format!(
        "insert into receiver.session (session, boot, node, began_at)
         select '{SESSION}', '{SESSION}', 'receiver-1', clock_timestamp() - interval '2 h' where $1::uuid is not null"
    );
    run(world, &session, Uuid::nil()).await;
}

#[tokio::test]
async fn nor_where_only_an_effect_tells_of_the_next_delivery() {
    let (world, auditor) = tables().await;
    let (id, other) = (Uuid::new_v4(), Uuid::new_v4());
    session(&world).await;
    run(&world, &delivery("receiver-1", 0, 1, "null, null"), id).await;
    let effect = "insert into receiver.processed (message_id, number, text, node, attempt, redelivered, received_at, took_ms, processed_at)
        select $1, 1, 'x', 'receiver-2', 2, true, at, 5, at
          from (select clock_timestamp() - interval '1 h' + interval '10 s' as at) as moment";
    run(&world, effect, id).await;
    assert_eq!(why(&auditor, id).await, (What::NodeDied, Sure::Inferred));
    let later = delivery("receiver-1", 60, 1, "'processed', 'ack'");
    run(&world, &later, other).await;
    assert_eq!(why(&auditor, id).await, (What::Unknown, Sure::Unknown));
}

#[tokio::test]
async fn nor_where_too_many_deliveries_came_to_no_end_to_ask_about_each() {
    let (world, auditor) = tables().await;
    let (id, other) = (Uuid::new_v4(), Uuid::new_v4());
    session(&world).await;
    for attempt in 1..=30 {
        let open = delivery("receiver-1", attempt, attempt, "null, null");
        run(&world, &open, id).await;
    }
    let later = delivery("receiver-1", 60, 1, "'processed', 'ack'");
    run(&world, &later, other).await;
    let told = passport(&auditor, id).await.unwrap().unwrap();
    let causes = told.steps.iter().filter_map(|step| step.then.as_ref());
    let causes: Vec<_> = causes.map(|cause| (cause.what, cause.sure)).collect();
    assert_eq!(causes, [(What::Unknown, Sure::Unknown); 29]);
}

/// Published so long ago, and confirmed.
fn published(message_id: Uuid, ago: Duration) -> Published {
    Published {
        message_id,
        redrive: 0,
        outcome: Outcome::Confirmed,
        tries: 1,
        at: Instant::now().checked_sub(ago).unwrap(),
        confirm_ms: 5,
    }
}

/// One node's link to Postgres is silent for half a minute; then it marks all that the broker has said meanwhile.
#[tokio::test]
async fn a_try_is_found_before_others_that_were_written_after_it_and_published_long_before() {
    let (world, auditor) = tables().await;
    let id = Uuid::new_v4();
    let message =
        "insert into sender.message (message_id, text, node, idempotency_key, accepted_at)
        select $1, 'x', 'sender-2', 'k', clock_timestamp()";
    run(&world, message, id).await;
    let sent_back = "insert into receiver.dead_letter (fingerprint, redrive, message_id, body, reason, attempts, headers, node, state, decided_at)
        select $1::text, 0, $1, '', 'poison', 20, '{}', 'receiver-1', 'redriven', clock_timestamp()";
    run(&world, sent_back, id).await;
    for (url, node) in [
        (&world.database.sender_url, "sender"),
        (&world.database.receiver_url, "receiver"),
    ] {
        let pool = PgPool::connect(url).await.unwrap();
        let held_back: Vec<Published> = (0..500)
            .map(|_| published(Uuid::new_v4(), Duration::from_secs(30)))
            .collect();
        let quick = [published(id, Duration::ZERO)];
        mark(&pool, &format!("{node}-2"), &quick).await.unwrap();
        mark(&pool, &format!("{node}-1"), &held_back).await.unwrap();
    }
    let all = records::read(&auditor, id).await.unwrap();
    let nodes = all.publications.iter().map(|row| row.node.as_str());
    let nodes: Vec<&str> = nodes.collect();
    assert_eq!(
        (nodes, all.tries_upto),
        (vec!["sender-2", "receiver-2"], None)
    );
    let late = "select count(*) from sender.publication where late_ms between 30000 and 60000";
    assert_eq!(world.count(late).await, 500);
}

/// Its node could not say so for most of an hour, while others published it once more and went on.
#[tokio::test]
async fn a_try_that_was_written_long_after_it_is_found_though_others_made_many() {
    let (world, auditor) = tables().await;
    let id = Uuid::new_v4();
    let tries =
        "insert into sender.publication (message_id, node, try, outcome, published_at, confirm_ms, late_ms)
        select case when n in (1, 50000) then $1 else gen_random_uuid() end,
               case n when 50000 then 'sender-1' else 'sender-2' end, 1, 'confirmed',
               case n when 50000 then began else began + interval '20 s' + n * interval '50 ms' end, 1,
               case n when 50000 then 50 * 60000 else 5 end
          from (select clock_timestamp() - interval '1 h' as began) as moment, generate_series(1, 50000) as n order by n";
    run(&world, tries, id).await;
    for budget in [Duration::from_secs(5), Duration::ZERO] {
        let all = records::read_for(&auditor, id, budget).await.unwrap();
        let nodes = all.publications.iter().map(|row| row.node.as_str());
        assert_eq!(nodes.collect::<Vec<_>>(), ["sender-1", "sender-2"]);
        assert_eq!(all.tries_upto, None);
    }
}

#[tokio::test]
async fn tries_are_looked_for_in_bounded_time_and_it_is_said_how_far() {
    let (world, auditor) = tables().await;
    let id = Uuid::new_v4();
    let tries =
        "insert into sender.publication (message_id, node, try, outcome, published_at, confirm_ms)
        select case when n = 45000 then $1 else gen_random_uuid() end, 'sender-1', 1, 'confirmed',
               clock_timestamp() - interval '1 h' + n * interval '10 ms', 1
          from generate_series(1, 60000) as n order by n";
    run(&world, tries, id).await;
    let all = records::read(&auditor, id).await.unwrap();
    assert_eq!((all.publications.len(), all.tries_upto), (1, None));
    let some = records::read_for(&auditor, id, Duration::ZERO)
        .await
        .unwrap();
    assert!(some.publications.is_empty() && some.tries_upto.is_some());
    // what was before the message is skipped
    let message =
        "insert into sender.message (message_id, text, node, idempotency_key, accepted_at)
        select $1, 'x', 'sender-1', 'k', clock_timestamp() - interval '1 h' + interval '449 s'";
    run(&world, message, id).await;
    let some = records::read_for(&auditor, id, Duration::ZERO)
        .await
        .unwrap();
    assert_eq!(some.publications.len(), 1);
}

#[tokio::test]
async fn a_silent_link_ends_a_passport_with_an_error() {
    let (world, _) = tables().await;
    let proxy = Proxy::to(address(&world.database.auditor_url)).await;
    let auditor = PgPool::connect(&proxy.url(&world.database.auditor_url))
        .await
        .unwrap();
    passport(&auditor, Uuid::new_v4()).await.unwrap();
    proxy.freeze(Direction::Down);
    let began = Instant::now();
    passport(&auditor, Uuid::new_v4()).await.unwrap_err();
    assert!(
        began.elapsed() < Duration::from_secs(20),
        "{:?}",
        began.elapsed()
    );
}
