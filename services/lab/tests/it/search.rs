//! The search against a filter that reads everything, and its index against transactions that commit late.

use std::time::Duration;

use lab::passport::story::State;
use lab::search::engine;
use lab::search::index::{Indexer, prepare};
use lab::search::page::{Found, ROWS};
use lab::search::query::{Asked, Cursor, Query};
use sqlx::{Connection, PgConnection, PgPool};

use crate::world::{World, ready};

/// A database with the tables of both services, and a pool of the role `lab`.
async fn searched(world: &World) -> PgPool {
    let sender = world.sender("sender-1").start().await;
    let receiver = world.receiver("receiver-1").start().await;
    ready(&sender).await;
    ready(&receiver).await;
    drop((sender, receiver));
    let lab = PgPool::connect(&world.database.lab_url).await.unwrap();
    prepare(&lab).await.unwrap();
    lab
}

async fn fill(world: &World, sql: &'static str) {
    sqlx::raw_sql(sql)
        .execute(&world.database.admin)
        .await
        .unwrap();
}

/// Messages of every state, numbered from 1.
const MIXED: &str = "
  insert into sender.message (message_id, text, node, run, idempotency_key, accepted_at)
  select (lpad(to_hex((extract(epoch from timestamptz '2026-11-01' + n * interval '1 s') * 1000)::bigint), 12, '0')
            || '7000' || '8' || lpad(to_hex(n), 15, '0'))::uuid,
         case when n % 7 = 0 then 'Needle 50%_' || n else 'hay ' || n end,
         'sender-' || n % 3, case when n % 5 = 0 then 'r' || n % 2 end, 'k' || n, timestamptz '2026-11-01' + n * interval '1 s'
    from generate_series(1, 600) as n order by n;
  insert into receiver.processed (message_id, number, text, node, attempt, redelivered, received_at, took_ms)
  select message_id, number, text, 'receiver-' || number % 2, 1 + number % 4, number % 4 > 0, accepted_at, 5
    from sender.message where number % 3 = 0;
  insert into receiver.dead_letter (fingerprint, redrive, message_id, body, reason, attempts, headers, node)
  select message_id::text, 0, message_id, '', 'poison', 20, '{}', 'receiver-1' from sender.message where number % 31 = 1;
  insert into receiver.failure (failure_id, message_id, node, attempt, reason)
  select gen_random_uuid(), message_id, 'receiver-1', 1, 'no luck' from sender.message where number % 11 = 2;
  insert into sender.outbox (message_id, kind, body, node, accepted_at)
  select message_id, 'message', '', node, accepted_at from sender.message where number > 580";

fn asked(change: impl FnOnce(&mut Asked)) -> Query {
    let mut asked = Asked::default();
    change(&mut asked);
    asked.parse().unwrap().0
}

/// All pages, one after the other.
async fn all(lab: &PgPool, query: &Query) -> Vec<Found> {
    let (mut found, mut cursor) = (Vec::new(), Cursor::FIRST);
    loop {
        let page = engine::find(lab, query, cursor).await.unwrap();
        assert!(page.messages.len() <= ROWS);
        found.extend(page.messages);
        let Some(older) = page.older else {
            return found;
        };
        let page = older;
        let next = Asked {
            page,
            ..Asked::default()
        };
        cursor = next.parse().unwrap().1;
    }
}

fn fits(row: &Found, query: &Query) -> bool {
    let text = |part: &String| row.text.to_lowercase().contains(&part.to_lowercase());
    query.text.as_ref().is_none_or(text)
        && query
            .run
            .as_ref()
            .is_none_or(|run| row.run.as_ref() == Some(run))
        && query.state.is_none_or(|state| row.state == state)
        && query.attempts.is_none_or(|least| row.attempts >= least)
        && query.from.is_none_or(|from| row.accepted_at >= from)
        && query.to.is_none_or(|to| row.accepted_at < to)
        && query
            .ids
            .is_none_or(|(low, high)| (low..=high).contains(&row.message_id))
        && query
            .node
            .as_ref()
            .is_none_or(|node| row.node == *node || row.processed_by.as_ref() == Some(node))
}

