//! Marks that come late: what the broker said of one order to publish says nothing of the next one for the same message.

use messaging::send::outbox::{Outcome, Published, mark};
use sqlx::postgres::PgPoolOptions;
use uuid::Uuid;

use crate::world::{World, ready};

const ROWS: &str = "select count(*) from receiver.outbox";

#[tokio::test]
async fn a_late_mark_takes_only_the_row_of_its_own_redrive() {
    let world = World::new().await;
    let mut receiver = world.receiver("receiver-1").start().await;
    ready(&receiver).await;
    // it would publish the row
    receiver.kill().await;
    let row = "insert into receiver.outbox (message_id, kind, body, node, accepted_at, redrive)
        values (gen_random_uuid(), 'message.v1', '', 'receiver-1', now(), 2) returning message_id";
    let id: Uuid = sqlx::query_scalar(row)
        .fetch_one(&world.database.admin)
        .await
        .unwrap();
    let pool = PgPoolOptions::new().max_connections(1);
    let pool = pool.connect(&world.database.receiver_url).await.unwrap();
    let said = |outcome, redrive| Published {
        message_id: id,
        redrive,
        outcome,
        tries: 1,
        at: std::time::Instant::now(),
        confirm_ms: 5,
    };
    for outcome in [Outcome::Confirmed, Outcome::Unroutable] {
        mark(&pool, "receiver-2", &[said(outcome, 1)])
            .await
            .unwrap();
        let untouched = format!("{ROWS} where state = 'waiting' and tries = 0");
        assert_eq!(
            world.count(&untouched).await,
            1,
            "{outcome:?} of the one before"
        );
    }
    mark(&pool, "receiver-2", &[said(Outcome::Confirmed, 2)])
        .await
        .unwrap();
    assert_eq!(world.count(ROWS).await, 0);
    // each try is on record, whichever row it was of
    let tries = "select count(*) from receiver.publication";
    assert_eq!(world.count(tries).await, 3);
}
