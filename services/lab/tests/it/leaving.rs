//! Clients that go away before they have their answer.

use std::{collections::BTreeSet, time::Duration};

use testkit::wait_until;

use crate::{
    load::client,
    world::{World, ready},
};

const LIMIT: Duration = Duration::from_secs(40);

async fn connections(world: &World) -> BTreeSet<i32> {
    let sql = "select pid from pg_stat_activity where application_name = 'sender-1' and datname = current_database()";
    let pids = sqlx::query_scalar(sql).fetch_all(&world.database.admin);
    pids.await.unwrap().into_iter().collect()
}

#[tokio::test]
async fn clients_that_leave_take_no_connection_to_the_database_along() {
    let world = World::new().await;
    let sender = world
        .sender("sender-1")
        .env("DATABASE_CONNECTIONS", 6)
        .start()
        .await;
    ready(&sender).await;
    // The pool, and the one that looks whether the server is there.
    wait_until("all connections, before anyone asked", LIMIT, async || {
        let count = connections(&world).await.len();
        if count == 7 { Ok(()) } else { Err(count) }
    })
    .await;
    let before = connections(&world).await;
    let client = client();
    for left in 0..200_u64 {
        let page = client.get(sender.url()).send();
        let patience = Duration::from_micros(50 * (left % 100));
        let _ = tokio::time::timeout(patience, page).await;
    }
    wait_until("a page", LIMIT, async || {
        client
            .get(sender.url())
            .send()
            .await
            .is_ok_and(|page| page.status() == 200)
    })
    .await;
    assert_eq!(connections(&world).await, before);
}
