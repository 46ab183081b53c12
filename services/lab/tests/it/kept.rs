//! The connection that a loop keeps between its turns, in a pool as services have it.

use std::{collections::BTreeSet, future::pending, time::Duration};

use daemon::{database::DatabaseArgs, node::NodeArgs, parts::Parts};
use messaging::Kept;
use sqlx::{Connection, PgPool};
use testkit::{Database, Servers, wait_until_eq};
use tokio::sync::Notify;

const LIMIT: Duration = Duration::from_secs(20);

/// A database, and a pool of two connections to it that are open already.
async fn two() -> (Database, PgPool) {
    let fresh = Database::fresh(&Servers::shared()).await;
    let args = DatabaseArgs {
        database_url: fresh.sender_url.clone(),
        database_connections: 2,
    };
    let node_name = Some("sender-1".to_owned());
    let node = NodeArgs { node_name }.node("sender").unwrap();
    let pool = args.open(&node, &Parts::new()).unwrap().pool;
    wait_until_eq("two connections", LIMIT, 2, async || pool.num_idle()).await;
    (fresh, pool)
}

#[tokio::test]
async fn loops_that_wait_give_their_connections_back() {
    let (_database, pool) = two().await;
    let (mut one, mut other) = (Kept::new(pool.clone()), Kept::new(pool.clone()));
    for kept in [&mut one, &mut other] {
        let connection = kept.take().await.unwrap();
        kept.put(connection);
    }
    assert_eq!(pool.num_idle(), 0, "both are kept");
    let never = pending::<()>;
    tokio::select! {
        _ = async { tokio::join!(one.while_waiting(never()), other.while_waiting(never())) } => unreachable!("nothing comes"),
        taken = async { tokio::try_join!(pool.acquire(), pool.acquire()) } => drop(taken.unwrap()),
    }
}

#[tokio::test]
async fn a_busy_loop_keeps_its_connection_from_turn_to_turn() {
    let (_database, pool) = two().await;
    let mut kept = Kept::new(pool);
    let mut pids = BTreeSet::<i32>::new();
    for _ in 0..20 {
        kept.while_waiting(tokio::task::yield_now()).await;
        let mut connection = kept.take().await.unwrap();
        let pid = sqlx::query_scalar("select pg_backend_pid()").fetch_one(&mut *connection);
        pids.insert(pid.await.unwrap());
        kept.put(connection);
    }
    assert_eq!(pids.len(), 1, "{pids:?}");
}

#[tokio::test]
async fn a_turn_that_is_dropped_before_its_commit_leaves_nothing_behind() {
    let (database, pool) = two().await;
    let created = sqlx::query("create table note (text text)").execute(&pool);
    created.await.unwrap();
    // So that the next turn gets what this one leaves.
    let _other = pool.acquire().await.unwrap();
    let mut kept = Kept::new(pool);
    let written = Notify::new();
    let turn = async {
        let mut connection = kept.take().await.unwrap();
        let mut tx = connection.begin().await.unwrap();
        let note = sqlx::query("insert into note values ('half')").execute(&mut *tx);
        note.await.unwrap();
        written.notify_one();
        pending::<()>().await;
        tx.commit().await.unwrap();
        kept.put(connection);
    };
    tokio::select! { () = turn => unreachable!("it waits for ever"), () = written.notified() => {} }
    let mut connection = kept.take().await.unwrap();
    let seen = "select pg_backend_pid(), (select count(*) from note)";
    let seen = sqlx::query_as(seen).fetch_one(&mut *connection);
    let (pid, notes): (i32, i64) = seen.await.unwrap();
    let state = sqlx::query_scalar("select state from pg_stat_activity where pid = $1").bind(pid);
    let state: String = state.fetch_one(&database.admin).await.unwrap();
    assert_eq!((state.as_str(), notes), ("idle", 0));
}
