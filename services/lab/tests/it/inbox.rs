//! Many deliveries that are looked up by one query: each gets its own answer.

use std::time::Duration;

use serde_json::json;
use uuid::Uuid;

use crate::{
    foreign::ours,
    world::{World, reaches, ready},
};

const LIMIT: Duration = Duration::from_secs(40);
/// Messages of each kind.
const EACH: i32 = 8;

async fn publish(world: &World, id: Uuid, text: &str) {
    let properties = ours().with_message_id(id.to_string().into());
    let body = json!({"number": 1, "text": text}).to_string();
    let published = world
        .broker
        .publish_raw("messages", "messages", properties, body.as_bytes());
    published.await.unwrap();
}

async fn admitted(world: &World, id: Uuid) {
    let row = sqlx::query("insert into receiver.inbox (message_id) values ($1)").bind(id);
    row.execute(&world.database.admin).await.unwrap();
}

async fn failed(world: &World, id: Uuid, times: i32) {
    let rows = sqlx::query(
        "insert into receiver.failure (failure_id, message_id, node, attempt, reason)
         select gen_random_uuid(), $1, 'receiver-1', n, 'before' from generate_series(1, $2) n",
    );
    let rows = rows.bind(id).bind(times);
    rows.execute(&world.database.admin).await.unwrap();
}

#[tokio::test]
async fn of_many_that_are_looked_up_together_each_gets_its_own_answer() {
    let world = World::new().await;
    let receiver = world.receiver("receiver-1").env("PREFETCH", 100);
    let mut receiver = receiver.env("WORK_MAX_FAILURES", 5).start().await;
    ready(&receiver).await;
    receiver.terminate(LIMIT).await.unwrap();
    for _ in 0..EACH {
        // New by their bytes: the inbox forgets a row below its window, and `done` has nothing else that tells.
        let [new, done, thrice, too_often] = [(); 4].map(|()| Uuid::now_v7());
        admitted(&world, done).await;
        failed(&world, thrice, 3).await;
        failed(&world, too_often, 5).await;
        publish(&world, new, "new").await;
        // Its work would fail, if there were any.
        publish(&world, done, "poison: done").await;
        publish(&world, thrice, "failed thrice").await;
        publish(&world, new, "new").await;
        publish(&world, too_often, "failed too often").await;
    }
    // The first look waits for the lock, and the next one is for all who come meanwhile.
    let mut lock = world.database.admin.begin().await.unwrap();
    let locked = sqlx::query("lock table receiver.inbox").execute(&mut *lock);
    locked.await.unwrap();
    receiver.start_again().await;
    let all = 5.0 * f64::from(EACH);
    reaches(&receiver, "unacked_deliveries_in_hand", all, LIMIT).await;
    lock.commit().await.unwrap();
    reaches(&receiver, "unacked_messages_acknowledged_total", all, LIMIT).await;

    let effects: Vec<(String, i32, i64, i64)> = sqlx::query_as(
        "select text, attempt, count(*), count(distinct message_id)
           from receiver.processed group by text, attempt order by text",
    )
    .fetch_all(&world.database.admin)
    .await
    .unwrap();
    let each = i64::from(EACH);
    let effect = |text: &str, attempt| (text.to_owned(), attempt, each, each);
    assert_eq!(effects, [effect("failed thrice", 4), effect("new", 1)]);
    let given_up =
        "select count(*) from receiver.dead_letter where reason like 'its work failed 5 times%'
                       and convert_from(body, 'utf8') like '%failed too often%'";
    assert_eq!(world.count(given_up).await, each);
    let failures = "select count(*) from receiver.failure";
    assert_eq!(world.count(failures).await, each * (3 + 5), "none is new");
}
