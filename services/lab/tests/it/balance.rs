//! The running balance of a real ledger.

use std::time::Duration;

use lab::console::balance::{Balance, Balances, Ledger};
use sqlx::{AssertSqlSafe, Connection, PgConnection, PgPool};

use testkit::wait_until;

use crate::world::{World, ready};

const LIMIT: Duration = Duration::from_mins(1);

/// A ledger with the tables of both services, and who counts it.
async fn counted(world: &World) -> Ledger {
    let sender = world.sender("sender-1").start().await;
    let receiver = world.receiver("receiver-1").start().await;
    ready(&sender).await;
    ready(&receiver).await;
    let pool = PgPool::connect(&world.database.auditor_url).await.unwrap();
    Ledger::new(pool, std::env::temp_dir())
}

/// Messages of a run, numbered on; `n` is 1 and on in each call.
async fn accept(world: &World, run: &str, count: i64) {
    let sql = "insert into sender.message (message_id, text, node, run, idempotency_key)
        select gen_random_uuid(), 'text ' || n, 'sender-1', $1, $1 || '-' || n from generate_series(1, $2) as n order by n";
    let made = sqlx::query(sql).bind(run).bind(count);
    made.execute(&world.database.admin).await.unwrap();
}

/// Does this with the messages of a run whose text ends so.
async fn each(world: &World, run: &str, ends: &str, sql: &str) {
    let of = "from sender.message m where m.run = $1 and m.text like '% ' || $2";
    let made = AssertSqlSafe(format!("{sql} {of}"));
    let made = sqlx::query(made).bind(run).bind(ends);
    made.execute(&world.database.admin).await.unwrap();
}

const EFFECT: &str = "insert into receiver.processed (message_id, number, text, run, node, attempt, redelivered, received_at, took_ms)
    select message_id, number, text, run, 'receiver-1', 1, false, accepted_at, 1";

fn dead_letter(state: &str) -> String {
    format!(
        "insert into receiver.dead_letter (fingerprint, redrive, message_id, body, reason, attempts, headers, node, run, state)
         select message_id::text, 0, message_id, '', 'no luck', 20, '{{}}', 'receiver-1', run, '{state}'"
    )
}

/// All of it, once older rows are added.
async fn step(ledger: &mut Ledger) -> Balances {
    wait_until("all rows to be counted", LIMIT, async || {
        ledger.step().await.unwrap().ok_or("not yet")
    })
    .await
}

fn parts(balance: &Balance) -> [i64; 5] {
    [
        balance.accepted,
        balance.processed,
        balance.parked,
        balance.waiting,
        balance.lost,
    ]
}

#[tokio::test]
async fn what_was_sent_back_waits_until_its_effect_and_what_was_discarded_stays_parked() {
    let world = World::new().await;
    let mut ledger = counted(&world).await;
    accept(&world, "r1", 5).await;
    each(&world, "r1", "1", EFFECT).await;
    for (ends, state) in [("2", "parked"), ("3", "discarded"), ("4", "redriven")] {
        each(&world, "r1", ends, &dead_letter(state)).await;
    }
    let now = step(&mut ledger).await;
    assert_eq!(parts(&now.runs["r1"]), [5, 1, 2, 2, 0]);
    assert_eq!(parts(&now.all), [5, 1, 2, 2, 0]);
    assert_eq!(now.undecided, Some(1));
    each(&world, "r1", "4", EFFECT).await;
    let now = step(&mut ledger).await;
    assert_eq!(parts(&now.runs["r1"]), [5, 2, 2, 1, 0]);
}

#[tokio::test]
async fn before_any_receiver_was_started_everything_waits() {
    let world = World::new().await;
    let sender = world.sender("sender-1").start().await;
    ready(&sender).await;
    let pool = PgPool::connect(&world.database.auditor_url).await.unwrap();
    let mut ledger = Ledger::new(pool, std::env::temp_dir());
    accept(&world, "r1", 3).await;
    let now = step(&mut ledger).await;
    assert_eq!(parts(&now.all), [3, 0, 0, 3, 0]);
    assert_eq!(now.undecided, None);
}

/// Rows that are old, so that they are counted for good once no transaction can add to them.
const OLD: &str = "insert into sender.message (message_id, text, node, run, idempotency_key, accepted_at)
    select gen_random_uuid(), 'old', 'sender-1', 'old', 'old-' || n, clock_timestamp() - interval '1 h'
      from generate_series(1, 150000) as n order by n";

#[tokio::test]
async fn a_row_that_commits_late_is_counted_however_long_its_transaction_takes() {
    let world = World::new().await;
    let mut ledger = counted(&world).await;
    let mut late = PgConnection::connect(&world.database.sender_url)
        .await
        .unwrap();
    let mut late = late.begin().await.unwrap();
    sqlx::query(
        "insert into sender.message (message_id, text, node, run, idempotency_key)
         values (gen_random_uuid(), 'late', 'sender-1', 'late', 'late')",
    )
    .execute(&mut *late)
    .await
    .unwrap();
    // a hundred thousand numbers higher, and an hour older
    sqlx::raw_sql(OLD)
        .execute(&world.database.admin)
        .await
        .unwrap();
    for _ in 0..5 {
        let told = ledger.step().await.unwrap();
        assert!(told.is_none(), "nothing is sure while it is open: {told:?}");
    }
    late.commit().await.unwrap();
    let now = step(&mut ledger).await;
    assert_eq!(now.runs["late"].accepted, 1);
    assert_eq!(
        (now.runs["old"].accepted, now.all.accepted),
        (150_000, 150_001)
    );
    assert_eq!(now.newest, ["old", "late"]);
}
