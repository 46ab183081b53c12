//! The running balance of a real ledger.

use lab::console::balance::{Balance, Balances, Ledger};
use sqlx::{AssertSqlSafe, PgPool};

use crate::world::{World, ready};

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
        "insert into receiver.dead_letter (fingerprint, message_id, body, reason, attempts, headers, node, run, state)
         select message_id::text, message_id, '', 'no luck', 20, '{{}}', 'receiver-1', run, '{state}'"
    )
}

async fn step(ledger: &mut Ledger) -> Balances {
    ledger.step().await.unwrap()
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
    each(&world, "r1", "4", EFFECT).await;
    let now = step(&mut ledger).await;
    assert_eq!(parts(&now.runs["r1"]), [5, 2, 2, 1, 0]);
}