#[tokio::test]
async fn a_search_finds_what_a_filter_over_everything_finds_with_and_without_the_index() {
    let world = World::new().await;
    let lab = searched(&world).await;
    fill(&world, MIXED).await;
    let everything = all(&lab, &Query::default()).await;
    assert_eq!(everything.len(), 600);
    assert!(everything.is_sorted_by(|a, b| a.number > b.number));
    for state in State::ALL {
        assert!(everything.iter().any(|row| row.state == state), "{state:?}");
    }
    let id = everything[100].message_id.simple().to_string();
    let texts = ["", "needle", "50%_", "%", "needle 50%_49", "y 1", "nowhere"];
    let mut queries: Vec<Query> = Vec::new();
    for text in texts {
        for run in ["", "r0", "r1", "none"] {
            for state in [
                "",
                "processed",
                "parked",
                "waiting",
                "failed-and-back",
                "under-way",
            ] {
                queries.push(asked(|asked| {
                    asked.text = text.to_owned();
                    asked.run = run.to_owned();
                    asked.state = state.to_owned();
                }));
            }
        }
    }
    queries.push(asked(|asked| asked.id.clone_from(&id)));
    queries.push(asked(|asked| asked.id = id[..10].to_owned()));
    queries.push(asked(|asked| asked.node = "receiver-1".to_owned()));
    queries.push(asked(|asked| asked.node = "sender-2".to_owned()));
    queries.push(asked(|asked| asked.attempts = "3".to_owned()));
    queries.push(asked(|asked| {
        asked.from = "2026-11-01T00:01".to_owned();
        asked.to = "2026-11-01T00:03".to_owned();
    }));
    for indexed in [false, true] {
        if indexed {
            Indexer::new(lab.clone()).step().await.unwrap();
        }
        for query in &queries {
            let expected: Vec<&Found> = everything.iter().filter(|row| fits(row, query)).collect();
            let found = all(&lab, query).await;
            assert_eq!(
                found.iter().collect::<Vec<_>>(),
                expected,
                "{indexed} {query:?}"
            );
        }
    }
}

#[tokio::test]
async fn pages_stay_where_they_are_while_messages_come_in_and_lead_back() {
    let world = World::new().await;
    let lab = searched(&world).await;
    fill(&world, MIXED).await;
    let query = Query::default();
    let first = engine::find(&lab, &query, Cursor::FIRST).await.unwrap();
    fill(
        &world,
        "insert into sender.message (message_id, text, node, idempotency_key)
         select gen_random_uuid(), 'new', 'sender-1', 'new' || n from generate_series(1, 60) as n",
    )
    .await;
    let last = first.messages.last().unwrap().number;
    let second = engine::find(&lab, &query, Cursor::Older(last))
        .await
        .unwrap();
    assert_eq!(second.messages[0].number, last - 1);
    let top = second.messages[0].number;
    let back = engine::find(&lab, &query, Cursor::Newer(top))
        .await
        .unwrap();
    assert_eq!(back.messages, first.messages);
    assert!(back.newer.is_some(), "what came in is newer");
}

