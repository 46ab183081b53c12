//! What goes from the inbox, and when: by turns of the loop itself.

use daemon::{
    database::{Database as Services, DatabaseArgs},
    node::NodeArgs,
    parts::Parts,
};
use messaging::receive::window::{InboxArgs, Pruner};
use sqlx::PgPool;
use testkit::{Database, Servers, wait_until};
use uuid::Uuid;

use super::{LIMIT, foreign, made};

/// The tables of a receiver, in a database of the test's own, with its role's limits.
async fn tables() -> (Database, PgPool) {
    let fresh = Database::fresh(&Servers::shared()).await;
    let args = DatabaseArgs {
        database_url: fresh.receiver_url.clone(),
        database_connections: 4,
    };
    let node_name = Some("receiver-1".to_owned());
    let node = NodeArgs { node_name }.node("receiver").unwrap();
    let Services { pool, .. } = args.open(&node, &Parts::new()).unwrap();
    messaging::receive::migrator().run(&pool).await.unwrap();
    (fresh, pool)
}

fn pruner(pool: &PgPool, inbox_window_secs: u64) -> Pruner {
    Pruner::new(pool.clone(), &InboxArgs { inbox_window_secs })
}

/// Rows of so many ids, a millisecond apart, the youngest made so many seconds ago.
async fn fill(pool: &PgPool, rows: i32, secs_ago: i32) {
    let sql = "insert into inbox (message_id)
        select (lpad(to_hex((extract(epoch from clock_timestamp()) * 1000)::bigint - $2 * 1000::bigint - n), 12, '0')
                || '70008000' || lpad(to_hex(n), 12, '0'))::uuid from generate_series(1, $1) n";
    let filled = sqlx::query(sql).bind(rows).bind(secs_ago).execute(pool);
    filled.await.unwrap();
}

async fn count(pool: &PgPool) -> i64 {
    let count = sqlx::query_scalar("select count(*) from inbox");
    count.fetch_one(pool).await.unwrap()
}

#[tokio::test]
async fn rows_go_in_batches_and_only_those_that_are_older_than_the_window() {
    let (fresh, pool) = tables().await;
    fill(&pool, 12_000, 3_600).await;
    fill(&pool, 100, 60).await;
    let kept = [foreign(0xff), made(&pool, 1_700).await];
    let gone = [foreign(0), made(&pool, 1_900).await];
    for id in kept.into_iter().chain(gone) {
        let admit = sqlx::query("insert into inbox (message_id) values ($1)").bind(id);
        admit.execute(&pool).await.unwrap();
    }
    let noted = "create table inbox_batch (rows bigint);
        create function note() returns trigger language plpgsql as
            $$ begin insert into inbox_batch select count(*) from gone; return null; end $$;
        create trigger note after delete on inbox referencing old table as gone
            for each statement execute function note();";
    sqlx::raw_sql(noted).execute(&pool).await.unwrap();
    assert_eq!(pruner(&pool, 1_800).step().await.unwrap(), 12_002);
    let batches: Vec<i64> = sqlx::query_scalar("select rows from inbox_batch")
        .fetch_all(&pool)
        .await
        .unwrap();
    assert_eq!(batches, [5_000, 5_000, 2_002]);
    assert_eq!(count(&pool).await, 102);
    let left: Vec<Uuid> = sqlx::query_scalar("select message_id from inbox")
        .fetch_all(&pool)
        .await
        .unwrap();
    assert!(kept.iter().all(|id| left.contains(id)), "{left:?}");
    drop(fresh);
}

#[tokio::test]
async fn two_who_remove_at_once_share_the_rows_and_wait_for_nobody() {
    let (fresh, pool) = tables().await;
    fill(&pool, 20_000, 3_600).await;
    let held = made(&pool, 7_200).await;
    let admit = sqlx::query("insert into inbox (message_id) values ($1)").bind(held);
    admit.execute(&pool).await.unwrap();
    // Somebody has the oldest one in hand, for longer than this takes.
    let mut hand = fresh.admin.begin().await.unwrap();
    let hold = "select from receiver.inbox where message_id = $1 for update";
    sqlx::query(hold)
        .bind(held)
        .execute(&mut *hand)
        .await
        .unwrap();
    // Whoever has removed a batch waits, so that the other one removes one too.
    let barrier = "create function wait() returns trigger language plpgsql as
            $$ begin perform pg_advisory_xact_lock_shared(7); return null; end $$;
        create trigger wait after delete on inbox for each statement execute function wait();";
    sqlx::raw_sql(barrier).execute(&pool).await.unwrap();
    let mut shut = fresh.admin.begin().await.unwrap();
    let lock = sqlx::query("select pg_advisory_xact_lock(7)");
    lock.execute(&mut *shut).await.unwrap();
    let (one, other) = (pruner(&pool, 1_800), pruner(&pool, 1_800));
    let open = async {
        wait_until("both to have removed a batch", LIMIT, async || {
            let waits = "select count(*) from pg_locks where locktype = 'advisory' and not granted
                and database = (select oid from pg_database where datname = current_database())";
            let waits: i64 = sqlx::query_scalar(waits)
                .fetch_one(&fresh.admin)
                .await
                .unwrap();
            waits == 2
        })
        .await;
        shut.commit().await.unwrap();
    };
    let (by_one, by_other, ()) = tokio::join!(one.step(), other.step(), open);
    let (by_one, by_other) = (by_one.unwrap(), by_other.unwrap());
    assert!(by_one >= 5_000 && by_other >= 5_000, "{by_one} {by_other}");
    assert_eq!(by_one + by_other, 20_000, "{by_one} and {by_other}");
    assert_eq!(count(&pool).await, 1, "the one in hand is passed over");
    hand.rollback().await.unwrap();
    assert_eq!(one.step().await.unwrap(), 1);
}

#[tokio::test]
async fn nothing_goes_for_an_announcement_that_the_table_has_lost() {
    let (_fresh, pool) = tables().await;
    fill(&pool, 10, 3_600).await;
    // As if another server had taken over between the two, which never heard of it.
    let lose = "create function lose() returns trigger language plpgsql as
            $$ begin update inbox_window set below = old.below; return null; end $$;
        create trigger lose after update on inbox_window for each row when (pg_trigger_depth() = 0)
            execute function lose();";
    sqlx::raw_sql(lose).execute(&pool).await.unwrap();
    assert_eq!(pruner(&pool, 1_800).step().await.unwrap(), 0);
    let found = "drop trigger lose on inbox_window";
    sqlx::raw_sql(found).execute(&pool).await.unwrap();
    assert_eq!(pruner(&pool, 1_800).step().await.unwrap(), 10);
}

#[tokio::test]
async fn what_was_announced_once_counts_whatever_the_window_is_later() {
    let (_fresh, pool) = tables().await;
    let below = async || -> Uuid {
        let below = sqlx::query_scalar("select below from inbox_window");
        below.fetch_one(&pool).await.unwrap()
    };
    assert_eq!(below().await, Uuid::nil(), "of a new inbox nothing is gone");
    pruner(&pool, 4_000_000_000).step().await.unwrap();
    assert_eq!(below().await, Uuid::nil(), "a time before 1970");
    pruner(&pool, 60).step().await.unwrap();
    let short = below().await;
    let (older, younger) = (made(&pool, 70).await, made(&pool, 50).await);
    assert!(
        older < short && short < younger,
        "{older} {short} {younger}"
    );
    pruner(&pool, 86_400).step().await.unwrap();
    assert_eq!(below().await, short, "it never goes back");
}
