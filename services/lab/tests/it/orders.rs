//! What is decided about dead letters: which orders are refused, how they are counted, and what nobody of ours made.

use reqwest::StatusCode;
use serde_json::json;

use crate::{
    redrive::{ended, parked, plan, receiver, start},
    world::World,
};

const DISCARD: &str = "/received/api/dead-letters/discard";

async fn change(world: &World, sql: &'static str) {
    let done = sqlx::query(sql).execute(&world.database.admin).await;
    done.unwrap();
}

/// As a receiver parked before redrives had numbers.
#[tokio::test]
async fn a_dead_letter_without_a_number_is_refused_instead_of_taken_for_a_copy() {
    let world = World::new().await;
    let receiver = receiver(&world, "receiver-1").await;
    parked(&world, 1, "x").await;
    let (id, _) = plan(&receiver, json!({"all": true}), 100).await;
    start(&receiver, &id).await;
    ended(&receiver, &id).await;
    let old = "insert into receiver.dead_letter (fingerprint, message_id, kind, body, reason, headers, node)
        select fingerprint, message_id, kind, body, reason, headers, node from receiver.dead_letter
        on conflict do nothing";
    let refused = sqlx::query(old).execute(&world.database.admin).await;
    let refused = refused.unwrap_err();
    let code = refused.as_database_error().and_then(|error| error.code());
    assert_eq!(code.as_deref(), Some("23502"), "{refused}");
}