#[tokio::test]
async fn the_index_never_misses_a_message_whose_transaction_commits_late() {
    let world = World::new().await;
    let lab = searched(&world).await;
    let indexer = Indexer::new(lab.clone()).with_grace(Duration::ZERO);
    let insert = |text: &str| {
        sqlx::AssertSqlSafe(format!(
            "insert into sender.message (message_id, text, node, idempotency_key)
             values (gen_random_uuid(), '{text}', 'sender-1', '{text}')"
        ))
    };
    let mut late = PgConnection::connect(&world.database.sender_url)
        .await
        .unwrap();
    let mut never = PgConnection::connect(&world.database.sender_url)
        .await
        .unwrap();
    let mut late = late.begin().await.unwrap();
    let mut never = never.begin().await.unwrap();
    sqlx::query(insert("late"))
        .execute(&mut *late)
        .await
        .unwrap();
    sqlx::query(insert("never"))
        .execute(&mut *never)
        .await
        .unwrap();
    sqlx::query(insert("quick"))
        .execute(&world.database.admin)
        .await
        .unwrap();
    // However often it looks: as long as they may commit, the gap is kept.
    for _ in 0..5 {
        let turn = indexer.step().await.unwrap();
        assert_eq!((turn.late, turn.gaps), (0, 1), "{turn:?}");
    }
    assert_eq!(
        world.count("select count(*) from lab.message_text").await,
        1
    );
    late.commit().await.unwrap();
    assert_eq!(indexer.step().await.unwrap().late, 1);
    never.rollback().await.unwrap();
    testkit::wait_until("the gap to be over", Duration::from_secs(30), async || {
        let turn = indexer.step().await.unwrap();
        if turn.gaps == 0 { Ok(()) } else { Err(turn) }
    })
    .await;
    let found = all(&lab, &asked(|asked| asked.text = "late".to_owned())).await;
    assert_eq!(found.len(), 1);
    assert_eq!(
        world.count("select count(*) from lab.message_text").await,
        2
    );
}

#[tokio::test]
async fn what_a_pruning_took_hides_no_older_message_of_its_run() {
    let world = World::new().await;
    let lab = searched(&world).await;
    fill(
        &world,
        "insert into sender.message (message_id, text, node, run, idempotency_key)
         select gen_random_uuid(), 'text', 'sender-1', case when n <= 3000 then 'r1' end, 'k' || n
           from generate_series(1, 6000) as n order by n",
    )
    .await;
    let indexer = Indexer::new(lab.clone());
    testkit::wait_until("all to be copied", Duration::from_secs(30), async || {
        let turn = indexer.step().await.unwrap();
        if turn.read == 0 { Ok(()) } else { Err(turn) }
    })
    .await;
    // the index still has them
    fill(
        &world,
        "delete from sender.message where number between 101 and 3000",
    )
    .await;
    let found = all(&lab, &asked(|asked| asked.run = "r1".to_owned())).await;
    assert_eq!(found.len(), 100);
}

#[tokio::test]
async fn a_ledger_from_before_redrives_is_searched_with_what_receivers_did() {
    let world = World::new().await;
    let lab = searched(&world).await;
    fill(
        &world,
        "drop table receiver.redrive_item; drop table receiver.redrive",
    )
    .await;
    fill(&world, MIXED).await;
    let processed = asked(|asked| asked.state = "processed".to_owned());
    assert_eq!(all(&lab, &processed).await.len(), 200);
}

#[tokio::test]
async fn before_any_receiver_was_started_the_search_finds_what_the_sender_has() {
    let world = World::new().await;
    let sender = world.sender("sender-1").start().await;
    ready(&sender).await;
    let lab = PgPool::connect(&world.database.lab_url).await.unwrap();
    // one is just making its tables
    fill(&world, "create table receiver.redrive ()").await;
    fill(
        &world,
        "insert into sender.message (message_id, text, node, idempotency_key)
         select gen_random_uuid(), 'text ' || n, 'sender-1', 'k' || n from generate_series(1, 3) as n order by n",
    )
    .await;
    let found = all(&lab, &asked(|asked| asked.text = "text".to_owned())).await;
    assert_eq!(found.len(), 3);
    assert!(
        found.iter().all(|row| row.state == State::UnderWay),
        "{found:?}"
    );
    let waiting = asked(|asked| asked.state = "waiting".to_owned());
    assert!(all(&lab, &waiting).await.is_empty());
}
